"""Re-ranking of a whole batch: every query profits from the others and from the gallery.

A search does not know tomorrow's queries, so this is for evaluation only, and its numbers stand in tables of their own. Both
methods take and give scores of all objects by all, and hold a few matrices of that size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import EvaluationError, ShapeError

Matrix = NDArray[np.floating[Any]]
Method = Literal["k-reciprocal", "propagation"]
MOST = 20_000  # objects: a matrix in single precision is 1.6 GB


def transductive(method: Method, similarity: Matrix) -> Matrix:
    """Scores (N, N) of a method with its defaults.

    Args:
        method: by name.
        similarity: (N, N) cosines of all objects, queries and gallery alike.

    Raises:
        EvaluationError: there are too many objects.
        ShapeError: the matrix is not square.
    """
    methods: dict[Method, Callable[[Matrix], Matrix]] = {"k-reciprocal": k_reciprocal, "propagation": propagation}
    return methods[method](similarity)


def k_reciprocal(similarity: Matrix, k1: int = 20, k2: int = 6, weight: float = 0.3) -> Matrix:
    """Score objects by the neighbours they share.

    Zhong, Zheng, Cao and Li, "Re-ranking person re-identification with k-reciprocal encoding", CVPR 2017; the defaults are
    theirs. With N(p, k) the k nearest of p and p itself, and d = 1 - cosine:

        R(p, k)   = {g in N(p, k): p in N(g, k)}
        R*(p)     = R(p, k1), and each R(q, k1 / 2), q in R(p, k1), of which two thirds or more are in R(p, k1)
        V(p, g)   = exp(-d(p, g)) if g in R*(p), else 0; then V(p) = mean of V over p and its k2 - 1 nearest
        d_J(p, g) = 1 - sum_i min(V(p, i), V(g, i)) / sum_i max(V(p, i), V(g, i))

    Args:
        similarity: (N, N) cosines, symmetric.
        k1: neighbours that are looked at.
        k2: objects over which encodings are averaged.
        weight: of the original distance beside d_J.

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
    """Propagate similarity along the queries and along the gallery in turn, over the graph of nearest neighbours.

    Regularised diffusion: Bai, Bai, Tian and Latecki, "Regularized diffusion process for visual retrieval", AAAI 2017. Its
    step, taken as two:

        B = S A                                 what those like you are like
        A = alpha B S^T + (1 - alpha) I         and those like them

    S = D^-1/2 W D^-1/2, D the row sums of W. W(i, j) = max(cosine, 0)^3 where each is among the k nearest of the other, 1 on
    the diagonal, else 0 (the exponent as in Iscen et al., "Efficient diffusion on region manifolds", CVPR 2017). No eigenvalue
    of S exceeds 1, so the steps converge, and since S is symmetric, to (1 - alpha) (I - alpha S^2)^-1: one inversion.

    Args:
        similarity: (N, N) cosines, symmetric.
        k: neighbours in the graph. Edges one way, and k of 10 or 20, did worse on the object features of OS-ESB-core.
        alpha: share of what is propagated, below 1.

    Returns:
        (N, N). Objects that no path joins are ranked below all others, by their cosine.

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
    # What is smaller than this is rounding.
    return np.asarray(np.where(scores > 1e-12, scores, similarity - 2))


def _check(similarity: Matrix) -> int:
    n = len(similarity)
    if similarity.shape != (n, n):
        raise ShapeError(
            f"similarity of all objects by all has shape {similarity.shape}; rows and columns have to be the same"
        )
    check_count(n)
    return n


def check_count(n: int) -> None:
    """Make sure that re-ranking so many objects is within reach, before their similarities are computed.

    Raises:
        EvaluationError: it is not.
    """
    if n > MOST:
        raise EvaluationError(
            f"{n} objects are too many for transductive re-ranking, which holds matrices of all by all (at most {MOST}): "
            "evaluate fewer with --where or --classes"
        )


def _nearest_first(similarity: Matrix) -> NDArray[np.int64]:
    """(N, N) order of all objects by similarity to each, itself first."""
    own = similarity.copy()
    np.fill_diagonal(own, np.inf)  # an object with the same vector may not come before it
    return np.argsort(-own, axis=1, kind="stable")


def _mutual(order: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """(N, N) where each of two objects is among the other's k nearest. An object is with itself."""
    near = np.zeros(order.shape, np.bool_)
    np.put_along_axis(near, order[:, : k + 1], True, axis=1)
    return near & near.T
