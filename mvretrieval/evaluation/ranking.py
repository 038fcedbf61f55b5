"""Rankings from scores of any origin, one block of queries at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import EvaluationError, ShapeError
from mvretrieval.evaluation.protocols import Task

ScoreFunction = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.floating[Any]]]
"""(b,) query indices and (G,) gallery indices -> (b, G) scores, higher is better."""

_MAX_CELLS = 1 << 24  # of a block: half a dozen arrays of this size exist at once


@dataclass(frozen=True)
class RankingBlock:
    """Rankings of a block of queries.

    Attributes:
        queries: (b,) index of each query.
        items: (b, G) index of each item, best first.
        scores: (b, G) scores of the items, descending.
    """

    queries: NDArray[np.int64]
    items: NDArray[np.int64]
    scores: NDArray[np.floating[Any]]


def cosines(vectors: NDArray[np.float32]) -> ScoreFunction:
    """Cosine scores of unit vectors (N, D).

    Computed in double precision and rounded to nine decimals: the summation order of a matrix product depends on shapes and
    machine, so in single precision two objects with equal vectors do not always have equal scores.
    """

    def block(queries: NDArray[np.int64], gallery: NDArray[np.int64]) -> NDArray[np.float64]:
        return (vectors[queries].astype(np.float64) @ vectors[gallery].T.astype(np.float64)).round(9)

    return block


def precomputed(matrix: NDArray[np.floating[Any]]) -> ScoreFunction:
    """Scores from an (N, N) matrix: rows are queries, columns are gallery items."""

    def block(queries: NDArray[np.int64], gallery: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        return matrix[np.ix_(queries, gallery)]

    return block


def rankings(task: Task, scores: ScoreFunction, block: int = 512) -> Iterator[RankingBlock]:
    """Rank the gallery for every query; ties in the order of the gallery.

    Args:
        task: queries and gallery.
        scores: see `ScoreFunction`.
        block: maximum number of queries ranked at once; fewer where the gallery is large.

    Raises:
        ShapeError: a block of scores has the wrong shape.
        EvaluationError: a score is NaN.
    """
    block = max(1, min(block, _MAX_CELLS // max(len(task.gallery), 1)))
    for start in range(0, len(task.queries), block):
        queries = task.queries[start : start + block]
        found = np.asarray(scores(queries, task.gallery))
        if found.shape != (len(queries), len(task.gallery)):
            raise ShapeError(
                f"scores of {len(queries)} queries and {len(task.gallery)} objects have shape {found.shape}"
            )
        if np.isnan(found).any():
            query = int(queries[np.isnan(found).any(axis=1)][0])
            raise EvaluationError(
                f"scores of object {query} are NaN: a stored vector is damaged; index the object again",
                code="nan_scores",
            )
        order = np.argsort(-found, axis=1, kind="stable")
        items = task.gallery[order]
        others = items != queries[:, None]
        width = int(others[0].sum())  # equal for all queries, see `Task`
        found = np.take_along_axis(found, order, axis=1)[others].reshape(-1, width)
        yield RankingBlock(queries, items[others].reshape(-1, width), found)
