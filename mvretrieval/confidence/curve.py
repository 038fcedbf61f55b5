"""From a hit's cosine to a probability: straight lines between knots, which need no library to be read.

A cosine alone says little: some questions are near to everything. So the cosine is first compared with the question's own
height, the mean cosine of the sqrt(N) objects that lie nearest to it among the N of the collection:

    x = cosine - share * height

In speech verification the same is done with a cohort of other speakers (adaptive score normalisation, Matějka et al. 2017).
The share is fitted with the rest, and 0 where height does not help.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# At a million objects, sqrt(N). More of them would make a question slower than its answers.
_FARTHEST = 1000


@dataclass(frozen=True)
class Curve:
    """Confidence of the hits of one kind of question.

    Attributes:
        method: `logistic` or `isotonic`: what the knots were read from.
        share: of the question's height that is taken away from a cosine.
        knots: ascending values of x (see the module).
        confidences: probability at each of them, never falling; beyond the first and the last it stays what it is there.
        questions: that were asked to fit it.
        pairs: of a question and a hit.
        same: share of the pairs that are of the same kind.
        groups: classes of the questions.
        error: expected calibration error on classes that were held out of the fit, in turn; None where they were too few.
    """

    method: str
    share: float
    knots: tuple[float, ...]
    confidences: tuple[float, ...]
    questions: int = 0
    pairs: int = 0
    same: float = 0.0
    groups: int = 0
    error: float | None = None

    def __call__(self, cosines: NDArray[np.floating], heights: NDArray[np.floating] | float) -> NDArray[np.float64]:
        """Probabilities (...) of cosines (...) of questions with these heights (...)."""
        x = np.asarray(cosines, np.float64) - self.share * np.asarray(heights, np.float64)
        return np.asarray(np.interp(x, self.knots, self.confidences), np.float64)

    def to_json(self) -> dict[str, Any]:
        """With plain numbers and lists."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Curve:
        """Back from `to_json`."""
        return cls(**values | {name: tuple(values[name]) for name in ("knots", "confidences")})


def cohort_size(n_objects: int) -> int:
    """How many nearest objects make a question's height."""
    return min(max(round(math.sqrt(n_objects)), 1), _FARTHEST)


def expected_calibration_error(confidences: NDArray[np.floating], same: NDArray[np.bool_], n_bins: int = 15) -> float:
    """How far stated probabilities (n,) are from what happened (n,).

    The mean over bins of equal width of the distance between mean confidence and share of the same kind, each bin counting by
    its members (Guo et al. 2017, arXiv 1706.04599).
    """
    told = np.asarray(confidences, np.float64)
    bins = np.minimum((told * n_bins).astype(np.int64), n_bins - 1)
    gap = np.bincount(bins, told - same, minlength=n_bins)
    return float(np.abs(gap).sum() / max(len(bins), 1))
