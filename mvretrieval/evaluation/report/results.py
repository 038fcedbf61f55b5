"""Results behind the means of an evaluation: first hits, precision-recall curve, classes and confusions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.evaluation.metrics import Evaluation
from mvretrieval.evaluation.protocols import Task
from mvretrieval.evaluation.ranking import ScoreFunction, rankings

RECALL_LEVELS: NDArray[np.float64] = np.linspace(0, 1, 21)
N_FIRST = 8
_MIN_CLASSES_FOR_SPREAD = 4


@dataclass(frozen=True)
class QueryResults:
    """Results of every query.

    Attributes:
        n_relevant: (Q,) relevant items of each query.
        n_ranked: number of items in each ranking.
        precision: (Q, L) interpolated precision at `RECALL_LEVELS`.
        first: (Q, K) indices of the first hits among the objects; K is 8, or fewer in a small collection.
        scores: (Q, K) their scores.
    """

    n_relevant: NDArray[np.int64]
    n_ranked: int
    precision: NDArray[np.float64]
    first: NDArray[np.int64]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Mean precision at `RECALL_LEVELS`, arrays (L,).

    Attributes:
        mean: mean over the queries.
        class_mean: mean over the classes' mean curves; below `mean` where large classes are easier.
        lower: first quartile over the classes' mean curves; None with too few classes.
        upper: third quartile.
        chance: mean precision of a random ranking.
    """

    mean: NDArray[np.float64]
    class_mean: NDArray[np.float64]
    lower: NDArray[np.float64] | None
    upper: NDArray[np.float64] | None
    chance: float


@dataclass(frozen=True)
class ClassRow:
    """Means over the queries of one class."""

    class_id: int
    name: str
    n: int
    values: dict[str, float]


@dataclass(frozen=True)
class Confusion:
    """Queries of one class whose first hit is of another.

    Attributes:
        query_class: class of the queries.
        hit_class: class of the first hit; None if it has no label.
        count: number of such queries.
        n: number of queries of the class.
        query: index of the query with the highest-scored wrong first hit.
        hit: index of that hit.
        score: its score.
    """

    query_class: str
    hit_class: str | None
    count: int
    n: int
    query: int
    hit: int
    score: float


def classes_of(labels: Sequence[Any]) -> tuple[NDArray[np.int64], list[str]]:
    """Return the class of each object, -1 without a label, and the names of the classes."""
    names: dict[Any, int] = {}
    class_ids = [-1 if label is None else names.setdefault(label, len(names)) for label in labels]
    return np.array(class_ids, np.int64), [str(name) for name in names]


def collect_results(task: Task, scores: ScoreFunction, block: int = 512) -> QueryResults:
    """Rank the gallery for every query and keep the results that a report shows.

    Args:
        task: queries, gallery and relevance.
        scores: see `evaluation.ranking`.
        block: queries ranked at once.
    """
    n_relevant = task.n_relevant
    precision, first, best = [np.empty((0, len(RECALL_LEVELS)))], [], []
    done = n_ranked = 0
    for ranked in rankings(task, scores, block):
        relevant = task.class_ids[ranked.items] == task.class_ids[ranked.queries, None]
        precision.append(interpolated_precision(relevant, n_relevant[done : done + len(relevant)]))
        first.append(ranked.items[:, :N_FIRST])
        best.append(ranked.scores[:, :N_FIRST].astype(np.float64))
        done, n_ranked = done + len(relevant), ranked.items.shape[1]
    return QueryResults(
        n_relevant,
        n_ranked,
        np.concatenate(precision),
        np.concatenate(first) if first else np.empty((0, 0), np.int64),
        np.concatenate(best) if best else np.empty((0, 0)),
    )


def interpolated_precision(relevant: NDArray[np.bool_], n_relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute interpolated precision at `RECALL_LEVELS`.

    At recall r it is the maximum precision at any rank with recall >= r (TREC).

    Args:
        relevant: (Q, N) relevance by rank, full rankings.
        n_relevant: (Q,) at least 1; every relevant item is in the ranking.

    Returns:
        (Q, L), descending along each row.
    """
    at_rank = relevant.cumsum(axis=1) / np.arange(1, relevant.shape[1] + 1)
    interpolated = np.maximum.accumulate(at_rank[:, ::-1], axis=1)[:, ::-1]
    # Number of relevant items needed: precision peaks at relevant items only, so recall 0 needs the first of them.
    # 0.15 * 20 is 3.0000000000000004: without rounding, a fourth would be needed.
    needed = np.maximum(1, np.ceil(np.round(RECALL_LEVELS * n_relevant[:, None], 9))).astype(np.int64)
    rows, ranks = np.nonzero(relevant)
    start = np.searchsorted(rows, np.arange(len(relevant)))
    return np.take_along_axis(interpolated, ranks[start[:, None] + needed - 1], axis=1)


def precision_recall_curve(results: QueryResults, query_class_ids: NDArray[np.int64]) -> PrecisionRecallCurve:
    """Compute the mean curve and its spread over the classes.

    Args:
        results: results of at least one query.
        query_class_ids: (Q,) class of each query.
    """
    by_class = np.stack([results.precision[query_class_ids == one].mean(axis=0) for one in np.unique(query_class_ids)])
    lower = upper = None
    if len(by_class) >= _MIN_CLASSES_FOR_SPREAD:
        lower, upper = np.quantile(by_class, [0.25, 0.75], axis=0)
    chance = float((results.n_relevant / results.n_ranked).mean())
    return PrecisionRecallCurve(results.precision.mean(axis=0), by_class.mean(axis=0), lower, upper, chance)


def standard_errors(evaluation: Evaluation) -> dict[str, float]:
    """Metric -> standard error of its mean over the queries; NaN for fewer than two."""
    n = len(evaluation.queries)
    return {
        name: float(values.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
        for name, values in evaluation.values.items()
    }


def class_rows(evaluation: Evaluation, class_ids: NDArray[np.int64], names: Sequence[str]) -> list[ClassRow]:
    """Means of each class that has queries, lowest mAP first."""
    query_class_ids = class_ids[evaluation.queries]
    rows = []
    for one in np.unique(query_class_ids):
        chosen = query_class_ids == one
        values = {name: float(value[chosen].mean()) for name, value in evaluation.values.items()}
        rows.append(ClassRow(int(one), names[one], int(chosen.sum()), values))
    return sorted(rows, key=lambda row: (row.values.get("mAP", 0.0), row.name))


def confusions(
    results: QueryResults, class_ids: NDArray[np.int64], queries: NDArray[np.int64], names: Sequence[str]
) -> list[Confusion]:
    """Pairs of query class and class of a wrong first hit, most frequent first, then by share of the class."""
    if results.first.size == 0:
        return []
    hits = results.first[:, 0]
    of_query, of_hit = class_ids[queries], class_ids[hits]
    wrong = of_query != of_hit
    found = []
    for q, h in np.unique(np.stack([of_query[wrong], of_hit[wrong]], axis=1), axis=0):
        pairs = np.flatnonzero((of_query == q) & (of_hit == h))
        top = pairs[np.argmax(results.scores[pairs, 0])]
        found.append(
            Confusion(
                query_class=names[q],
                hit_class=names[h] if h >= 0 else None,
                count=len(pairs),
                n=int((of_query == q).sum()),
                query=int(queries[top]),
                hit=int(hits[top]),
                score=float(results.scores[top, 0]),
            )
        )
    return sorted(found, key=lambda c: (-c.count, -c.count / c.n, c.query_class, c.hit_class or ""))


def best_and_worst(
    values: NDArray[np.float64],
    query_class_ids: NDArray[np.int64],
    n_relevant: NDArray[np.int64],
    n_best: int,
    n_worst: int,
) -> tuple[list[int], list[int]]:
    """Positions of the best and of the worst queries, disjoint, with as many classes as possible.

    Ties are broken by more relevant items, which are more informative.
    """
    order = np.lexsort((np.arange(len(values)), -n_relevant, -values))
    half = (len(order) + 1) // 2
    worst_first = np.lexsort((np.arange(len(values)), -n_relevant, values))
    lower_half = set(order[half:].tolist())
    worst = [int(i) for i in worst_first if int(i) in lower_half]
    return _diverse(order[:half].tolist(), query_class_ids, n_best), _diverse(worst, query_class_ids, n_worst)


def _diverse(positions: list[int], query_class_ids: NDArray[np.int64], limit: int) -> list[int]:
    """The first `limit` positions; a repeated class only where too few classes exist."""
    seen: set[int] = set()
    new: list[int] = []
    repeated: list[int] = []
    for position in positions:
        class_id = int(query_class_ids[position])
        (repeated if class_id in seen else new).append(position)
        seen.add(class_id)
    chosen = set((new + repeated)[:limit])
    return [position for position in positions if position in chosen]
