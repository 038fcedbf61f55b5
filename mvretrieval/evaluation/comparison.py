"""Evaluation of the run that a collection is compared with: another collection, or a TREC run file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvretrieval.evaluation.evaluation_set import EvaluationSet, load_evaluation_set
from mvretrieval.evaluation.metrics import Evaluation, Measure, evaluate
from mvretrieval.evaluation.protocols import OpenSetQueries, Task, leave_one_out_task, open_set_task
from mvretrieval.evaluation.scoring import ScoringOptions, task_scores
from mvretrieval.evaluation.trec import evaluate_run, qrels_of, read_run
from mvretrieval.session.session import Session


def evaluate_other(
    other: Path,
    evaluation_set: EvaluationSet,
    task: Task,
    queries: OpenSetQueries | None,
    family: Callable[[NDArray[np.int64]], Measure],
    scoring: ScoringOptions,
) -> tuple[Evaluation, list[str]]:
    """Evaluate another run by the same protocol.

    Args:
        other: folder of a collection, or a TREC run file.
        evaluation_set: the objects of this run.
        task: the task of this run.
        queries: queries of an open-set protocol; None for leave-one-out.
        family: family of metrics, see `os3dor.FAMILIES`.
        scoring: how another collection is scored.

    Returns:
        Values of its queries, and notes on differences between the two runs.

    Raises:
        CollectionError: there is no such collection.
        EvaluationError: the run cannot be read, or the queries are not among the other collection's objects.
    """
    if other.is_file():
        return _evaluate_run_file(other, task, evaluation_set.ids, family(task.n_relevant))
    with Session.open(other) as session, session.reading():
        other_set = load_evaluation_set(session, evaluation_set.selection)
        if queries is None:
            other_task = leave_one_out_task(other_set.labels, other_set.ids)
        else:
            other_task = open_set_task(other_set.labels, other_set.ids, queries)
        scores, description = task_scores(session, other_set, other_task, scoring)
    n_different = len(set(evaluation_set.ids) ^ set(other_set.ids))
    notes = (
        [
            f"the galleries differ: {n_different} of the ids {'is' if n_different == 1 else 'are'} in only one of the collections"
        ]
        if n_different
        else []
    )
    notes += [f"{other}: {description}"] if description else []
    return evaluate(other_task, scores, family(other_task.n_relevant), other_set.ids), notes


def _evaluate_run_file(path: Path, task: Task, ids: tuple[str, ...], measure: Measure) -> tuple[Evaluation, list[str]]:
    qrels, run = qrels_of(task, ids), read_run(path)
    gallery = {ids[item] for item in task.gallery}
    notes = []
    n_invalid = sum(item not in gallery or item == query for query in qrels for item in run.get(query, ()))
    if n_invalid:
        notes.append(
            f"{n_invalid} items in {path} are the query itself or not in the gallery: they count as not relevant"
        )
    n_missing = sum(query not in run for query in qrels)
    if n_missing:
        notes.append(f"{n_missing} of {len(qrels)} queries are missing from {path}: they count as 0")
    return evaluate_run(qrels, run, measure), notes
