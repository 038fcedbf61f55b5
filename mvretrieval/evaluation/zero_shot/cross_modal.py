"""Cross-modal retrieval: text or image queries from outside the collection, with their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.csv_file import read_csv
from mvretrieval.errors import EvaluationError, ShapeError, did_you_mean
from mvretrieval.evaluation.metrics import Evaluation, evaluate, ranked_metrics, recall_at
from mvretrieval.evaluation.protocols import Task

CUTOFFS = (1, 5, 10)


@dataclass(frozen=True)
class CrossModalQuery:
    """A query from outside the collection.

    Attributes:
        content: text, or the path of an image.
        target: id or label of the relevant objects.
    """

    content: str
    target: Any


def cross_modal_task(
    queries: Sequence[CrossModalQuery], targets: Sequence[Any], ids: Sequence[str]
) -> tuple[Task, NDArray[np.int64]]:
    """Make a task of outside queries against all objects; ties are broken by id.

    Args:
        queries: Q queries.
        targets: N ids or labels of the objects; None for an object that is never relevant.
        ids: N distinct ids.

    Returns:
        The task, whose first N indices are the objects and the next Q the queries; and (Q',) the queries with a relevant
        object. The others are skipped and counted.

    Raises:
        ShapeError: targets and ids differ in number.
    """
    if len(targets) != len(ids):
        raise ShapeError(f"{len(ids)} objects have {len(targets)} targets")
    class_ids: dict[Any, int] = {}
    of_objects = [-1 if target is None else class_ids.setdefault(target, len(class_ids)) for target in targets]
    kept = np.array([i for i, query in enumerate(queries) if query.target in class_ids], np.int64)
    all_class_ids = of_objects + [class_ids.get(query.target, -1) for query in queries]
    gallery = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
    return Task(kept + len(ids), gallery, np.array(all_class_ids, np.int64), len(queries) - len(kept)), kept


def evaluate_cross_modal(
    task: Task, query_vectors: NDArray[np.float32], object_vectors: NDArray[np.float32]
) -> Evaluation:
    """Rank the objects for every query.

    Args:
        task: from `cross_modal_task`.
        query_vectors: (Q, D) vectors of all queries.
        object_vectors: (N, D) vectors of the objects.

    Returns:
        found@k: whether a relevant object is among the first k (R@k in cross-modal papers); recall@k: fraction of the relevant
        objects; `first`: rank of the first relevant object; mAP. With one relevant object, found@k equals recall@k.
    """
    n = len(object_vectors)

    def scores(queries: NDArray[np.int64], gallery: NDArray[np.int64]) -> NDArray[np.float64]:
        return (query_vectors[queries - n].astype(np.float64) @ object_vectors[gallery].T.astype(np.float64)).round(9)

    return evaluate(task, scores, _measure)


def _measure(relevant: NDArray[np.bool_], n_relevant: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    found = {f"found@{k}": relevant[:, :k].any(axis=1).astype(float) for k in CUTOFFS}
    recall = {f"recall@{k}": recall_at(k, relevant, n_relevant) for k in CUTOFFS}
    first = relevant.argmax(axis=1) + 1.0
    return {**found, **recall, "mAP": ranked_metrics(relevant, n_relevant)["mAP"], "first": first}


def summary(evaluation: Evaluation) -> dict[str, float | None]:
    """Means over the queries and the median rank of the first relevant object; None without queries."""
    means = evaluation.means()
    ranks = evaluation.values["first"]
    found: dict[str, float | None] = {name: means[name] for name in means if name != "first"}
    if not len(ranks):
        return {name: None for name in (*found, "median_rank")}
    return found | {"median_rank": float(np.median(ranks))}


def read_queries(path: Path, content: str, targets: Sequence[str]) -> tuple[list[CrossModalQuery], str]:
    """Read queries from a CSV file.

    Args:
        path: path of the file.
        content: column of the queries, such as `text`.
        targets: possible columns of the targets; the first that exists is used.

    Returns:
        The queries, and the column of their targets.

    Raises:
        EvaluationError: the file cannot be read, lacks a column or rows, or has an empty cell.
    """
    columns, rows = read_csv(path, "the queries", [content], EvaluationError)
    target = next((name for name in targets if name in columns), None)
    if target is None:
        joined = "' or '".join(targets)
        raise EvaluationError(
            f"{path} has the columns {', '.join(columns)}, and no target: add a column '{joined}'",
            code="no_such_column",
        )
    queries = []
    for line, row in rows:
        values = [(row.get(name) or "").strip() for name in (content, target)]
        if not all(values):
            empty = content if not values[0] else target
            raise EvaluationError(f"{path}, line {line}: the cell '{empty}' is empty", code="empty_cell")
        queries.append(CrossModalQuery(*values))
    if not queries:
        raise EvaluationError(f"{path} has no rows: write one per query", code="no_queries")
    return queries, target


def check_targets(task: Task, queries: Sequence[CrossModalQuery], targets: Sequence[Any], name: str) -> None:
    """Refuse queries none of which has a relevant object: their targets belong to another collection.

    Raises:
        EvaluationError: with the first target and the nearest existing one.
    """
    if len(task.queries) or not queries:
        return
    first = str(queries[0].target)
    raise EvaluationError(
        f"no object has the {name} of any of the {len(queries)} queries, the first is '{first}': "
        f"{did_you_mean(first, [str(target) for target in targets if target is not None])}"
        "'mvr info' lists the contents of the collection",
        code="unknown_target",
    )
