"""What lies behind the means of an evaluation: the precision-recall curve, the classes, and what is taken for what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.evaluation.metrics import Evaluation
from mvretrieval.evaluation.protocols import Task
from mvretrieval.evaluation.ranking import Scores, rankings

RECALL_LEVELS: NDArray[np.float64] = np.linspace(0, 1, 21)
N_FIRST = 8
_MIN_CLASSES_FOR_SPREAD = 4


@dataclass(frozen=True)
class Answers:
    """What is kept of every query's ranking.

    Attributes:
        n_relevant: (Q,) relevant items of each query.
        n_ranked: items in each ranking.
        precision: (Q, L) interpolated precision at `RECALL_LEVELS`.
        first: (Q, K) the first hits as indices among the objects; K is 8, or fewer in a small collection.
        scores: (Q, K) theirs.
    """

    n_relevant: NDArray[np.int64]
    n_ranked: int
    precision: NDArray[np.float64]
    first: NDArray[np.int64]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Mean precision at `RECALL_LEVELS`, all (L,).

    Attributes:
        mean: over the queries.
        class_mean: over the classes' mean curves; below `mean` where the large classes are the easy ones.
        lower: first quartile over the classes' mean curves; None where there are too few classes for quartiles.
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

    code: int
    name: str
    n: int
    values: dict[str, float]


@dataclass(frozen=True)
class Confusion:
    """Queries of one class whose first hit is of another.

    Attributes:
        asked: class of the queries.
        found: class of the first hit; None where it has no label.
        count: how often.
        n: queries of the class.
        query: index of the query that scored its wrong first hit highest.
        hit: index of that hit.
        score: its score.
    """

    asked: str
    found: str | None
    count: int
    n: int
    query: int
    hit: int
    score: float


def classes_of(labels: Sequence[Any]) -> tuple[NDArray[np.int64], list[str]]:
    """Class of each object, -1 without label, and the classes' names; labels that are equal are one class."""
    names: dict[Any, int] = {}
    codes = [-1 if label is None else names.setdefault(label, len(names)) for label in labels]
    return np.array(codes, np.int64), [str(name) for name in names]


def answers_of(task: Task, scores: Scores, block: int = 512) -> Answers:
    """Rank the gallery for every query once more, and keep what a report shows.

    Interpolated precision at recall r is the best precision at any rank from which on at least r of the relevant items
    have been found (TREC).

    Args:
        task: who asks, and among whom.
        scores: see `evaluation.ranking`.
        block: queries ranked at once.
    """
    n_relevant = task.n_relevant
    precision, first, best = [np.empty((0, len(RECALL_LEVELS)))], [], []
    done = n_ranked = 0
    for ranked in rankings(task, scores, block):
        relevant = task.codes[ranked.items] == task.codes[ranked.queries, None]
        precision.append(interpolated_precision(relevant, n_relevant[done : done + len(relevant)]))
        first.append(ranked.items[:, :N_FIRST])
        best.append(ranked.scores[:, :N_FIRST].astype(np.float64))
        done, n_ranked = done + len(relevant), ranked.items.shape[1]
    return Answers(
        n_relevant,
        n_ranked,
        np.concatenate(precision),
        np.concatenate(first) if first else np.empty((0, 0), np.int64),
        np.concatenate(best) if best else np.empty((0, 0)),
    )


def interpolated_precision(relevant: NDArray[np.bool_], n_relevant: NDArray[np.int64]) -> NDArray[np.float64]:
    """Precision at `RECALL_LEVELS`.

    Args:
        relevant: (Q, N) full rankings, in order of rank.
        n_relevant: (Q,) at least 1; every relevant item is in the ranking.

    Returns:
        (Q, L), falling along each row.
    """
    at_rank = relevant.cumsum(axis=1) / np.arange(1, relevant.shape[1] + 1)
    interpolated = np.maximum.accumulate(at_rank[:, ::-1], axis=1)[:, ::-1]
    # Rank of the last item needed: precision peaks at relevant items only, so recall 0 needs the first of them.
    # 0.15 * 20 is 3.0000000000000004: rounding keeps it from asking for a fourth.
    needed = np.maximum(1, np.ceil(np.round(RECALL_LEVELS * n_relevant[:, None], 9))).astype(np.int64)
    rows, ranks = np.nonzero(relevant)
    start = np.searchsorted(rows, np.arange(len(relevant)))
    return np.take_along_axis(interpolated, ranks[start[:, None] + needed - 1], axis=1)


def curve_of(answers: Answers, query_codes: NDArray[np.int64]) -> Curve:
    """Mean curve and how the classes spread around it.

    Args:
        answers: to at least one query.
        query_codes: (Q,) class of each query.
    """
    by_class = np.stack([answers.precision[query_codes == code].mean(axis=0) for code in np.unique(query_codes)])
    lower = upper = None
    if len(by_class) >= _MIN_CLASSES_FOR_SPREAD:
        lower, upper = np.quantile(by_class, [0.25, 0.75], axis=0)
    chance = float((answers.n_relevant / answers.n_ranked).mean())
    return Curve(answers.precision.mean(axis=0), by_class.mean(axis=0), lower, upper, chance)


def standard_errors(evaluation: Evaluation) -> dict[str, float]:
    """Metric -> standard error of its mean over the queries; NaN for fewer than two."""
    n = len(evaluation.queries)
    return {
        name: float(values.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan
        for name, values in evaluation.values.items()
    }


def class_rows(evaluation: Evaluation, codes: NDArray[np.int64], names: Sequence[str]) -> list[ClassRow]:
    """Means of each class that was asked for, lowest mAP first."""
    query_codes = codes[evaluation.queries]
    rows = []
    for code in np.unique(query_codes):
        chosen = query_codes == code
        values = {name: float(value[chosen].mean()) for name, value in evaluation.values.items()}
        rows.append(ClassRow(int(code), names[code], int(chosen.sum()), values))
    return sorted(rows, key=lambda row: (row.values.get("mAP", 0.0), row.name))


def confusions(
    answers: Answers, codes: NDArray[np.int64], queries: NDArray[np.int64], names: Sequence[str]
) -> list[Confusion]:
    """Pairs of classes that first hits confuse, most frequent first; among equals the larger share of its class."""
    if answers.first.size == 0:
        return []
    hits = answers.first[:, 0]
    asked, found = codes[queries], codes[hits]
    wrong = asked != found
    result = []
    for a, f in np.unique(np.stack([asked[wrong], found[wrong]], axis=1), axis=0):
        these = np.flatnonzero((asked == a) & (found == f))
        top = these[np.argmax(answers.scores[these, 0])]
        result.append(
            Confusion(
                asked=names[a],
                found=names[f] if f >= 0 else None,
                count=len(these),
                n=int((asked == a).sum()),
                query=int(queries[top]),
                hit=int(hits[top]),
                score=float(answers.scores[top, 0]),
            )
        )
    return sorted(result, key=lambda c: (-c.count, -c.count / c.n, c.asked, c.found or ""))


def best_and_worst(
    values: NDArray[np.float64],
    query_codes: NDArray[np.int64],
    n_relevant: NDArray[np.int64],
    n_best: int,
    n_worst: int,
) -> tuple[list[int], list[int]]:
    """Positions of the best and of the worst queries, none in both; one of each class before a second of any.

    Among equals those with more relevant items come first, as they are the more telling ones.
    """
    order = np.lexsort((np.arange(len(values)), -n_relevant, -values))
    half = (len(order) + 1) // 2
    worst_first = np.lexsort((np.arange(len(values)), -n_relevant, values))
    lower_half = set(order[half:].tolist())
    worst = [int(i) for i in worst_first if int(i) in lower_half]
    return _varied(order[:half].tolist(), query_codes, n_best), _varied(worst, query_codes, n_worst)


def _varied(positions: list[int], query_codes: NDArray[np.int64], limit: int) -> list[int]:
    """The first `limit` positions, those whose class was there already only where there are no others."""
    seen: set[int] = set()
    fresh: list[int] = []
    repeated: list[int] = []
    for position in positions:
        code = int(query_codes[position])
        (repeated if code in seen else fresh).append(position)
        seen.add(code)
    chosen = set((fresh + repeated)[:limit])
    return [position for position in positions if position in chosen]
