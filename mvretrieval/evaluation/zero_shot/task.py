"""Zero-shot classification task: candidate classes, and the true class of each object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import EvaluationError, did_you_mean
from mvretrieval.evaluation.zero_shot.text_queries import ClassNameClassifier
from mvretrieval.weighting.text_embeddings import class_name


@dataclass(frozen=True)
class ZeroShotTask:
    """Objects to classify by class names.

    Attributes:
        rows: (N,) evaluated objects among the selected ones.
        targets: (N,) true candidate of each.
        names: C candidate names, sorted.
        is_seen: (C,) True for seen classes; all False if none are declared.
        unlabeled: objects left out because they have no label, or one without letters or digits (`???`).
        seen: objects left out because they were trained on.
        not_candidates: objects left out because their class is not a candidate.
        unknown_objects: objects left out because the text encoder does not know the name of their class.
        unknown_names: those names, and unknown candidates without objects.
        merged: labels that share a name (`a/other`, `b/other`): each group is one class.
    """

    rows: NDArray[np.int64]
    targets: NDArray[np.int64]
    names: tuple[str, ...]
    is_seen: NDArray[np.bool_]
    unlabeled: int
    seen: int
    not_candidates: int
    unknown_objects: int
    unknown_names: tuple[str, ...]
    merged: tuple[tuple[str, ...], ...]

    def left_out(self) -> dict[str, Any]:
        """Objects and names left out, for JSON."""
        return {
            "unlabeled": self.unlabeled,
            "seen": self.seen,
            "not_candidates": self.not_candidates,
            "unknown_objects": self.unknown_objects,
            "unknown_names": list(self.unknown_names),
        }


def candidate_names(
    labels: Sequence[Any],
    classes: Sequence[str] | None = None,
    seen_labels: Sequence[Any] = (),
    name_of: Callable[[object], str] = class_name,
) -> tuple[str, ...]:
    """Sorted candidate names: those of a list of classes, or of the labels.

    Args:
        labels: labels of the objects; None for none.
        classes: list of classes; candidates even without objects.
        seen_labels: labels of objects trained on; candidates as well.
        name_of: name of the class of a label; empty for None.
    """
    source = (*labels, *seen_labels) if classes is None else classes
    return tuple(sorted({name_of(label) for label in source if label is not None} - {""}))


def zero_shot_task(
    labels: Sequence[Any],
    classifier: ClassNameClassifier,
    *,
    seen_labels: Sequence[Any] = (),
    is_seen_object: NDArray[np.bool_] | None = None,
    by: str = "label",
    name_of: Callable[[object], str] = class_name,
) -> ZeroShotTask:
    """Make a task from labels and candidates.

    Args:
        labels: labels of the selected objects; None for none.
        classifier: the candidates, as far as they are known.
        seen_labels: labels of objects trained on.
        is_seen_object: True for selected objects that were trained on; they are left out.
        by: name of the label, for messages.
        name_of: name of the class of a label, as for `candidate_names`.

    Raises:
        EvaluationError: no object is left.
    """
    is_seen_object = np.zeros(len(labels), bool) if is_seen_object is None else is_seen_object
    position = {name: i for i, name in enumerate(classifier.names)}
    unknown = set(classifier.unknown)
    rows, targets, counts = [], [], {"unlabeled": 0, "seen": 0, "not_candidates": 0, "unknown": 0}
    for i, label in enumerate(labels):
        name = "" if label is None else name_of(label)
        if not name:
            counts["unlabeled"] += 1
        elif is_seen_object[i]:
            counts["seen"] += 1
        elif name in position:
            rows.append(i)
            targets.append(position[name])
        else:
            counts["unknown" if name in unknown else "not_candidates"] += 1
    if not rows:
        raise EvaluationError(_no_objects_message(labels, counts, classifier, by, name_of), code="no_objects")
    seen_names = {name_of(label) for label in seen_labels if label is not None}
    return ZeroShotTask(
        rows=np.array(rows, np.int64),
        targets=np.array(targets, np.int64),
        names=classifier.names,
        is_seen=np.array([name in seen_names for name in classifier.names], bool),
        unlabeled=counts["unlabeled"],
        seen=counts["seen"],
        not_candidates=counts["not_candidates"],
        unknown_objects=counts["unknown"],
        unknown_names=classifier.unknown,
        merged=_merged(labels, name_of),
    )


def _merged(labels: Sequence[Any], name_of: Callable[[object], str]) -> tuple[tuple[str, ...], ...]:
    """Groups of labels that share a name."""
    groups: dict[str, list[str]] = {}
    for label in sorted({str(label) for label in labels if label is not None}):
        groups.setdefault(name_of(label), []).append(label)
    groups.pop("", None)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def _no_objects_message(
    labels: Sequence[Any],
    counts: dict[str, int],
    classifier: ClassNameClassifier,
    by: str,
    name_of: Callable[[object], str],
) -> str:
    if not labels:
        return "no object is selected: change --where"
    near = ""
    if counts["not_candidates"] and classifier.names:
        near = did_you_mean(classifier.names[0], {name_of(label) for label in labels if label is not None})
        near = f"no object has the class '{classifier.names[0]}': {near}" if near else ""
    unknown = ""
    if classifier.unknown:
        unknown = f" ({', '.join(classifier.unknown[:5])}{', ...' if len(classifier.unknown) > 5 else ''})"
    return (
        f"none of the {len(labels)} objects can be classified: {counts['unlabeled']} have no '{by}', the classes of "
        f"{counts['not_candidates']} are not candidates, the class names of {counts['unknown']} are unknown to "
        f"{classifier.source}{unknown}, and {counts['seen']} were trained on; {near}change --where, --by or --classes"
    )
