"""Exact search: all inner products, bound by memory bandwidth for one query and by arithmetic for many.

Queries are compared with the vectors block by block. Most scores of a block are below the k-th best so far, and one cheap
comparison discards them; selecting from all scores afterwards would take as long as computing them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# Scores of one block: they stay in the CPU cache until they are compared.
_SCORES_AT_ONCE = 1 << 18
_QUERIES_AT_ONCE = 256
_MOST_ROWS = 1 << 16


def rows_at_once(n_queries: int) -> int:
    """Number of vectors in a block."""
    return min(_MOST_ROWS, _SCORES_AT_ONCE // max(1, min(n_queries, _QUERIES_AT_ONCE)))


def query_parts(n_queries: int) -> list[slice]:
    """Slices of queries that are searched together."""
    return [slice(start, start + _QUERIES_AT_ONCE) for start in range(0, n_queries, _QUERIES_AT_ONCE)]


def nearest(
    queries: NDArray[np.float32],
    blocks: Iterable[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_] | None]],
    k: int,
) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """The k largest inner products of each query.

    Args:
        queries: (Q, D), one slice of `query_parts`.
        blocks: row ids (n,), vectors (n, D) and a mask of the vectors to search (n,), None for all.
        k: number of results at most, at least 1.

    Returns:
        For each query the inner products, falling, and the row ids; ties are broken by row id, also at the k-th place.
    """
    best = _Best(len(queries), k)
    room = np.empty((len(queries), 0), np.float32)
    for row_ids, vectors, counts in blocks:
        if room.shape[1] != len(vectors):  # allocating each block costs 5 % of the time
            room = np.empty((len(queries), len(vectors)), np.float32)
        scores = np.matmul(queries, vectors.T, out=room)
        if counts is not None:
            scores[:, ~counts] = -np.inf
        best.take(scores, row_ids)
    return best.result()


def best_of(
    query: NDArray[np.float32], vectors: NDArray[np.float32], row_ids: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k of a few vectors (n, D) with the largest inner products, falling, and their row ids; ties as in `nearest`."""
    scores = vectors @ query
    order = np.lexsort((row_ids, -scores))[:k]
    return scores[order], row_ids[order]


class _Best:
    """The k best scores so far of each query, and candidates that may be among them."""

    def __init__(self, n_queries: int, k: int) -> None:
        self._n_queries, self._k = n_queries, k
        # No score below its query's edge can be among the k best.
        self._edges = np.full((n_queries, 1), np.finfo(np.float32).min, np.float32)
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]] = []
        self._pending = 0

    def take(self, scores: NDArray[np.float32], row_ids: NDArray[np.int64]) -> None:
        """Take in the scores (Q, n) of the objects with these row ids (n,)."""
        n, k = scores.shape[1], self._k
        # Without this the first block would be sorted whole, and others mostly, where vectors are ordered by similarity.
        found = np.flatnonzero(
            scores >= self._edges
        )  # seven times faster than `nonzero`, which returns rows and columns
        if n > k and len(found) > 8 * k * self._n_queries:
            edges = np.partition(scores, n - k, axis=1)[:, n - k, None]
            np.maximum(self._edges, edges, out=self._edges)
            found = np.flatnonzero(scores >= self._edges)
        if len(found) == 0:
            return
        rows, columns = np.divmod(found, n)
        self._parts.append((rows, scores[rows, columns], row_ids[columns]))
        self._pending += len(rows)
        if self._pending > k * self._n_queries:
            self._settle()

    def result(self) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """The best of each query, in order."""
        self._settle()
        if not self._parts:
            return [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in range(self._n_queries)]
        rows, scores, row_ids = self._parts[0]
        ends = np.searchsorted(rows, np.arange(1, self._n_queries))
        return list(zip(np.split(scores, ends), np.split(row_ids, ends), strict=True))

    def _settle(self) -> None:
        """Keep the k best of each query, and raise its edge to the last of them."""
        if not self._parts:
            return
        rows, scores, row_ids = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        order = np.lexsort((row_ids, -scores, rows))
        rows, scores, row_ids = rows[order], scores[order], row_ids[order]
        starts = np.searchsorted(rows, np.arange(self._n_queries))
        ranks = np.arange(len(rows)) - starts[rows]
        last = ranks == self._k - 1
        self._edges[rows[last], 0] = np.maximum(self._edges[rows[last], 0], scores[last])
        kept = ranks < self._k
        self._parts = [(rows[kept], scores[kept], row_ids[kept])]
        self._pending = 0
