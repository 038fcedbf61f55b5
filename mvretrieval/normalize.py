"""Vectors of length 1: a cosine is then a dot product."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Float = TypeVar("_Float", bound=np.floating)


def l2_normalize(vectors: NDArray[_Float]) -> NDArray[_Float]:
    """Vectors (..., D) at length 1, in the type that they have; a vector of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: NDArray[_Float] = vectors / np.maximum(lengths, 1e-12)
    return scaled
