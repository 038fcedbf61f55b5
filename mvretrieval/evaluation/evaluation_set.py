"""The evaluated objects of a collection: vectors, ids and one label."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import EvaluationError, LabelsError, did_you_mean
from mvretrieval.session.session import Session
from mvretrieval.store.batches import view_vectors

if TYPE_CHECKING:
    from mvretrieval.weighting.adapter import Adapter

_MAX_SHOWN = 5
_BATCH = 256


@dataclass(frozen=True)
class Selection:
    """Which objects are evaluated, and by which label.

    Attributes:
        by: label that defines the classes.
        where: filter; None for all objects.
        classes: file with one class a line; objects of other classes, or without a label, are left out.
    """

    by: str = "label"
    where: str | None = None
    classes: Path | None = None

    @property
    def description(self) -> str:
        """Filter and file of classes; empty for all objects."""
        return ", ".join(
            [*([self.where] if self.where else []), *([f"classes of {self.classes}"] if self.classes else [])]
        )


@dataclass(frozen=True)
class EvaluationSet:
    """Objects with vectors and labels.

    Attributes:
        selection: how they were selected.
        row_ids: (N,) row ids in the collection.
        ids: N ids.
        labels: N labels; None for an object without one.
        vectors: (N, D), unit norm.
        unknown_classes: classes of the file without an object; `where` may have removed their objects.
        unknown_classes_note: message about them with the nearest labels; empty if there are none.
    """

    selection: Selection
    row_ids: NDArray[np.int64]
    ids: tuple[str, ...]
    labels: list[Any]
    vectors: NDArray[np.float32]
    unknown_classes: tuple[str, ...] = ()
    unknown_classes_note: str = ""

    @property
    def n_unlabeled(self) -> int:
        """Number of objects without a label."""
        return sum(label is None for label in self.labels)


def load_evaluation_set(session: Session, selection: Selection) -> EvaluationSet:
    """Read the selected objects in one snapshot of the collection.

    Args:
        session: open collection.
        selection: which objects.

    Raises:
        FilterError: the label does not exist, or the filter cannot be parsed.
        LabelsError: the collection is empty, or the file of classes cannot be read or has none of the objects' classes.
    """
    store, by = session.store, selection.by
    kept = None if selection.classes is None else read_classes(selection.classes)
    unknown: tuple[str, ...] = ()
    note = ""
    with store.snapshot():
        if not store.count():
            raise LabelsError(
                f"{session.folder} is empty: add objects with 'mvr index {session.folder} FOLDER'",
                code="empty_collection",
            )
        store.check_column(by)
        row_ids = store.select(selection.where)
        labels = store.column_values(by, [int(n) for n in row_ids])
        if kept is not None:
            existing = {str(label) for label in labels if label is not None}
            unknown = tuple(sorted(kept - existing))
            note = _unknown_classes_note(selection, unknown, existing)
            if len(row_ids) and not kept & existing:
                problem = note or f"{selection.classes} has no classes"
                raise LabelsError(f"{problem}; write one value of '{by}' per line", code="no_such_class")
            chosen = [i for i, label in enumerate(labels) if label is not None and str(label) in kept]
            row_ids, labels = row_ids[chosen], [labels[i] for i in chosen]
        vectors = [store.vector_of(int(n)) for n in row_ids]
        records = store.records([int(n) for n in row_ids])
    ids = tuple(records[int(n)].id for n in row_ids)
    stacked = np.stack(vectors) if vectors else np.empty((0, 1), np.float32)
    return EvaluationSet(selection, row_ids, ids, labels, stacked, unknown, note)


def with_adapter(session: Session, evaluation_set: EvaluationSet, adapter: Adapter) -> EvaluationSet:
    """The same objects with the vectors that an adapter makes from their stored views; the collection is not changed.

    Args:
        session: of the collection that the objects were read from.
        evaluation_set: from `load_evaluation_set`.
        adapter: trained on the views of this collection.

    Raises:
        AdapterError: the adapter was trained on other views.
        EvaluationError: objects were removed meanwhile.
    """
    describer = session.describer.with_adapter(adapter)
    vectors = []
    for start in range(0, len(evaluation_set.row_ids), _BATCH):
        batch = evaluation_set.row_ids[start : start + _BATCH].tolist()
        found, raw, mask = view_vectors(session.store, batch, describer.n_styles)
        if len(found) < len(batch):
            raise EvaluationError("objects were removed during the evaluation: run it again", code="objects_removed")
        vectors.append(describer.pool(raw, mask)[0])
    return replace(evaluation_set, vectors=np.concatenate(vectors)) if vectors else evaluation_set


def _unknown_classes_note(selection: Selection, unknown: tuple[str, ...], existing: set[str]) -> str:
    if not unknown:
        return ""
    nearest = [(name, did_you_mean(name, existing).strip()) for name in unknown[:_MAX_SHOWN]]
    shown = [f"'{name}' ({near})" if near else f"'{name}'" for name, near in nearest]
    more = f", and {len(unknown) - _MAX_SHOWN} more" if len(unknown) > _MAX_SHOWN else ""
    where = f" selected by --where {selection.where}" if selection.where else ""
    return f"no object{where} has the '{selection.by}' {', '.join(shown)}{more} of {selection.classes}"


def read_classes(path: Path) -> set[str]:
    """Read classes from a UTF-8 text file with one per line.

    Raises:
        LabelsError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # some editors write a byte order mark
    except UnicodeDecodeError as error:
        raise LabelsError(
            f"classes {path} cannot be read: {error}; save the file as UTF-8", code="unreadable"
        ) from error
    except OSError as error:
        raise LabelsError(
            f"classes {path} cannot be read: {error.strerror or error}; give a file with one class per line",
            code="unreadable",
        ) from error
    return {line.strip() for line in lines if line.strip()}
