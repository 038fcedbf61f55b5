"""What single views say about classes, and how they become one answer for their object.

    p_v = softmax(scores of view v / temperature)         over the classes
    H_v = - sum_c p_vc log p_vc                           0: sure of one class; log C: knows nothing

MV-CLIP (Song et al. 2024, arXiv 2311.18402) keeps the views whose H is low; here they may also weigh more,
w_v = 1 - H_v / log C.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mvretrieval.describe import Describer
from mvretrieval.errors import ShapeError
from mvretrieval.normalize import l2_normalize
from mvretrieval.weighting.whitening import whiten_and_normalize

Pooled = Literal["before", "logits", "after"]
"""Where views meet: `before` in one object vector that is compared with the names; `logits`: the mean of each view's scores;
`after`: the mean of each view's softmax."""


def softmax(scores: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Probabilities over the last axis."""
    raised = scores.astype(np.float64) / temperature
    grown = np.exp(raised - raised.max(axis=-1, keepdims=True))
    return np.asarray(grown / grown.sum(axis=-1, keepdims=True))


def entropies(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of (..., C) probabilities, in shares of the largest possible, log C: 0 is sure, 1 knows nothing; 0 of a lone class."""
    n_classes = probabilities.shape[-1]
    if n_classes < 2:
        return np.zeros(probabilities.shape[:-1])
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    return np.asarray((-(probabilities * logs).sum(axis=-1) / np.log(n_classes)).clip(0, 1))


def entropy_weights(entropy: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weights of views (N, V) by what they know; equal where none knows anything.

    Args:
        entropy: (N, V) in shares of the largest.
        mask: (N, V) True where a view was rendered.

    Returns:
        (N, V): rows sum to 1, 0 where masked.

    Raises:
        ShapeError: an object has no view.
    """
    return normalised(np.where(mask, 1 - entropy, 0), mask)


def clearest(entropy: NDArray[np.float64], mask: NDArray[np.bool_], n: int) -> NDArray[np.bool_]:
    """The n views of each object with the lowest entropy, and those that are level with the last of them.

    Args:
        entropy: (N, V).
        mask: (N, V).
        n: from 1; 0 keeps all.

    Returns:
        (N, V), inside the mask.
    """
    if n < 1 or n >= mask.shape[1]:
        return mask
    known = np.where(mask, entropy.round(9), np.inf)
    return np.asarray(mask & (known <= np.sort(known, axis=1)[:, n - 1 : n]))


def normalised(weights: NDArray[np.floating], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Rows (N, V) that sum to 1 inside the mask; equal ones where nothing weighs.

    Raises:
        ShapeError: shapes disagree, or an object has no view.
    """
    if weights.shape != mask.shape:
        raise ShapeError(f"weights {weights.shape} and mask {mask.shape} of views do not belong together")
    if not mask.any(axis=1).all():
        raise ShapeError("an object has no view: every row of the mask needs at least one True")
    kept = np.where(mask, weights, 0).astype(np.float64)
    kept = np.where(kept.sum(axis=1, keepdims=True) > 1e-12, kept, mask)
    return np.asarray(kept / kept.sum(axis=1, keepdims=True))


def pooled_scores(
    scores: NDArray[np.float64], weights: NDArray[np.float64], how: Pooled, temperature: float
) -> NDArray[np.float64]:
    """Scores of objects from those of their views.

    Args:
        scores: (N, V, C).
        weights: (N, V), 0 where masked; a masked view may say anything, NaN too.
        how: `logits` or `after`.
        temperature: of the softmax.

    Returns:
        (N, C), for `after` probabilities; rounded, so that the order of the views does not matter.
    """
    said = np.where((weights > 0)[..., None], scores, 0)
    each = softmax(said, temperature) if how == "after" else said
    return np.asarray(np.einsum("nv,nvc->nc", weights, each).round(9))


def view_vectors(describer: Describer, raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, S, V, D) raw view vectors, each as the vector (B, V, S * K) of an object that is seen from there alone."""
    views = describer.adapted_views(raw)
    b, s, v, k = views.shape
    return np.asarray(views.swapaxes(1, 2).reshape(b, v, s * k) / np.sqrt(s), np.float32)


def weighted_vectors(
    describer: Describer, raw: NDArray[np.float32], weights: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Object vectors with weights of one's own in the place of the describer's.

    What an adapter does behind its weights stays: the weighted mean goes through it as a single view, to which any
    softmax gives weight 1. A weighted mean takes the place of max pooling.

    Args:
        describer: of the collection.
        raw: (B, S, V, D) raw view vectors.
        weights: (B, S, V), 0 where masked.

    Returns:
        (B, S * K) unit norm.
    """
    adapter, whitening = describer.adapter, describer.whitening
    if adapter is not None:
        views = whiten_and_normalize(raw, whitening)
    elif whitening is not None:
        views = np.stack([whitening.apply(raw[:, s], s) for s in range(raw.shape[1])], axis=1)
    else:
        views = raw
    seen = np.where(weights[..., None] > 0, views, 0)
    means = np.einsum("bsv,bsvk->bsk", weights, seen).astype(np.float32)
    if adapter is not None:
        return adapter.pool_whitened(means[:, :, None], np.ones((len(means), 1), bool), None)[0]
    return np.asarray(l2_normalize(means).reshape(len(means), -1) / np.sqrt(raw.shape[1]), np.float32)
