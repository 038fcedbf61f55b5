"""Scores of any origin to rankings, a block of queries at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import EvaluationError, ShapeError
from mvretrieval.evaluation.protocols import Task

Scores = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.floating[Any]]]
"""(b,) and (G,) indices of objects that ask and of objects that answer -> (b, G) scores, higher is better."""

_CELLS = 1 << 24  # of a block: half a dozen arrays of this size are held at once


@dataclass(frozen=True)
class Ranked:
    """Rankings of some queries.

    Attributes:
        queries: (b,) index of each query.
        items: (b, G) index of each item, best first.
        scores: (b, G) of the items, falling.
    """

    queries: NDArray[np.int64]
    items: NDArray[np.int64]
    scores: NDArray[np.floating[Any]]


def cosines(vectors: NDArray[np.float32]) -> Scores:
    """Scores of unit vectors (N, D).

    In double precision and rounded to nine decimals: matrix products sum in an order that depends on shapes and machine, so
    that in single precision two objects with the same vector do not always have the same score.
    """

    def block(queries: NDArray[np.int64], gallery: NDArray[np.int64]) -> NDArray[np.float64]:
        return (vectors[queries].astype(np.float64) @ vectors[gallery].T.astype(np.float64)).round(9)

    return block


def given(matrix: NDArray[np.floating[Any]]) -> Scores:
    """Scores that are known: (N, N), row asks, column answers."""

    def block(queries: NDArray[np.int64], gallery: NDArray[np.int64]) -> NDArray[np.floating[Any]]:
        return matrix[np.ix_(queries, gallery)]

    return block


def rankings(task: Task, scores: Scores, block: int = 512) -> Iterator[Ranked]:
    """Rank the gallery for every query; equal scores in the gallery's order.

    Args:
        task: who asks, and among whom.
        scores: see `Scores`.
        block: queries ranked at once, at most; fewer where the gallery is large.

    Raises:
        ShapeError: a block of scores has another shape.
        EvaluationError: a score is not a number.
    """
    block = max(1, min(block, _CELLS // max(len(task.gallery), 1)))
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
                f"scores of object {query} are not numbers (NaN): its vector or another's is damaged; index it again"
            )
        order = np.argsort(-found, axis=1, kind="stable")
        items = task.gallery[order]
        others = items != queries[:, None]
        width = int(others[0].sum())  # the same for every query, as a task sees to
        found = np.take_along_axis(found, order, axis=1)[others].reshape(-1, width)
        yield Ranked(queries, items[others].reshape(-1, width), found)
