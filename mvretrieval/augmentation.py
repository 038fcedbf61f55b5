"""Database-side augmentation (DBA) and alpha query expansion, on arrays alone.

A vector is one sample of the appearance of its class; its neighbours are others. Turcot and Lowe 2009 average the vectors of a
database with their neighbours (database-side augmentation), Chum et al. 2007 a query with its hits (query expansion),
Radenović et al. 2018 weigh each neighbour by a power of its cosine:

    y = normalise(x + sum over the k nearest n of w(x . n) n),   w(c) = c ** alpha where c > 0, else 0

No weight is negative, and no neighbour with a weight has a negative cosine with x, so the sum is never zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import ShapeError
from mvretrieval.normalize import l2_normalize

# Chosen on PSB's train split: near the best for raw and for whitened vectors (benchmarks/NOTES.md).
ALPHA = 3.0
_BLOCK = 1024
# Vectors that are gathered in one block to be summed; 64 Ki of 512 dimensions take 128 MiB.
_GATHERED = 1 << 16


def augment_database(vectors: NDArray[np.float32], k: int, alpha: float = ALPHA) -> NDArray[np.float32]:
    """Average each vector with its k nearest neighbours among the others.

    Args:
        vectors: (N, D), unit norm.
        k: neighbours; 0 changes nothing.
        alpha: power of the cosine that weighs them.

    Returns:
        (N, D), unit norm. Neighbours are those of the given vectors; ties are broken by position.

    Raises:
        ShapeError: k is negative.
    """
    k = min(_checked(k), max(len(vectors) - 1, 0))
    if k == 0:
        return np.array(vectors, np.float32)
    nearest, cosines = _neighbours(vectors, vectors, k, own=True)
    return l2_normalize(_sums(vectors, vectors, nearest, _weights(cosines, alpha)))


def expand_queries(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], k: int, alpha: float = ALPHA
) -> NDArray[np.float32]:
    """Average each query with its k nearest gallery vectors. Queries do not influence one another.

    Args:
        queries: (Q, D), unit norm; a query that is in the gallery is its own nearest neighbour, and so counts twice.
        gallery: (N, D), unit norm, augmented or not.
        k: neighbours; 0 changes nothing.
        alpha: power of the cosine that weighs them.

    Returns:
        (Q, D), unit norm.

    Raises:
        ShapeError: k is negative.
    """
    k = min(_checked(k), len(gallery))
    if k == 0:
        return np.array(queries, np.float32)
    nearest, cosines = _neighbours(queries, gallery, k, own=False)
    return l2_normalize(_sums(queries, gallery, nearest, _weights(cosines, alpha)))


def average_neighbours(
    vector: NDArray[np.float32], neighbours: NDArray[np.float32], alpha: float = ALPHA
) -> NDArray[np.float32]:
    """Average one vector (D,) with its neighbours (k, D); unit norm."""
    return l2_normalize(vector + _weights(neighbours @ vector, alpha) @ neighbours)


def scores_without_query(
    vectors: NDArray[np.float32],
    k: int,
    alpha: float = ALPHA,
    expand_k: int = 0,
    expand_alpha: float = ALPHA,
    queries: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Leave-one-out scores without leakage: each query searches a gallery that was augmented without it.

    `augment_database(vectors, k) @ vectors[q]` leaks: vectors with q among their neighbours contain q, which raises their cosine.
    Here they have their next neighbour instead of q.

    Args:
        vectors: (N, D), unit norm, not augmented.
        k: neighbours of the augmentation; 0 for none.
        alpha: power of the cosine that weighs them.
        expand_k: neighbours for query expansion, from the gallery without the query; 0 for none.
        expand_alpha: power of their cosines.
        queries: (Q,) positions of the queries; all by default. All other vectors stay in the gallery.

    Returns:
        (Q, N) cosines; -inf for a query with itself.

    Raises:
        ShapeError: k or expand_k is negative.
    """
    n = len(vectors)
    positions = np.arange(n) if queries is None else np.asarray(queries, np.int64)
    expand_k = min(_checked(expand_k), max(n - 1, 0))
    gallery = _GalleryWithoutQuery(vectors, _checked(k), alpha)
    scores = np.empty((len(positions), n), np.float32)
    for start in range(0, len(positions), _BLOCK):
        some, out = positions[start : start + _BLOCK], scores[start : start + _BLOCK]
        out[:] = gallery.scores(some, vectors[some])
        if expand_k:
            found = _top(out, expand_k)
            expanded = [
                average_neighbours(vectors[q], gallery.vectors(q, near), expand_alpha)
                for q, near in zip(some, found, strict=True)
            ]
            out[:] = gallery.scores(some, np.stack(expanded))
    return scores


class _GalleryWithoutQuery:
    """Augmented vectors, each as if one given vector were missing: only vectors with it as a neighbour differ."""

    def __init__(self, vectors: NDArray[np.float32], k: int, alpha: float) -> None:
        others = max(len(vectors) - 1, 0)
        self._given = vectors
        self._k = min(k, others)
        # One more, to replace the missing one.
        self._nearest, cosines = _neighbours(vectors, vectors, min(k + 1, others), own=True)
        self._weights = _weights(cosines, alpha)
        self._sums = _sums(vectors, vectors, self._nearest[:, : self._k], self._weights[:, : self._k])
        self._augmented = l2_normalize(self._sums)
        # Positions (row * k + rank) in the table of neighbours, sorted by neighbour: those of q begin at `_first[q]`.
        held = self._nearest[:, : self._k].ravel()
        self._slots = np.argsort(held, kind="stable")
        self._first = np.searchsorted(held[self._slots], np.arange(len(vectors) + 1))

    def changed(self, q: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows that have q among their neighbours, and their vectors without it."""
        slots = self._slots[self._first[q] : self._first[q + 1]]
        if len(slots) == 0:
            return slots, self._augmented[slots]
        rows, ranks = np.divmod(slots, self._k)
        sums = self._sums[rows] - self._weights[rows, ranks, None] * self._given[q]
        if self._nearest.shape[1] > self._k:
            sums += self._weights[rows, self._k, None] * self._given[self._nearest[rows, self._k]]
        return rows, l2_normalize(sums)

    def scores(self, positions: NDArray[np.int64], queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, N) cosines of queries (n, D) at `positions` (n,), each with the gallery without it."""
        scores = queries @ self._augmented.T
        for row, q in enumerate(positions):
            rows, vectors = self.changed(q)
            scores[row, rows] = vectors @ queries[row]
            scores[row, q] = -np.inf
        return np.asarray(scores, np.float32)

    def vectors(self, q: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(n, D) vectors of some rows in the gallery without q."""
        found = self._augmented[rows]
        changed, vectors = self.changed(q)
        where = {int(row): i for i, row in enumerate(changed)}
        for i, row in enumerate(rows):
            if int(row) in where:
                found[i] = vectors[where[int(row)]]
        return found


def _checked(k: int) -> int:
    if k < 0:
        raise ShapeError(f"the number of neighbours must be at least 0, not {k}", code="bad_neighbours")
    return k


def _neighbours(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], k: int, own: bool
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Positions (Q, k) of the nearest, falling, and their cosines; with `own`, the query of each row is row of the gallery."""
    nearest, cosines = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    for start in range(0, len(queries), _BLOCK):
        some = slice(start, start + _BLOCK)
        scores = queries[some] @ gallery.T
        if own:
            scores[np.arange(len(scores)), start + np.arange(len(scores))] = -np.inf
        nearest[some] = _top(scores, k)
        cosines[some] = np.take_along_axis(scores, nearest[some], axis=1)
    return nearest, cosines


def _top(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Columns (Q, k) of the largest of each row, falling; equal ones in order."""
    if k == 0:
        return np.empty((len(scores), 0), np.int64)
    found = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(scores, found, axis=1)
    edge = values.min(axis=1, keepdims=True)
    # Among ties at the k-th place the partition picks arbitrarily.
    for row in np.flatnonzero((scores == edge).sum(axis=1) > (values == edge).sum(axis=1)):
        found[row] = np.argsort(-scores[row], kind="stable")[:k]
    found.sort(axis=1)
    values = np.take_along_axis(scores, found, axis=1)
    return np.take_along_axis(found, np.argsort(-values, axis=1, kind="stable"), axis=1)


def _weights(cosines: NDArray[np.float32], alpha: float) -> NDArray[np.float32]:
    """Weights of neighbours at these cosines, relative to the vector's own weight of 1."""
    near = cosines > 0  # before the power: with alpha = 0 every power is 1
    return np.where(near, np.where(near, cosines, 1) ** np.float32(alpha), 0).astype(np.float32)


def _sums(
    vectors: NDArray[np.float32], gallery: NDArray[np.float32], nearest: NDArray[np.int64], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(Q, D) vectors plus their weighted neighbours, not normalised."""
    sums = np.array(vectors, np.float32)
    if nearest.shape[1] == 0:  # einsum would read beyond the empty array that indexing returns (numpy 2.2 and 2.4)
        return sums
    step = max(1, _GATHERED // nearest.shape[1])
    for start in range(0, len(vectors), step):
        some = slice(start, start + step)
        sums[some] += np.einsum("qk,qkd->qd", weights[some], gallery[nearest[some]])
    return sums
