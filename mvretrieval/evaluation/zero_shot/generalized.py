"""Generalized zero-shot classification: seen and unseen classes are candidates together.

Seen classes are predicted too often. Calibrated stacking (Chao et al. 2016, arXiv 1605.04253) subtracts a bias from their
scores; the area under the seen-unseen curve over all biases needs no choice of bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import EvaluationError, ShapeError
from mvretrieval.evaluation.zero_shot.accuracy import predict


@dataclass(frozen=True)
class GeneralizedAccuracy:
    """Class-mean accuracies of seen and unseen classes (Xian et al. 2018, arXiv 1707.00600).

    Attributes:
        seen: objects of seen classes, all candidates; NaN without such objects.
        unseen: objects of unseen classes, all candidates.
        harmonic: harmonic mean of the two.
        seen_alone: objects of seen classes, seen candidates only.
        unseen_alone: objects of unseen classes, unseen candidates only: conventional zero-shot.
        area: area under the seen-unseen curve over all biases.
        bias: subtracted from the scores of seen classes.
        seen_objects: number of objects of seen classes.
        unseen_objects: number of objects of unseen classes.
        seen_classes: number of seen candidates.
        unseen_classes: number of unseen candidates.
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
    """2ab / (a + b); 0 where both are 0, NaN where one is NaN."""
    if np.isnan(a) or np.isnan(b):
        return float("nan")
    return 2 * a * b / (a + b) if a + b > 0 else 0.0


def generalized_accuracy(
    scores: NDArray[np.float64], targets: NDArray[np.int64], is_seen: NDArray[np.bool_], bias: float = 0.0
) -> GeneralizedAccuracy:
    """Evaluate seen and unseen classes together.

    Args:
        scores: (N, C) scores.
        targets: (N,) true candidate of each object.
        is_seen: (C,) True for seen classes.
        bias: subtracted from their scores.

    Raises:
        ShapeError: shapes disagree.
        EvaluationError: the bias is not finite.
    """
    if scores.shape != (len(targets), len(is_seen)):
        raise ShapeError(f"scores have shape {scores.shape}, expected ({len(targets)} objects, {len(is_seen)} classes)")
    if not np.isfinite(bias):
        raise EvaluationError(f"the bias of seen classes must be finite, got {bias}", code="bad_options")
    correct = predict((scores - bias * is_seen).round(9), targets).rank == 0
    of_seen = is_seen[targets]
    seen, unseen = class_mean(correct, targets, of_seen), class_mean(correct, targets, ~of_seen)
    return GeneralizedAccuracy(
        seen=seen,
        unseen=unseen,
        harmonic=harmonic_mean(seen, unseen),
        seen_alone=_restricted(scores, targets, of_seen, is_seen),
        unseen_alone=_restricted(scores, targets, ~of_seen, ~is_seen),
        area=seen_unseen_area(scores, targets, is_seen),
        bias=bias,
        seen_objects=int(of_seen.sum()),
        unseen_objects=int((~of_seen).sum()),
        seen_classes=int(is_seen.sum()),
        unseen_classes=int((~is_seen).sum()),
    )


def class_mean(correct: NDArray[np.bool_], targets: NDArray[np.int64], rows: NDArray[np.bool_]) -> float:
    """Mean over classes of the fraction of correct objects among `rows`; NaN without rows."""
    if not rows.any():
        return float("nan")
    counts = np.bincount(targets[rows])
    hits = np.bincount(targets[rows], weights=correct[rows])
    return float((hits[counts > 0] / counts[counts > 0]).mean())


def seen_unseen_area(scores: NDArray[np.float64], targets: NDArray[np.int64], is_seen: NDArray[np.bool_]) -> float:
    """Area under the (seen, unseen) accuracy curve for biases from -inf to inf; NaN unless both kinds have objects.

    An object is assigned to its best seen candidate while the bias is below its margin over the best unseen one.
    """
    of_seen = is_seen[targets]
    if not of_seen.any() or of_seen.all():
        return float("nan")
    best_seen, best_unseen = _best(scores, is_seen), _best(scores, ~is_seen)
    rows = np.arange(len(targets))
    margin = (scores[rows, best_seen] - scores[rows, best_unseen]).round(9)
    share = 1 / np.bincount(targets, minlength=len(is_seen))[targets]  # of the object in its class ...
    share /= np.where(of_seen, len(np.unique(targets[of_seen])), len(np.unique(targets[~of_seen])))  # ... and kind
    gain = np.where(~of_seen & (best_unseen == targets), share, 0)  # once the bias exceeds the margin
    loss = np.where(of_seen & (best_seen == targets), share, 0)
    steps, step = np.unique(margin, return_inverse=True)
    seen = np.concatenate([[loss.sum()], loss.sum() - np.bincount(step, loss, len(steps)).cumsum()])
    unseen = np.concatenate([[0.0], np.bincount(step, gain, len(steps)).cumsum()])
    return float(((seen[:-1] - seen[1:]) * (unseen[:-1] + unseen[1:]) / 2).sum())


def _restricted(
    scores: NDArray[np.float64], targets: NDArray[np.int64], rows: NDArray[np.bool_], candidates: NDArray[np.bool_]
) -> float:
    """Class-mean accuracy of some rows among some candidates."""
    if not rows.any():
        return float("nan")
    return class_mean(_best(scores, candidates) == targets, targets, rows)


def _best(scores: NDArray[np.float64], candidates: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(N,) best of some candidates."""
    return np.asarray(np.where(candidates, scores, -np.inf).argmax(axis=1), np.int64)
