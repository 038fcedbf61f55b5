"""Fit a calibration curve: logistic or isotonic, with or without the cohort mean, selected by cross-validation.

A curve that is fitted and evaluated on the same classes looks too good, since it has seen their distances. So whole classes are
held out in turn. The candidate with the lowest Brier score on held-out classes is selected, and its calibration error there
is reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from mvretrieval.confidence.curve import Curve, expected_calibration_error
from mvretrieval.errors import CalibrationError

FOLDS = 5
MIN_PAIRS = 20
_KNOTS = 65  # of a logistic curve: linear interpolation differs from it by 0.001 at most
# A candidate with more parameters must improve the Brier score by this.
_MIN_GAIN = 0.0005
# (method, with cohort mean), simplest first.
_CANDIDATES = (("logistic", False), ("isotonic", False), ("logistic", True), ("isotonic", True))


@dataclass(frozen=True)
class CalibrationPairs:
    """Pairs of a calibration query and one of its hits.

    Attributes:
        cosines: (n,).
        cohort_means: (n,) of the query (see `curve`).
        same: (n,) whether query and hit belong to the same class.
        groups: (n,) class of the query; cross-validation holds out whole classes.
        queries: number of queries.
    """

    cosines: NDArray[np.float64]
    cohort_means: NDArray[np.float64]
    same: NDArray[np.bool_]
    groups: NDArray[np.int64]
    queries: int

    def take(self, rows: NDArray[np.bool_]) -> CalibrationPairs:
        """The pairs in a mask (n,)."""
        return CalibrationPairs(
            self.cosines[rows], self.cohort_means[rows], self.same[rows], self.groups[rows], self.queries
        )

    @property
    def has_both_outcomes(self) -> bool:
        """Whether some pairs are of the same class and some are not."""
        return bool(self.same.any() and not self.same.all())


def check_extra() -> None:
    """Check that scikit-learn is installed.

    Raises:
        CalibrationError: it is not (`needs_extra`).
    """
    if find_spec("sklearn") is None:
        raise CalibrationError(
            "calibration needs scikit-learn: pip install 'mvretrieval[calibrate]' (search does not need it)",
            code="needs_extra",
        )


def fit_curve(pairs: CalibrationPairs, seed: int = 0) -> Curve:
    """Fit every candidate and select the best one on held-out classes.

    Args:
        pairs: with both outcomes.
        seed: of the folds.

    Raises:
        CalibrationError: too few pairs (`too_few_pairs`), a single outcome (`one_outcome`), or no scikit-learn (`needs_extra`).
    """
    check_extra()
    n, same = len(pairs.same), int(pairs.same.sum())
    if n < MIN_PAIRS:
        raise CalibrationError(
            f"{n} pairs of a query and a hit are too few: {MIN_PAIRS} are needed", code="too_few_pairs"
        )
    if not pairs.has_both_outcomes:
        raise CalibrationError(
            f"{'all' if same else 'none'} of the {n} pairs of a query and one of its first hits are of the same class, so there is "
            "nothing to calibrate: label objects of more classes, or do without confidence ('mvr calibrate COLLECTION --remove' "
            "removes an earlier calibration)",
            code="one_outcome",
        )
    folds = list(_folds(pairs.groups, seed))
    best: tuple[float, Curve] | None = None
    for method, with_cohort in _CANDIDATES:
        curve = fit_candidate(pairs, method, with_cohort)
        if curve is None:
            continue
        brier, error = _cross_validate(pairs, folds, method, with_cohort, curve)
        if best is None or brier < best[0] - _MIN_GAIN:
            best = (
                brier,
                replace(
                    curve,
                    queries=pairs.queries,
                    pairs=n,
                    same=float(pairs.same.mean()),
                    groups=len(np.unique(pairs.groups)),
                    error=error,
                ),
            )
    assert best is not None  # isotonic without cohort always fits
    return best[1]


def fit_candidate(pairs: CalibrationPairs, method: str, with_cohort: bool) -> Curve | None:
    """Fit one candidate; None for a single outcome, or where the logistic slope is not positive."""
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    if not pairs.has_both_outcomes:
        return None
    cohort_weight = 0.0
    if with_cohort or method == "logistic":
        columns = np.stack([pairs.cosines, pairs.cohort_means][: 1 + with_cohort], axis=1)
        mean, deviation = columns.mean(axis=0), np.maximum(columns.std(axis=0), 1e-9)
        # Two or three parameters cannot overfit: almost no regularization.
        model = LogisticRegression(C=1000.0).fit((columns - mean) / deviation, pairs.same)
        slopes = model.coef_[0] / deviation
        if slopes[0] <= 0:
            return None
        cohort_weight = float(-slopes[1] / slopes[0]) if with_cohort else 0.0
        offset = float(model.intercept_[0] - (model.coef_[0] * mean / deviation).sum())
    x = pairs.cosines - cohort_weight * pairs.cohort_means
    if method == "logistic":
        knots = np.linspace(x.min(), x.max(), _KNOTS)
        probabilities = 1 / (1 + np.exp(-slopes[0] * knots - offset))
        return Curve(method, cohort_weight, tuple(knots.tolist()), tuple(probabilities.tolist()))
    # So many pairs do not justify a probability nearer to 0 or 1.
    least = 1 / (len(x) + 2)
    steps = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(x, pairs.same)
    return Curve(method, cohort_weight, tuple(steps.X_thresholds_.tolist()), tuple(steps.y_thresholds_.tolist()))


def _folds(groups: NDArray[np.int64], seed: int) -> Iterator[NDArray[np.bool_]]:
    """Masks (n,) of held-out pairs; classes are not divided."""
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    for part in np.array_split(names, min(FOLDS, len(names))):
        yield np.isin(groups, part)


def _cross_validate(
    pairs: CalibrationPairs, folds: list[NDArray[np.bool_]], method: str, with_cohort: bool, curve: Curve
) -> tuple[float, float | None]:
    """Brier score and calibration error on held-out classes.

    If no class can be held out, the Brier score of `curve` on all pairs, and None.
    """
    predicted = np.full(len(pairs.same), np.nan)
    for held_out in folds:
        rest = pairs.take(~held_out)
        if not rest.has_both_outcomes:
            continue
        fold = fit_candidate(rest, method, with_cohort)
        # Where a candidate cannot be fitted, predict the base rate: all candidates are compared on the same pairs.
        predicted[held_out] = (
            rest.same.mean() if fold is None else fold(pairs.cosines[held_out], pairs.cohort_means[held_out])
        )
    known = ~np.isnan(predicted)
    if not known.any():
        return float(((curve(pairs.cosines, pairs.cohort_means) - pairs.same) ** 2).mean()), None
    brier = float(((predicted[known] - pairs.same[known]) ** 2).mean())
    return brier, expected_calibration_error(predicted[known], pairs.same[known])
