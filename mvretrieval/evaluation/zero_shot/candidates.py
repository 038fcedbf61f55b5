"""Which names an object may be called by, and which is its own: labels of a collection as a task for words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import EvaluationError, did_you_mean
from mvretrieval.evaluation.zero_shot.text_queries import Words
from mvretrieval.weighting.text_embeddings import class_name


@dataclass(frozen=True)
class ZeroShotTask:
    """Objects to be called by name.

    Attributes:
        rows: (N,) of the objects that are asked, among those selected.
        own: (N,) the candidate that is right.
        names: C candidates, sorted.
        is_seen: (C,) candidates that were learnt from; all False where nothing is said of that.
        unlabelled: objects left out, since they have no label, or one that says nothing (`???`).
        learnt: objects left out, since they were learnt from.
        not_candidates: objects left out, since their class is not among the candidates.
        unknown_objects: objects left out, since whoever reads does not know their class's name.
        unknown_names: those names, and candidates without objects that are not known either.
        merged: labels that have one name (`a/other`, `b/other`): each group counts as one class.
    """

    rows: NDArray[np.int64]
    own: NDArray[np.int64]
    names: tuple[str, ...]
    is_seen: NDArray[np.bool_]
    unlabelled: int
    learnt: int
    not_candidates: int
    unknown_objects: int
    unknown_names: tuple[str, ...]
    merged: tuple[tuple[str, ...], ...]

    def left_out(self) -> dict[str, Any]:
        """What was not measured, for JSON."""
        return {
            "unlabelled": self.unlabelled,
            "learnt_from": self.learnt,
            "not_candidates": self.not_candidates,
            "unknown_objects": self.unknown_objects,
            "unknown_names": list(self.unknown_names),
        }


def candidate_names(
    labels: Sequence[Any], classes: Sequence[str] | None = None, seen_labels: Sequence[Any] = ()
) -> tuple[str, ...]:
    """Names that objects may be called by, sorted: those of a list, or of the labels.

    Args:
        labels: of the objects; None for none.
        classes: the list; names without objects count too.
        seen_labels: of objects that were learnt from; they are candidates as well.
    """
    return tuple(
        sorted({class_name(label) for label in ((*labels, *seen_labels) if classes is None else classes)} - {""})
    )


def naming_task(
    labels: Sequence[Any],
    words: Words,
    *,
    seen_labels: Sequence[Any] = (),
    learnt: NDArray[np.bool_] | None = None,
    by: str = "label",
) -> ZeroShotTask:
    """Labels and candidates as a task.

    Args:
        labels: of the selected objects; None for none.
        words: the candidates, as far as they are known.
        seen_labels: of objects that were learnt from.
        learnt: of the selected objects, those that were learnt from; they do not ask.
        by: name of the label, for messages.

    Raises:
        EvaluationError: nothing is left to be measured.
    """
    learnt = np.zeros(len(labels), bool) if learnt is None else learnt
    place = {name: i for i, name in enumerate(words.names)}
    unknown = set(words.unknown)
    rows, own, counts = [], [], {"unlabelled": 0, "learnt": 0, "not_candidates": 0, "unknown": 0}
    for i, label in enumerate(labels):
        name = class_name(label)
        if not name:
            counts["unlabelled"] += 1
        elif learnt[i]:
            counts["learnt"] += 1
        elif name in place:
            rows.append(i)
            own.append(place[name])
        else:
            counts["unknown" if name in unknown else "not_candidates"] += 1
    if not rows:
        raise EvaluationError(_nothing_left(labels, counts, words, by))
    seen = {class_name(label) for label in seen_labels}
    called: dict[str, list[str]] = {}
    for label in sorted({str(label) for label in labels if class_name(label)}):
        called.setdefault(class_name(label), []).append(label)
    return ZeroShotTask(
        np.array(rows, np.int64), np.array(own, np.int64), words.names, np.array([name in seen for name in words.names], bool),
        counts["unlabelled"], counts["learnt"], counts["not_candidates"], counts["unknown"], words.unknown,
        tuple(tuple(group) for group in called.values() if len(group) > 1),
    )  # fmt: skip


def _nothing_left(labels: Sequence[Any], counts: dict[str, int], words: Words, by: str) -> str:
    if not labels:
        return "no object is left to be named: give another --where"
    near = (
        did_you_mean(words.names[0], {class_name(label) for label in labels})
        if counts["not_candidates"] and words.names
        else ""
    )
    return (
        f"none of the {len(labels)} objects can be named: {counts['unlabelled']} have no label '{by}', the class of "
        f"{counts['not_candidates']} is not among the candidates, the name of {counts['unknown']} is not known to "
        f"{words.source}, and {counts['learnt']} were learnt from"
        + (
            f" (unknown are {', '.join(words.unknown[:5])}{', ...' if len(words.unknown) > 5 else ''})"
            if words.unknown
            else ""
        )
        + f"; {f'no object is a {words.names[0]}: {near}' if near else ''}give another --where, --by or list of classes"
    )
