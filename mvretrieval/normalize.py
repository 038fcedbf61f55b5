"""L2 normalization."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Float = TypeVar("_Float", bound=np.floating)


def l2_normalize(vectors: NDArray[_Float]) -> NDArray[_Float]:
    """Scale vectors (..., D) to unit norm, in their own dtype; a zero vector stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: NDArray[_Float] = vectors / np.maximum(norms, 1e-12)
    return scaled
