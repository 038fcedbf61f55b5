"""Textbook retrieval metrics, per query. `os3dor` has the open-set benchmarks' own; a table never mixes the two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import ShapeError
from mvretrieval.evaluation.protocols import Task, leave_one_out_task
from mvretrieval.evaluation.ranking import ScoreFunction, cosines, rankings

Measure = Callable[[NDArray[np.bool_], NDArray[np.int64]], dict[str, NDArray[np.float64]]]
"""(Q, G) relevance by rank and (Q,) number of relevant items -> metric -> (Q,)."""


@dataclass(frozen=True)
class Evaluation:
    """Per-query values and their means.

    Attributes:
        queries: (Q,) index of each query among the objects.
        values: metric -> (Q,) in 0..1.
        skipped: queries without a relevant item.
        ids: Q ids of the queries, if known; runs are compared by them.
    """

    queries: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]
    skipped: int
    ids: tuple[str, ...] | None = None

    def means(self) -> dict[str, float]:
        """Metric -> mean over the queries; NaN without queries."""
        return {name: float(values.mean()) if len(values) else float("nan") for name, values in self.values.items()}


def leave_one_out(vectors: NDArray[np.float32], labels: Sequence[Any], block: int = 512) -> Evaluation:
    """Evaluate every object as a query against all others.

    Args:
        vectors: (N, D), unit norm.
        labels: N labels; an object without one (None) is no query and never relevant, but stays in the gallery.
        block: queries ranked at once.

    Returns:
        Metrics of the queries that have a relevant item. Ties are broken by position; `evaluate` with a task that has ids
        breaks them by id.

    Raises:
        ShapeError: labels and vectors differ in number.
    """
    if len(vectors) != len(labels):
        raise ShapeError(f"{len(vectors)} vectors have {len(labels)} labels")
    return evaluate(leave_one_out_task(labels), cosines(vectors), block=block)


def evaluate(
    task: Task,
    scores: ScoreFunction,
    measure: Measure | None = None,
    ids: Sequence[str] | None = None,
    block: int = 512,
) -> Evaluation:
    """Rank the gallery for every query and compute the metrics of the rankings.

    Args:
        task: queries, gallery and relevance.
        scores: `cosines(vectors)`, `precomputed(matrix)`, or any function that returns a block of scores.
        measure: family of metrics; the textbook's by default.
        ids: N ids of the objects; the result holds those of the queries.
        block: maximum number of queries ranked at once.

    Raises:
        ShapeError: a block of scores has the wrong shape.
        EvaluationError: a score is NaN.
    """
    measure = measure or ranked_metrics
    # An empty ranking gives the metrics' names, for a task without queries.
    parts = [measure(np.zeros((0, 1), np.bool_), np.zeros(0, np.int64))]
    n_relevant = task.n_relevant
    done = 0
    for ranked in rankings(task, scores, block):
        relevant = task.class_ids[ranked.items] == task.class_ids[ranked.queries, None]
        parts.append(measure(relevant, n_relevant[done : done + len(relevant)]))
        done += len(relevant)
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Evaluation(task.queries, values, task.skipped, None if ids is None else tuple(ids[q] for q in task.queries))


def ranked_metrics(relevant: NDArray[np.bool_], n_relevant: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Compute the textbook metrics of full rankings.

    NN: the first item is relevant. FT, ST: recall at R and 2R, R being the number of relevant items. DCG: discounted by
    log2(rank) from rank 2 on, divided by the query's ideal DCG (Shilane et al. 2004). mAP: mean of the precision at each
    relevant item, not interpolated. NDCG@100, recall@10, recall@100: see `ndcg_at`, `recall_at`.

    Args:
        relevant: (Q, N) relevance by rank; False where nothing was ranked.
        n_relevant: (Q,) relevant items, at least 1.
    """
    n = relevant.shape[1]
    ranks = np.arange(1, n + 1)
    hits = relevant.cumsum(axis=1)
    rows = np.arange(len(relevant))
    discount = 1 / np.maximum(1.0, np.log2(np.arange(1, max(n, n_relevant.max(initial=0)) + 1)))
    ideal = discount.cumsum()[n_relevant - 1]
    return {
        "NN": relevant[:, 0].astype(float),
        "FT": hits[rows, np.minimum(n_relevant, n) - 1] / n_relevant,
        "ST": hits[rows, np.minimum(2 * n_relevant, n) - 1] / n_relevant,
        "DCG": (relevant * discount[:n]).sum(axis=1) / ideal,
        "mAP": (relevant * hits / ranks).sum(axis=1) / n_relevant,
        "NDCG@100": ndcg_at(100, relevant, n_relevant),
        "recall@10": recall_at(10, relevant, n_relevant),
        "recall@100": recall_at(100, relevant, n_relevant),
    }


def ndcg_at(k: int, relevant: NDArray[np.bool_], n_relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """NDCG@k with binary gain, discount 1/log2(rank + 1) and the query's ideal DCG."""
    discount = 1 / np.log2(np.arange(2, k + 2))
    top = relevant[:, :k]
    ideal = discount.cumsum()[np.minimum(n_relevant, k) - 1]
    return np.asarray((top * discount[: top.shape[1]]).sum(axis=1) / ideal)


def recall_at(k: int, relevant: NDArray[np.bool_], n_relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """Fraction of the relevant items that rank among the first k."""
    return np.asarray(relevant[:, :k].sum(axis=1) / n_relevant)
