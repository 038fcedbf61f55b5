"""A calibration curve: from a hit's cosine to a probability, piecewise linear between knots.

Cosines of different queries are not comparable: some queries are close to many objects. Each cosine is therefore normalized
by the query's cohort mean, the mean cosine of the sqrt(N) objects nearest to the query among the N of the collection:

    x = cosine - cohort_weight * cohort_mean

This is adaptive score normalization (AS-norm) of speaker verification (Matějka et al. 2017), where the cohort consists of other
speakers. The weight is fitted with the curve; it is 0 where the cohort does not help.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE_DIGITS = 4
"""Decimals of a confidence in outputs. Thresholds compare at this precision: the confidence of a hit, as shown, includes it."""

# Reached at a million objects. A larger cohort would cost more time than the search itself.
_MAX_COHORT = 1000
# Key in collections of format version 1 -> key now.
_OLD_KEYS = {"share": "cohort_weight", "questions": "queries"}


@dataclass(frozen=True)
class Curve:
    """Confidence of the hits of queries of one modality.

    Attributes:
        method: of the fit, `logistic` or `isotonic`.
        cohort_weight: factor of the cohort mean that is subtracted from a cosine.
        knots: values of x in ascending order (see the module).
        confidences: probability at each knot, monotonic; constant beyond the first and the last knot.
        queries: number of queries that it was fitted on.
        pairs: number of pairs of a query and a hit.
        same: fraction of the pairs whose hit belongs to the query's class.
        groups: number of classes of the queries.
        error: expected calibration error in cross-validation over held-out classes; None if there are too few.
    """

    method: str
    cohort_weight: float
    knots: tuple[float, ...]
    confidences: tuple[float, ...]
    queries: int = 0
    pairs: int = 0
    same: float = 0.0
    groups: int = 0
    error: float | None = None

    def __call__(
        self, cosines: NDArray[np.floating], cohort_means: NDArray[np.floating] | float
    ) -> NDArray[np.float64]:
        """Compute probabilities (...).

        Args:
            cosines: (...) of hits with their queries.
            cohort_means: of the queries, broadcast against `cosines`.
        """
        x = np.asarray(cosines, np.float64) - self.cohort_weight * np.asarray(cohort_means, np.float64)
        return np.asarray(np.interp(x, self.knots, self.confidences), np.float64)

    def to_json(self) -> dict[str, Any]:
        """Convert to plain numbers and lists."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Curve:
        """Inverse of `to_json`; also reads the keys of format version 1."""
        renamed = {_OLD_KEYS.get(key, key): value for key, value in values.items()}
        return cls(**renamed | {name: tuple(renamed[name]) for name in ("knots", "confidences")})


def cohort_size(n_objects: int) -> int:
    """Number of nearest objects that form a query's cohort, in a collection of `n_objects`."""
    return min(max(round(math.sqrt(n_objects)), 1), _MAX_COHORT)


def expected_calibration_error(confidences: NDArray[np.floating], same: NDArray[np.bool_], n_bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599).

    The mean, over bins of equal width and weighted by their size, of |mean confidence - fraction of true outcomes|.

    Args:
        confidences: (n,) predicted probabilities.
        same: (n,) outcomes.
        n_bins: number of bins.
    """
    predicted = np.asarray(confidences, np.float64)
    bins = np.minimum((predicted * n_bins).astype(np.int64), n_bins - 1)
    gap = np.bincount(bins, predicted - same, minlength=n_bins)
    return float(np.abs(gap).sum() / max(len(bins), 1))
