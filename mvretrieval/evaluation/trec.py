"""TREC qrels and run files, for exchange with other evaluation programs.

A line of qrels is `query 0 item relevance`, a line of a run is `query Q0 item rank score tag`. Columns are separated by white
space, so white space, `%` and non-ASCII characters in ids are percent-encoded.
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
from mvretrieval.evaluation.ranking import ScoreFunction, rankings

Qrels = Mapping[str, Mapping[str, int]]
Run = Mapping[str, Mapping[str, float]]

_Number = TypeVar("_Number", int, float)
_NOT_ENCODED = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}~"  # printable ASCII except `%`; `quote` keeps letters, digits and `_.-~`


def qrels_of(task: Task, ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return query -> relevant items, each with judgment 1. Unjudged items are not relevant."""
    qrels = {}
    for query in task.queries:
        same_class = task.gallery[task.class_ids[task.gallery] == task.class_ids[query]]
        qrels[ids[query]] = {ids[item]: 1 for item in same_class if item != query}
    return qrels


def write_qrels(path: Path, task: Task, ids: Sequence[str]) -> None:
    """Write the relevant items of every query.

    Args:
        path: path of the file.
        task: queries, gallery and relevance.
        ids: N ids of the objects.

    Raises:
        EvaluationError: the file cannot be written.
    """
    with _writing(path) as file:
        for query, items in qrels_of(task, ids).items():
            file.writelines(f"{_encoded(query)} 0 {_encoded(item)} {judgment}\n" for item, judgment in items.items())


def affordable_depth(task: Task, lines: int = 10_000_000) -> int | None:
    """Return the depth that limits a run file to this many lines (ten million are about 600 MB); None for no limit."""
    if len(task.queries) * len(task.gallery) <= lines:
        return None
    return max(100, lines // len(task.queries))


def write_run(
    path: Path,
    task: Task,
    scores: ScoreFunction,
    ids: Sequence[str],
    depth: int | None = None,
    tag: str = "mvretrieval",
) -> None:
    """Write the rankings of all queries.

    trec_eval sorts by score and breaks ties by descending id. To keep our ranking, a tied score is written as the next
    smaller single-precision number.

    Args:
        path: path of the file.
        task: queries and gallery.
        scores: see `ranking.ScoreFunction`.
        ids: N ids of the objects.
        depth: items per query; all by default.
        tag: name of the run.

    Raises:
        EvaluationError: the file cannot be written, or a score is NaN.
    """
    encoded = [_encoded(object_id) for object_id in ids]
    with _writing(path) as file:
        for ranked in rankings(task, scores):
            descending = _strictly_descending(ranked.scores[:, :depth])
            for query, items, values in zip(ranked.queries, ranked.items[:, :depth], descending, strict=True):
                file.writelines(
                    f"{encoded[query]} Q0 {encoded[item]} {rank} {value:.9g} {tag}\n"
                    for rank, (item, value) in enumerate(zip(items, values, strict=True), start=1)
                )


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read query -> item -> relevance; relevant is above zero.

    Raises:
        EvaluationError: the file cannot be read, or a line is malformed.
    """
    qrels: dict[str, dict[str, int]] = {}
    for where, (query, _, item, judgment) in _lines(path, 4, "query 0 item relevance"):
        _put(qrels, query, item, _number(int, judgment, where), where)
    return qrels


def read_run(path: Path) -> dict[str, dict[str, float]]:
    """Read query -> item -> score. The rank column is ignored, as in trec_eval.

    Raises:
        EvaluationError: the file cannot be read, or a line is malformed.
    """
    run: dict[str, dict[str, float]] = {}
    for where, (query, _, item, _, score, _) in _lines(path, 6, "query Q0 item rank score tag"):
        value = _number(float, score, where)
        if np.isnan(value):
            raise EvaluationError(f"{where}: the score is NaN", code="bad_trec_file")
        _put(run, query, item, value, where)
    return run


def evaluate_run(qrels: Qrels, run: Run, measure: Measure | None = None) -> Evaluation:
    """Evaluate a run without its collection. Ties are broken by id.

    A query that is missing from the run has no hits (as in `trec_eval -c`); a query without relevant items is skipped; a
    query of the run without judgments is ignored.

    Args:
        qrels: query -> item -> relevance.
        run: query -> item -> score.
        measure: family of metrics; the textbook's by default.

    Returns:
        Values in the order of `qrels`; `queries` are positions in it.
    """
    relevant_of = {query: {item for item, judgment in items.items() if judgment > 0} for query, items in qrels.items()}
    queries = [(i, query) for i, (query, items) in enumerate(relevant_of.items()) if items]
    depth = max([len(run.get(query, ())) for _, query in queries], default=0)
    relevant = np.zeros((len(queries), max(depth, 1)), np.bool_)
    for row, (_, query) in enumerate(queries):
        scores = run.get(query, {})
        ranking = sorted(scores, key=lambda item, scores=scores: (-scores[item], item))  # type: ignore[misc]
        relevant[row, : len(ranking)] = [item in relevant_of[query] for item in ranking]
    n_relevant = np.array([len(relevant_of[query]) for _, query in queries], np.int64)
    return Evaluation(
        np.array([i for i, _ in queries], np.int64),
        (measure or ranked_metrics)(relevant, n_relevant),
        len(qrels) - len(queries),
        tuple(query for _, query in queries),
    )


def _strictly_descending(scores: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Descending rows (b, n) as strictly descending single-precision numbers."""
    rows = scores.clip(-3e38, 3e38).astype(np.float32)  # no number is below -inf
    for rank in range(1, rows.shape[1]):
        rows[:, rank] = np.minimum(rows[:, rank], np.nextafter(rows[:, rank - 1], np.float32(-np.inf)))
    return rows


def _encoded(object_id: str) -> str:
    return quote(object_id, safe=_NOT_ENCODED)


def _writing(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise EvaluationError(
            f"{path} cannot be written: {error.strerror}; choose another folder", code="not_writable"
        ) from error


def _lines(path: Path, columns: int, shape: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the position of each line, for messages, and its columns."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                cells = line.split()
                if not cells:
                    continue
                if len(cells) != columns:
                    raise EvaluationError(
                        f"{path}, line {number}: {len(cells)} columns; TREC has {columns}: {shape}",
                        code="bad_trec_file",
                    )
                yield f"{path}, line {number}", cells
    except UnicodeDecodeError as error:
        raise EvaluationError(
            f"{path} is not a text: give a collection or a TREC run file", code="unreadable"
        ) from error
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read ({error.strerror}): check the path", code="unreadable") from error


def _number(kind: type[_Number], text: str, where: str) -> _Number:
    try:
        return kind(text)
    except ValueError:
        wanted = "an integer" if kind is int else "a number"
        raise EvaluationError(f"{where}: '{text}' is not {wanted}", code="bad_trec_file") from None


def _put(found: dict[str, dict[str, _Number]], query: str, item: str, value: _Number, where: str) -> None:
    items = found.setdefault(unquote(query), {})
    if unquote(item) in items:
        raise EvaluationError(
            f"{where}: duplicate item '{unquote(item)}' of query '{unquote(query)}'; keep one line",
            code="bad_trec_file",
        )
    items[unquote(item)] = value
