"""Transductive re-ranking of a whole batch: the scores of a query depend on the other queries and on the gallery.

A search does not have future queries, so this is for evaluation only, and its results have their own table. Both methods
take and return an (N, N) score matrix and need memory for a few of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import EvaluationError, ShapeError

Matrix = NDArray[np.floating[Any]]
Method = Literal["k-reciprocal", "propagation"]
MAX_OBJECTS = 20_000  # a matrix in single precision is 1.6 GB


def transductive(method: Method, similarity: Matrix) -> Matrix:
    """Compute the scores (N, N) of a method with its defaults.

    Args:
        method: name of the method.
        similarity: (N, N) cosines of all objects, queries and gallery.

    Raises:
        EvaluationError: there are too many objects.
        ShapeError: the matrix is not square.
    """
    methods: dict[Method, Callable[[Matrix], Matrix]] = {"k-reciprocal": k_reciprocal, "propagation": propagation}
    return methods[method](similarity)


def k_reciprocal(similarity: Matrix, k1: int = 20, k2: int = 6, weight: float = 0.3) -> Matrix:
    """Score objects by shared neighbours.

    Zhong, Zheng, Cao and Li, "Re-ranking person re-identification with k-reciprocal encoding", CVPR 2017; the defaults are
    theirs. With N(p, k) the k nearest neighbours of p and p itself, and d = 1 - cosine:

        R(p, k)   = {g in N(p, k): p in N(g, k)}
        R*(p)     = R(p, k1), and each R(q, k1 / 2), q in R(p, k1), of which two thirds or more are in R(p, k1)
        V(p, g)   = exp(-d(p, g)) if g in R*(p), else 0; then V(p) = mean of V over p and its k2 - 1 nearest
        d_J(p, g) = 1 - sum_i min(V(p, i), V(g, i)) / sum_i max(V(p, i), V(g, i))

    Args:
        similarity: (N, N) cosines, symmetric.
        k1: size of the k-reciprocal neighbourhood.
        k2: number of objects over which encodings are averaged.
        weight: weight of the original distance; d_J has the rest.

    Returns:
        (N, N): -((1 - weight) d_J + weight d).

    Raises:
        EvaluationError: there are too many objects.
        ShapeError: the matrix is not square.
    """
    n = _check(similarity)
    order = _nearest_first(similarity)
    wide, narrow = _mutual(order, k1), _mutual(order, round(k1 / 2))
    sparse = np.zeros((n, n), np.float32)
    for p in range(n):
        members = wide[p].copy()
        for q in np.flatnonzero(wide[p]):
            if 3 * (narrow[q] & wide[p]).sum() >= 2 * narrow[q].sum():
                members |= narrow[q]
        sparse[p, members] = np.exp(similarity[p, members] - 1)
    encoding = np.empty_like(sparse)
    for p in range(n):
        encoding[p] = sparse[order[p, :k2]].mean(axis=0)
    columns = np.ascontiguousarray(encoding.T)
    sums = encoding.sum(axis=1)
    scores = np.empty_like(sparse)
    for p in range(n):
        shared = np.flatnonzero(encoding[p])  # the minimum is zero elsewhere
        smaller = np.minimum(columns[shared], encoding[p, shared, None]).sum(axis=0)
        jaccard = 1 - smaller / (sums[p] + sums - smaller)
        scores[p] = -((1 - weight) * jaccard + weight * (1 - similarity[p]))
    return scores


def propagation(similarity: Matrix, k: int = 5, alpha: float = 0.9) -> Matrix:
    """Propagate similarity along queries and gallery in turn, over the graph of nearest neighbours.

    Regularized diffusion: Bai, Bai, Tian and Latecki, "Regularized diffusion process for visual retrieval", AAAI 2017. One
    iteration in two steps:

        B = S A                                 propagate along rows
        A = alpha B S^T + (1 - alpha) I         propagate along columns, restart

    S = D^-1/2 W D^-1/2, D the row sums of W. W(i, j) = max(cosine, 0)^3 for mutual k nearest neighbours, 1 on the diagonal,
    else 0 (the exponent as in Iscen et al., "Efficient diffusion on region manifolds", CVPR 2017). No eigenvalue of S exceeds
    1, so the iteration converges; since S is symmetric, the limit is (1 - alpha) (I - alpha S^2)^-1: one inversion.

    Args:
        similarity: (N, N) cosines, symmetric.
        k: neighbours in the graph. One-way edges, and k of 10 or 20, were worse on the object features of OS-ESB-core.
        alpha: weight of the propagation, below 1.

    Returns:
        (N, N) scores. Objects without a connecting path rank below all others, by their cosine.

    Raises:
        EvaluationError: there are too many objects.
        ShapeError: the matrix is not square.
    """
    n = _check(similarity)
    joined = _mutual(_nearest_first(similarity), k)
    weights = np.where(joined, np.maximum(similarity, 0.0), 0.0).astype(np.float64) ** 3
    np.fill_diagonal(weights, 1.0)
    root = np.sqrt(weights.sum(axis=1))
    step = weights / root / root[:, None]
    scores = (1 - alpha) * np.linalg.inv(np.eye(n) - alpha * (step @ step))
    # Smaller values are rounding errors.
    return np.asarray(np.where(scores > 1e-12, scores, similarity - 2))


def _check(similarity: Matrix) -> int:
    n = len(similarity)
    if similarity.shape != (n, n):
        raise ShapeError(f"the similarity matrix has shape {similarity.shape}; it must be square")
    check_count(n)
    return n


def check_count(n: int) -> None:
    """Refuse too many objects before their similarities are computed.

    Raises:
        EvaluationError: there are more than `MAX_OBJECTS`.
    """
    if n > MAX_OBJECTS:
        raise EvaluationError(
            f"{n} objects are too many for transductive re-ranking, which needs N x N matrices (at most {MAX_OBJECTS}): "
            "evaluate fewer with --where or --classes",
            code="too_many_objects",
        )


def _nearest_first(similarity: Matrix) -> NDArray[np.int64]:
    """(N, N) ranking of all objects for each object, itself first."""
    own = similarity.copy()
    np.fill_diagonal(own, np.inf)  # an object with an equal vector must not come first
    return np.argsort(-own, axis=1, kind="stable")


def _mutual(order: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """(N, N) True for mutual k nearest neighbours, and on the diagonal."""
    near = np.zeros(order.shape, np.bool_)
    np.put_along_axis(near, order[:, : k + 1], True, axis=1)
    return near & near.T
