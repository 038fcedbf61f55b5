"""Statistics of the view weights over the objects of a collection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvretrieval.session.session import Session

# View vectors are large (30 kB per object and style at 12 x 1280); 1,000 objects are enough for a mean.
LIMIT = 1000
_BATCH = 128


@dataclass(frozen=True)
class ViewWeights:
    """Weights of the views over the objects that have them, in multiples of the uniform weight 1/V of an object with V views.

    Attributes:
        mean: (S, V) mean.
        lower: (S, V) 10th percentile.
        upper: (S, V) 90th percentile.
        uniform: whether all views of all objects have the uniform weight.
        n: number of objects measured.
    """

    mean: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    uniform: bool
    n: int


def measure_view_weights(session: Session, row_ids: NDArray[np.int64]) -> ViewWeights | None:
    """Pool at most `LIMIT` evenly sampled objects and measure their view weights; None without objects."""
    picked = (
        row_ids[np.linspace(0, len(row_ids) - 1, min(LIMIT, len(row_ids))).astype(np.int64)]
        if len(row_ids)
        else row_ids
    )
    parts = []
    for start in range(0, len(picked), _BATCH):
        views, masks = zip(*(session.views(int(n)) for n in picked[start : start + _BATCH]), strict=True)
        mask = np.stack(masks)
        _, weights = session.describer.pool(np.stack(views), mask)
        # A masked view is missing, its weight is not 0.
        shares = weights * mask.sum(axis=1)[:, None, None]
        parts.append(np.where(mask[:, None], shares, np.nan))
    if not parts:
        return None
    shares = np.concatenate(parts).astype(float)
    seen = np.isfinite(shares).any(axis=0)
    # Views without any object get weight 0; nanmean would warn.
    filled = np.where(seen, shares, 0.0)
    lower, upper = np.nanquantile(filled, [0.1, 0.9], axis=0)
    uniform = bool(np.nanmax(np.abs(shares - 1)) < 1e-3)
    return ViewWeights(np.nanmean(filled, axis=0), lower, upper, uniform, len(picked))
