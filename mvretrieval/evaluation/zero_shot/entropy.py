"""Entropy of class probabilities of single views, and view weights from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import ShapeError


def softmax(scores: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Probabilities over the last axis."""
    scaled = scores.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def normalized_entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy of (..., C) probabilities divided by its maximum log C: 0 is certain, 1 is uniform; 0 for a single class."""
    n_classes = probabilities.shape[-1]
    if n_classes < 2:
        return np.zeros(probabilities.shape[:-1])
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    return np.asarray((-(probabilities * logs).sum(axis=-1) / np.log(n_classes)).clip(0, 1))


def entropy_weights(entropy: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weight views (N, V) by 1 - normalized entropy; equally where every view is uniform.

    Args:
        entropy: (N, V) normalized entropy.
        mask: (N, V) True where a view was rendered.

    Returns:
        (N, V): rows sum to 1, 0 where masked.

    Raises:
        ShapeError: an object has no view.
    """
    return normalize_weights(np.where(mask, 1 - entropy, 0), mask)


def lowest_entropy(entropy: NDArray[np.float64], mask: NDArray[np.bool_], n: int) -> NDArray[np.bool_]:
    """Select the n views of each object with the lowest entropy, and those tied with the last of them.

    Args:
        entropy: (N, V) normalized entropy.
        mask: (N, V) True where a view was rendered.
        n: number of views, from 1; 0 selects all.

    Returns:
        (N, V), a subset of the mask.
    """
    if n < 1 or n >= mask.shape[1]:
        return mask
    known = np.where(mask, entropy.round(9), np.inf)
    return np.asarray(mask & (known <= np.sort(known, axis=1)[:, n - 1 : n]))


def normalize_weights(weights: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Scale rows (N, V) to sum 1 inside the mask; equal weights where all are zero.

    Raises:
        ShapeError: shapes disagree, or an object has no view.
    """
    if weights.shape != mask.shape:
        raise ShapeError(f"view weights {weights.shape} and mask {mask.shape} differ in shape")
    if not mask.any(axis=1).all():
        raise ShapeError("an object has no view: every row of the mask needs at least one True", code="no_views")
    kept = np.where(mask, weights, 0).astype(np.float64)
    kept = np.where(kept.sum(axis=1, keepdims=True) > 1e-12, kept, mask)
    return np.asarray(kept / kept.sum(axis=1, keepdims=True))
