"""The other run that a collection is compared with: another collection, or a TREC run file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvretrieval.api import Collection
from mvretrieval.evaluation.evaluation_set import EvaluationSet, evaluation_set_of
from mvretrieval.evaluation.metrics import Evaluation, Measure, evaluate
from mvretrieval.evaluation.multistage import Refining, refined
from mvretrieval.evaluation.protocols import OpenSetQueries, Task, leave_one_out_task, open_set_task
from mvretrieval.evaluation.trec import evaluate_run, qrels_of, read_run


def evaluate_other(
    other: Path,
    evaluation_set: EvaluationSet,
    task: Task,
    queries: OpenSetQueries | None,
    family: Callable[[NDArray[np.int64]], Measure],
    refining: Refining,
) -> tuple[Evaluation, list[str]]:
    """Measure another run by the same protocol.

    Args:
        other: folder of a collection, or a TREC run file.
        evaluation_set: the objects of this run.
        task: of this run.
        queries: of an open-set protocol; None is leave-one-out.
        family: of metrics, see `os3dor.FAMILIES`.
        refining: how another collection's scores are refined, as this one's are.

    Returns:
        Values of its queries, and what makes the two runs unlike, for people.

    Raises:
        CollectionError: there is no such collection.
        EvaluationError: the run cannot be read, or the queries are not among the other's objects.
    """
    if other.is_file():
        return _run(other, task, evaluation_set.ids, family(task.n_relevant))
    with Collection.open(other) as collection, collection.reading():
        theirs = evaluation_set_of(collection, evaluation_set.selection)
        if queries is None:
            their_task = leave_one_out_task(theirs.labels, theirs.ids)
        else:
            their_task = open_set_task(theirs.labels, theirs.ids, queries)
        scores, how = refined(collection, theirs, their_task, refining)
    different = len(set(evaluation_set.ids) ^ set(theirs.ids))
    notes = [f"{different} objects are in one of both collections alone, and in its gallery alone"] if different else []
    notes += [f"{other} is {how}"] if how else []
    return evaluate(their_task, scores, family(their_task.n_relevant), theirs.ids), notes


def _run(path: Path, task: Task, ids: tuple[str, ...], measure: Measure) -> tuple[Evaluation, list[str]]:
    qrels, run = qrels_of(task, ids), read_run(path)
    gallery = {ids[item] for item in task.gallery}
    notes = []
    strange = sum(item not in gallery or item == query for query in qrels for item in run.get(query, ()))
    if strange:
        notes.append(f"{strange} answers in {path} are the query itself or not in the gallery: they count as wrong")
    silent = sum(query not in run for query in qrels)
    if silent:
        notes.append(f"{path} does not answer {silent} of {len(qrels)} queries: they count as 0")
    return evaluate_run(qrels, run, measure), notes
