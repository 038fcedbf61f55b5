"""What is evaluated: objects of a collection, by one of its labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.api import Collection
from mvretrieval.errors import LabelsError, did_you_mean

_SHOWN = 5


@dataclass(frozen=True)
class Selection:
    """Which objects, and what makes them alike.

    Attributes:
        by: label that says which objects are alike.
        where: filter; all objects without one.
        classes: file with one label a line; objects with another, or none, are left out.
    """

    by: str = "label"
    where: str | None = None
    classes: Path | None = None

    @property
    def in_words(self) -> str:
        """Which objects; empty for all."""
        return ", ".join(
            [*([self.where] if self.where else []), *([f"classes of {self.classes}"] if self.classes else [])]
        )


@dataclass(frozen=True)
class EvaluationSet:
    """Objects with vectors, and what is said of each.

    Attributes:
        selection: that they are.
        row_ids: (N,) of the objects in the collection.
        ids: N.
        labels: N; None for an object without one.
        vectors: (N, D), unit norm.
        unknown_classes: labels of the file of classes that none of the objects has; `where` may have left them out.
        unknown_note: what is to be said of them, with the labels that they may mean; empty for nothing.
    """

    selection: Selection
    row_ids: NDArray[np.int64]
    ids: tuple[str, ...]
    labels: list[Any]
    vectors: NDArray[np.float32]
    unknown_classes: tuple[str, ...] = ()
    unknown_note: str = ""

    @property
    def unlabelled(self) -> int:
        """How many have no label."""
        return sum(label is None for label in self.labels)


def evaluation_set_of(collection: Collection, selection: Selection) -> EvaluationSet:
    """Read the objects that are asked and searched, as they are at one moment.

    Args:
        collection: open.
        selection: which objects.

    Raises:
        FilterError: there is no such label, or the filter cannot be understood.
        LabelsError: the file of classes cannot be read, or names no class of these objects.
    """
    store = collection.store
    by = selection.by
    kept = None if selection.classes is None else read_classes(selection.classes)
    unknown: tuple[str, ...] = ()
    note = ""
    with store.snapshot():
        if not store.count():
            raise LabelsError(
                f"{collection.folder} is empty: index something with 'mvr index {collection.folder} FOLDER'"
            )
        store.check_column(by)
        row_ids = store.select(selection.where)
        labels = store.column_values(by, [int(n) for n in row_ids])
        if kept is not None:
            there = {str(label) for label in labels if label is not None}
            unknown = tuple(sorted(kept - there))
            note = _note(selection, unknown, there)
            if len(row_ids) and not kept & there:
                problem = note or f"{selection.classes} names no class"
                raise LabelsError(f"{problem}; write one '{by}' a line, as the collection has it")
            chosen = [i for i, label in enumerate(labels) if label is not None and str(label) in kept]
            row_ids, labels = row_ids[chosen], [labels[i] for i in chosen]
        vectors = [store.vector_of(int(n)) for n in row_ids]
        records = store.records([int(n) for n in row_ids])
    ids = tuple(records[int(n)].id for n in row_ids)
    stacked = np.stack(vectors) if vectors else np.empty((0, 1), np.float32)
    return EvaluationSet(selection, row_ids, ids, labels, stacked, unknown, note)


def _note(selection: Selection, unknown: tuple[str, ...], there: set[str]) -> str:
    """Classes without an object, each with the label that it may mean."""
    if not unknown:
        return ""
    nearest = [(name, did_you_mean(name, there).strip()) for name in unknown[:_SHOWN]]
    shown = [f"'{name}' ({near})" if near else f"'{name}'" for name, near in nearest]
    more = f", and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
    where = f" that --where {selection.where} keeps" if selection.where else ""
    return f"no object{where} has the '{selection.by}' {', '.join(shown)}{more} of {selection.classes}"


def read_classes(path: Path) -> set[str]:
    """Labels from a file of UTF-8 text with one a line.

    Raises:
        LabelsError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # some editors write a mark in front
    except UnicodeDecodeError as error:
        raise LabelsError(f"classes {path} cannot be read: {error}; save them as UTF-8") from error
    except OSError as error:
        raise LabelsError(
            f"classes {path} cannot be read: {error.strerror or error}; name a file with one class a line"
        ) from error
    return {line.strip() for line in lines if line.strip()}
