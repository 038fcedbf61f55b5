"""Objects found by words or by pictures that are not in the collection: who asks, what is right, and how early it comes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import EvaluationError, ShapeError, did_you_mean
from mvretrieval.evaluation.metrics import Evaluation, evaluate, ranked_metrics, recall_at
from mvretrieval.evaluation.protocols import Task
from mvretrieval.evaluation.ranking import Scores

FIRST = (1, 5, 10)


@dataclass(frozen=True)
class Question:
    """Somebody outside of the collection who asks.

    Attributes:
        asked: words, or the path of a picture.
        key: what is right: an object's id, or a label.
    """

    asked: str
    key: Any


def cross_modal_task(
    questions: Sequence[Question], keys: Sequence[Any], ids: Sequence[str]
) -> tuple[Task, NDArray[np.int64]]:
    """Questions from outside against all objects, in the manner of `evaluate`; equal scores are ranked by id.

    Args:
        questions: Q.
        keys: N, of the objects: their ids, or labels; None for none, which is right for nobody.
        ids: N, each once.

    Returns:
        The task, whose first N indices are the objects and the next the questions, and (Q',) the questions that ask;
        those that nothing is right for are skipped and counted.

    Raises:
        ShapeError: there are not as many keys as ids.
    """
    if len(keys) != len(ids):
        raise ShapeError(f"{len(ids)} objects have {len(keys)} keys")
    codes: dict[Any, int] = {}
    own = [-1 if key is None else codes.setdefault(key, len(codes)) for key in keys]
    asking = np.array([i for i, question in enumerate(questions) if question.key in codes], np.int64)
    every = own + [codes.get(question.key, -1) for question in questions]
    gallery = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
    return Task(asking + len(ids), gallery, np.array(every, np.int64), len(questions) - len(asking)), asking


def measure_found(task: Task, asking: NDArray[np.float32], objects: NDArray[np.float32]) -> Evaluation:
    """Rank the objects for every question.

    Args:
        task: of `cross_modal_task`.
        asking: (Q, D) vectors of all questions.
        objects: (N, D).

    Returns:
        found@k: whether something right is among the first k (what cross-modal papers call R@k); recall@k: the share of
        all that is right; `first`: rank of the first that is right; mAP. Where one object alone is right, found@k and
        recall@k are the same.
    """
    n = len(objects)

    def scores(queries: NDArray[np.int64], gallery: NDArray[np.int64]) -> NDArray[np.float64]:
        return (asking[queries - n].astype(np.float64) @ objects[gallery].T.astype(np.float64)).round(9)

    block: Scores = scores
    return evaluate(task, block, _measure)


def _measure(relevant: NDArray[np.bool_], n_relevant: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    found = {f"found@{k}": relevant[:, :k].any(axis=1).astype(float) for k in FIRST}
    recall = {f"recall@{k}": recall_at(k, relevant, n_relevant) for k in FIRST}
    first = relevant.argmax(axis=1) + 1.0
    return {**found, **recall, "mAP": ranked_metrics(relevant, n_relevant)["mAP"], "first": first}


def summary(evaluation: Evaluation) -> dict[str, float | None]:
    """Means over the questions, and the median rank of the first right object; None where nobody asks."""
    means = evaluation.means()
    ranks = evaluation.values["first"]
    found: dict[str, float | None] = {name: means[name] for name in means if name != "first"}
    if not len(ranks):
        return {name: None for name in (*found, "median_rank")}
    return found | {"median_rank": float(np.median(ranks))}


def read_questions(path: Path, asked: str, keys: Sequence[str]) -> tuple[list[Question], str]:
    """Questions from a CSV.

    Args:
        path: of the file.
        asked: column of what is asked with, such as `text`.
        keys: columns that say what is right; one of them is there.

    Returns:
        The questions, and the column that says what is right.

    Raises:
        EvaluationError: the file cannot be read, has not the columns, or a cell is empty.
    """
    try:
        reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
        columns = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = columns
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{path} cannot be read: {error}; it is a CSV in UTF-8") from error
    key = next((name for name in keys if name in columns), None)
    if asked not in columns or key is None:
        there = ", ".join(columns) or "none"
        raise EvaluationError(f"{path} has the columns {there}; '{asked}' and '{' or '.join(keys)}' are needed")
    questions = []
    for line, row in rows:
        values = [(row.get(name) or "").strip() for name in (asked, key)]
        if not all(values):
            raise EvaluationError(f"{path}, line {line}: the cell '{asked if not values[0] else key}' is empty")
        questions.append(Question(*values))
    if not questions:
        raise EvaluationError(f"{path} has no rows: write one for each question")
    return questions, key


def check_known(task: Task, questions: Sequence[Question], keys: Sequence[Any], name: str) -> None:
    """Refuse questions of which no one has anything right: their keys are of another collection.

    Raises:
        EvaluationError: with the first key and the nearest one that is there.
    """
    if len(task.queries) or not questions:
        return
    first = str(questions[0].key)
    raise EvaluationError(
        f"no object has the {name} of any of the {len(questions)} questions, the first is '{first}': "
        f"{did_you_mean(first, [str(key) for key in keys if key is not None])}'mvr info' shows what is in the collection"
    )
