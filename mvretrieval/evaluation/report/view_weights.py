"""What each view of a rig weighs when objects are pooled, over the objects of a collection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mvretrieval.api import Collection

# Views are large (30 kB an object and style at 12 x 1280); the mean of 1,000 objects is as good as that of all.
LIMIT = 1000
_BATCH = 128


@dataclass(frozen=True)
class ViewWeights:
    """Weights of the views over the objects in which they can be seen; 1 is a fair share, 1/V of an object with V views.

    Attributes:
        mean: (S, V).
        lower: (S, V) tenth percentile.
        upper: (S, V) ninetieth percentile.
        uniform: every view of every object has its fair share.
        n: objects measured.
    """

    mean: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    uniform: bool
    n: int


def measure(collection: Collection, row_ids: NDArray[np.int64]) -> ViewWeights | None:
    """Pool at most `LIMIT` evenly picked objects again and look at what their views weigh; None without objects."""
    picked = (
        row_ids[np.linspace(0, len(row_ids) - 1, min(LIMIT, len(row_ids))).astype(np.int64)]
        if len(row_ids)
        else row_ids
    )
    parts = []
    for start in range(0, len(picked), _BATCH):
        views, masks = zip(*(collection.views(int(n)) for n in picked[start : start + _BATCH]), strict=True)
        mask = np.stack(masks)
        _, weights = collection.describer.pool(np.stack(views), mask)
        # A masked view is absent, not light.
        shares = weights * mask.sum(axis=1)[:, None, None]
        parts.append(np.where(mask[:, None], shares, np.nan))
    if not parts:
        return None
    shares = np.concatenate(parts).astype(float)
    seen = np.isfinite(shares).any(axis=0)
    # Views that no object shows weigh nothing; nanmean would warn.
    filled = np.where(seen, shares, 0.0)
    lower, upper = np.nanquantile(filled, [0.1, 0.9], axis=0)
    uniform = bool(np.nanmax(np.abs(shares - 1)) < 1e-3)
    return ViewWeights(np.nanmean(filled, axis=0), lower, upper, uniform, len(picked))
