"""TREC's qrels and run files, so that other programs can check and compare what is measured here.

A line of qrels is `query 0 item relevance`, one of a run `query Q0 item rank score tag`. White space separates the columns, so
it is percent-encoded in ids, as are `%` itself and what is not ASCII.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.metrics import Evaluation, Measure, ranked_metrics
from mvretrieval.evaluation.protocols import Task
from mvretrieval.evaluation.ranking import Scores, rankings

Qrels = Mapping[str, Mapping[str, int]]
Run = Mapping[str, Mapping[str, float]]

_Number = TypeVar("_Number", int, float)
_READABLE = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}~"  # everything that is no letter, digit or `_.-~`, save `%`


def qrels_of(task: Task, ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Query -> its relevant items, each judged 1. What is not judged is not relevant."""
    found = {}
    for query in task.queries:
        alike = task.gallery[task.codes[task.gallery] == task.codes[query]]
        found[ids[query]] = {ids[item]: 1 for item in alike if item != query}
    return found


def write_qrels(path: Path, task: Task, ids: Sequence[str]) -> None:
    """Write what is relevant.

    Args:
        path: of the file.
        task: who asks, and among whom.
        ids: N, of the objects.

    Raises:
        EvaluationError: the file cannot be written.
    """
    with _writing(path) as file:
        for query, items in qrels_of(task, ids).items():
            file.writelines(f"{_encoded(query)} 0 {_encoded(item)} {judged}\n" for item, judged in items.items())


def affordable_depth(task: Task, lines: int = 10_000_000) -> int | None:
    """Items of each query that keep a run file under so many lines (ten million are about 600 MB); None for all."""
    if len(task.queries) * len(task.gallery) <= lines:
        return None
    return max(100, lines // len(task.queries))


def write_run(
    path: Path, task: Task, scores: Scores, ids: Sequence[str], depth: int | None = None, tag: str = "mvretrieval"
) -> None:
    """Write the rankings of all queries.

    trec_eval goes by the score alone, and breaks ties by falling id. So that it sees our ranking, a score that is not below
    the one before it is written as the next smaller number of single precision.

    Args:
        path: of the file.
        task: who asks, and among whom.
        scores: see `ranking.Scores`.
        ids: N, of the objects.
        depth: items of each query; all by default.
        tag: name of the run.

    Raises:
        EvaluationError: the file cannot be written, or a score is not a number.
    """
    encoded = [_encoded(object_id) for object_id in ids]
    with _writing(path) as file:
        for ranked in rankings(task, scores):
            falling = _falling(ranked.scores[:, :depth])
            for query, items, values in zip(ranked.queries, ranked.items[:, :depth], falling, strict=True):
                file.writelines(
                    f"{encoded[query]} Q0 {encoded[item]} {rank} {value:.9g} {tag}\n"
                    for rank, (item, value) in enumerate(zip(items, values, strict=True), start=1)
                )


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Query -> item -> relevance; above zero is relevant.

    Raises:
        EvaluationError: the file cannot be read, or a line is something else.
    """
    found: dict[str, dict[str, int]] = {}
    for where, (query, _, item, judged) in _lines(path, 4, "query 0 item relevance"):
        _put(found, query, item, _number(int, judged, where), where)
    return found


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """Query -> item -> score. The ranks that the file states are not read, as in trec_eval.

    Raises:
        EvaluationError: the file cannot be read, or a line is something else.
    """
    found: dict[str, dict[str, float]] = {}
    for where, (query, _, item, _, score, _) in _lines(path, 6, "query Q0 item rank score tag"):
        value = _number(float, score, where)
        if np.isnan(value):
            raise EvaluationError(f"{where}: the score is not a number")
        _put(found, query, item, value, where)
    return found


def evaluate_run(qrels: Qrels, run: Run, measure: Measure | None = None) -> Evaluation:
    """Measure a run without the collection that it came from. Equal scores are ranked by id.

    A query that the run does not answer counts as one that found nothing (as in `trec_eval -c`); one that has no relevant
    item is skipped; a query of the run that is not judged is left out.

    Args:
        qrels: query -> item -> relevance.
        run: query -> item -> score.
        measure: family of metrics; the textbook's by default.

    Returns:
        Values in the order of `qrels`, where `queries` counts.
    """
    relevant_of = {query: {item for item, judged in items.items() if judged > 0} for query, items in qrels.items()}
    queries = [(i, query) for i, (query, items) in enumerate(relevant_of.items()) if items]
    depth = max([len(run.get(query, ())) for _, query in queries], default=0)
    relevant = np.zeros((len(queries), max(depth, 1)), np.bool_)
    for row, (_, query) in enumerate(queries):
        answered = run.get(query, {})
        ranking = sorted(answered, key=lambda item: (-answered[item], item))
        relevant[row, : len(ranking)] = [item in relevant_of[query] for item in ranking]
    n_relevant = np.array([len(relevant_of[query]) for _, query in queries], np.int64)
    return Evaluation(
        np.array([i for i, _ in queries], np.int64),
        (measure or ranked_metrics)(relevant, n_relevant),
        len(qrels) - len(queries),
        tuple(query for _, query in queries),
    )


def _falling(scores: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Scores (b, n), each row not rising, as strictly falling numbers of single precision."""
    rows = scores.clip(-3e38, 3e38).astype(np.float32)  # there is nothing below -inf
    for rank in range(1, rows.shape[1]):
        rows[:, rank] = np.minimum(rows[:, rank], np.nextafter(rows[:, rank - 1], np.float32(-np.inf)))
    return rows


def _encoded(object_id: str) -> str:
    return quote(object_id, safe=_READABLE)


def _writing(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise EvaluationError(f"{path} cannot be written: {error.strerror}; name another folder") from error


def _lines(path: Path, columns: int, shape: str) -> Iterator[tuple[str, list[str]]]:
    """Where each line is, and its columns."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                cells = line.split()
                if not cells:
                    continue
                if len(cells) != columns:
                    raise EvaluationError(f"{path}, line {number}: {len(cells)} columns; TREC has {columns}: {shape}")
                yield f"{path}, line {number}", cells
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError(f"{path} cannot be read: {error}") from error


def _number(kind: type[_Number], text: str, where: str) -> _Number:
    try:
        return kind(text)
    except ValueError:
        raise EvaluationError(f"{where}: '{text}' is no {'whole ' if kind is int else ''}number") from None


def _put(found: dict[str, dict[str, _Number]], query: str, item: str, value: _Number, where: str) -> None:
    items = found.setdefault(unquote(query), {})
    if unquote(item) in items:
        raise EvaluationError(
            f"{where}: item '{unquote(item)}' stands twice for query '{unquote(query)}'; keep one line"
        )
    items[unquote(item)] = value
