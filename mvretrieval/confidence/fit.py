"""Fitting a curve to what questions found: logistic or isotonic, with the question's height or without, as held-out classes say.

A map that is fitted and judged on the same classes flatters itself, since it has seen how far apart just these lie. So classes
are held out in turn, the way with the smallest Brier score on them is taken, and its calibration error there is what is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from mvretrieval.confidence.curve import Curve, expected_calibration_error
from mvretrieval.errors import CalibrationError

FOLDS = 5
FEWEST_PAIRS = 20
_KNOTS = 65  # of a logistic curve: straight lines between so many differ from it by 0.001 at most
# What a way with more freedom has to gain in Brier score.
_WORTH = 0.0005
# Simplest first.
_WAYS = (("logistic", False), ("isotonic", False), ("logistic", True), ("isotonic", True))


@dataclass(frozen=True)
class Asked:
    """What questions found: one row for each pair of a question and a hit.

    Attributes:
        cosines: (n,).
        heights: (n,) of the question (see `curve`).
        same: (n,) whether both are of the same kind.
        groups: (n,) class of the question; whole ones are held out.
        questions: how many there were.
    """

    cosines: NDArray[np.float64]
    heights: NDArray[np.float64]
    same: NDArray[np.bool_]
    groups: NDArray[np.int64]
    questions: int

    def take(self, rows: NDArray[np.bool_]) -> Asked:
        """Some of the pairs."""
        return Asked(self.cosines[rows], self.heights[rows], self.same[rows], self.groups[rows], self.questions)


def check_extra() -> None:
    """Refuse to fit without scikit-learn.

    Raises:
        CalibrationError: with the next step.
    """
    if find_spec("sklearn") is None:
        raise CalibrationError(
            "fitting confidence needs scikit-learn: pip install 'mvretrieval[calibrate]' (searching does not)"
        )


def fit_curve(asked: Asked, seed: int = 0) -> Curve:
    """Fit every way, and take the one that does best on classes that it was not fitted on.

    Args:
        asked: pairs, of both outcomes.
        seed: of the draw of the folds.

    Raises:
        CalibrationError: too few pairs, all of one outcome, or scikit-learn is missing.
    """
    check_extra()
    n, same = len(asked.same), int(asked.same.sum())
    if n < FEWEST_PAIRS or same in (0, n):
        raise CalibrationError(
            f"{n} pairs of a question and a hit, {same} of them of the same kind, are too few to learn from: {FEWEST_PAIRS} with "
            "some of each are needed"
        )
    folds = list(_folds(asked.groups, seed))
    best: tuple[float, Curve] | None = None
    for method, with_height in _WAYS:
        whole = fit_one(asked, method, with_height)
        if whole is None:
            continue
        brier, error = _held_out(asked, folds, method, with_height, whole)
        if best is None or brier < best[0] - _WORTH:
            best = brier, _told(whole, asked, error)
    assert best is not None  # isotonic without height fits anything
    return best[1]


def fit_one(asked: Asked, method: str, with_height: bool) -> Curve | None:
    """One way; None where it cannot be had: one outcome alone, or a probability that falls with the cosine."""
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    if asked.same.all() or not asked.same.any():
        return None
    share = 0.0
    if with_height or method == "logistic":
        columns = np.stack([asked.cosines, asked.heights][: 1 + with_height], axis=1)
        mean, deviation = columns.mean(axis=0), np.maximum(columns.std(axis=0), 1e-9)
        # Of so few numbers nothing can be learnt by heart: as good as unpenalised.
        model = LogisticRegression(C=1000.0).fit((columns - mean) / deviation, asked.same)
        slopes = model.coef_[0] / deviation
        if slopes[0] <= 0:
            return None
        share = float(-slopes[1] / slopes[0]) if with_height else 0.0
        offset = float(model.intercept_[0] - (model.coef_[0] * mean / deviation).sum())
    x = asked.cosines - share * asked.heights
    if method == "logistic":
        knots = np.linspace(x.min(), x.max(), _KNOTS)
        return Curve(
            method, share, tuple(knots.tolist()), tuple((1 / (1 + np.exp(-slopes[0] * knots - offset))).tolist())
        )
    # So many pairs make nobody surer than this.
    least = 1 / (len(x) + 2)
    steps = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(x, asked.same)
    return Curve(method, share, tuple(steps.X_thresholds_.tolist()), tuple(steps.y_thresholds_.tolist()))


def _folds(groups: NDArray[np.int64], seed: int) -> Iterator[NDArray[np.bool_]]:
    """(n,) which pairs are held out, whole groups at a time."""
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    for part in np.array_split(names, min(FOLDS, len(names))):
        yield np.isin(groups, part)


def _held_out(
    asked: Asked, folds: list[NDArray[np.bool_]], method: str, with_height: bool, whole: Curve
) -> tuple[float, float | None]:
    """Brier score and calibration error on held-out groups; on what was fitted itself, and None, where none can be held out."""
    told = np.full(len(asked.same), np.nan)
    for held in folds:
        rest = asked.take(~held)
        if rest.same.all() or not rest.same.any():
            continue
        curve = fit_one(rest, method, with_height)
        # Where a way cannot be had, what would be told without it: all ways are compared on the same pairs.
        told[held] = rest.same.mean() if curve is None else curve(asked.cosines[held], asked.heights[held])
    known = ~np.isnan(told)
    if not known.any():
        return float(((whole(asked.cosines, asked.heights) - asked.same) ** 2).mean()), None
    brier = float(((told[known] - asked.same[known]) ** 2).mean())
    return brier, expected_calibration_error(told[known], asked.same[known])


def _told(curve: Curve, asked: Asked, error: float | None) -> Curve:
    """The same with what it was fitted on."""
    return Curve(
        curve.method, curve.share, curve.knots, curve.confidences, asked.questions, len(asked.same), float(asked.same.mean()),
        len(np.unique(asked.groups)), error,
    )  # fmt: skip
