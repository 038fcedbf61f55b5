"""Generalised zero-shot: classes that were learnt from and classes that were not are candidates together.

What was learnt from wins too often. Calibrated stacking (Chao et al. 2016, arXiv 1605.04253) takes a bias away from the
scores of seen classes; the area under the curve of all biases needs none to be chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import EvaluationError, ShapeError
from mvretrieval.evaluation.zero_shot.classification import verdicts


@dataclass(frozen=True)
class Generalised:
    """Shares of objects called by their own name, each class counting the same (Xian et al. 2018, arXiv 1707.00600).

    Attributes:
        seen: of objects of seen classes, among all candidates; NaN without such objects.
        unseen: of objects of unseen classes, among all candidates.
        harmonic: harmonic mean of the two.
        seen_alone: of objects of seen classes, among seen candidates.
        unseen_alone: of objects of unseen classes, among unseen candidates: zero-shot as usual.
        area: under the curve of seen and unseen over all biases.
        bias: that was taken away from seen classes' scores.
        seen_objects: how many.
        unseen_objects: how many.
        seen_classes: candidates.
        unseen_classes: candidates.
    """

    seen: float
    unseen: float
    harmonic: float
    seen_alone: float
    unseen_alone: float
    area: float
    bias: float
    seen_objects: int
    unseen_objects: int
    seen_classes: int
    unseen_classes: int


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b); 0 where both are 0, NaN where one is."""
    if np.isnan(a) or np.isnan(b):
        return float("nan")
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def generalised(
    scores: NDArray[np.float64], own: NDArray[np.int64], is_seen: NDArray[np.bool_], bias: float = 0.0
) -> Generalised:
    """Measure seen and unseen classes together.

    Args:
        scores: (N, C).
        own: (N,) the right candidate of each object.
        is_seen: (C,) candidates that were learnt from.
        bias: taken away from their scores.

    Raises:
        ShapeError: shapes disagree.
        EvaluationError: the bias is not a number.
    """
    if scores.shape != (len(own), len(is_seen)):
        raise ShapeError(f"scores {scores.shape} of {len(own)} objects and {len(is_seen)} classes")
    if not np.isfinite(bias):
        raise EvaluationError(f"the bias of seen classes is a number, not {bias}")
    right = verdicts((scores - bias * is_seen).round(9), own).rank == 0
    of_seen = is_seen[own]
    seen, unseen = class_mean(right, own, of_seen), class_mean(right, own, ~of_seen)
    only = {kind: _alone(scores, own, of_seen == kind, is_seen == kind) for kind in (True, False)}
    return Generalised(
        seen, unseen, harmonic_mean(seen, unseen), only[True], only[False], seen_unseen_area(scores, own, is_seen), bias,
        int(of_seen.sum()), int((~of_seen).sum()), int(is_seen.sum()), int((~is_seen).sum()),
    )  # fmt: skip


def class_mean(right: NDArray[np.bool_], own: NDArray[np.int64], rows: NDArray[np.bool_]) -> float:
    """Mean over classes of the share of their objects that are right; NaN of none."""
    if not rows.any():
        return float("nan")
    counts = np.bincount(own[rows])
    hits = np.bincount(own[rows], weights=right[rows])
    return float((hits[counts > 0] / counts[counts > 0]).mean())


def seen_unseen_area(scores: NDArray[np.float64], own: NDArray[np.int64], is_seen: NDArray[np.bool_]) -> float:
    """Area under (seen, unseen) accuracy while the bias runs from minus to plus infinity; NaN unless there are both.

    An object goes to its best seen candidate while the bias is below its lead over the best unseen one.
    """
    of_seen = is_seen[own]
    if not of_seen.any() or of_seen.all():
        return float("nan")
    best = {kind: _best(scores, is_seen == kind) for kind in (True, False)}
    rows = np.arange(len(own))
    lead = (scores[rows, best[True]] - scores[rows, best[False]]).round(9)
    share = 1 / np.bincount(own, minlength=len(is_seen))[own]  # of its class, of the classes of its kind
    share /= np.where(of_seen, len(np.unique(own[of_seen])), len(np.unique(own[~of_seen])))
    gain = np.where(~of_seen & (best[False] == own), share, 0)  # once the bias has passed its lead
    loss = np.where(of_seen & (best[True] == own), share, 0)
    steps, place = np.unique(lead, return_inverse=True)
    seen = np.concatenate([[loss.sum()], loss.sum() - np.bincount(place, loss, len(steps)).cumsum()])
    unseen = np.concatenate([[0.0], np.bincount(place, gain, len(steps)).cumsum()])
    return float(((seen[:-1] - seen[1:]) * (unseen[:-1] + unseen[1:]) / 2).sum())


def _alone(
    scores: NDArray[np.float64], own: NDArray[np.int64], rows: NDArray[np.bool_], candidates: NDArray[np.bool_]
) -> float:
    if not rows.any():
        return float("nan")
    return class_mean(_best(scores, candidates) == own, own, rows)


def _best(scores: NDArray[np.float64], candidates: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N,) the best of some candidates."""
    return np.asarray(np.where(candidates, scores, -np.inf).argmax(axis=1), np.int64)
