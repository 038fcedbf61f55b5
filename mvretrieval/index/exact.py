"""The largest inner products by computing all of them: exact, and bound by memory for one question, by arithmetic for many.

Questions meet the vectors block by block. Most scores of a block lie below the k-th best so far, and a comparison with that
refuses them for next to nothing; selecting from all scores afterwards takes as long as computing them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

# Scores that are computed at once: they stay in the processor's cache until they have been looked at.
_SCORES_AT_ONCE = 1 << 18
_QUERIES_AT_ONCE = 256
_MOST_ROWS = 1 << 16


def rows_at_once(n_queries: int) -> int:
    """How many vectors a block should have."""
    return min(_MOST_ROWS, _SCORES_AT_ONCE // max(1, min(n_queries, _QUERIES_AT_ONCE)))


def query_parts(n_queries: int) -> list[slice]:
    """Questions that are asked together."""
    return [slice(start, start + _QUERIES_AT_ONCE) for start in range(0, n_queries, _QUERIES_AT_ONCE)]


def nearest(
    queries: NDArray[np.float32],
    blocks: Iterable[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_] | None]],
    k: int,
) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """The k largest inner products of each question.

    Args:
        queries: (Q, D), as many as `query_parts` puts together.
        blocks: numbers (n,), vectors (n, D) and which of them count (n,); None for all.
        k: how many at most, from 1.

    Returns:
        For each question the inner products, falling, and the numbers; of equal ones the smaller number first, also where only
        one of them is among the k.
    """
    best = _Best(len(queries), k)
    room = np.empty((len(queries), 0), np.float32)
    for row_ids, vectors, counts in blocks:
        if room.shape[1] != len(vectors):  # fresh memory for each block costs a twentieth of the time
            room = np.empty((len(queries), len(vectors)), np.float32)
        scores = np.matmul(queries, vectors.T, out=room)
        if counts is not None:
            scores[:, ~counts] = -np.inf
        best.take(scores, row_ids)
    return best.result()


class _Best:
    """The k best so far of each question, and scores that may be among them."""

    def __init__(self, n_queries: int, k: int) -> None:
        self._n_queries, self._k = n_queries, k
        # No score below its question's edge can be among the best.
        self._edges = np.full((n_queries, 1), np.finfo(np.float32).min, np.float32)
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]] = []
        self._pending = 0

    def take(self, scores: NDArray[np.float32], row_ids: NDArray[np.int64]) -> None:
        """Scores (Q, n) of the objects with these numbers (n,)."""
        n, k = scores.shape[1], self._k
        # The first block would have all its scores sorted, and others most where vectors come in order of their likeness.
        found = np.flatnonzero(
            scores >= self._edges
        )  # seven times as fast as `nonzero`, which looks for rows and columns
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
        """The best of each question, in order."""
        self._settle()
        if not self._parts:
            return [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in range(self._n_queries)]
        rows, scores, row_ids = self._parts[0]
        ends = np.searchsorted(rows, np.arange(1, self._n_queries))
        return list(zip(np.split(scores, ends), np.split(row_ids, ends), strict=True))

    def _settle(self) -> None:
        """Keep the k best of each question, and raise the edges to the last of them."""
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
