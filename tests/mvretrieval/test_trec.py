"""TREC files: pytrec_eval computes the same metrics from them, and any id round-trips."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytrec_eval
from error_codes import raises_code
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st
from made_meshes import unit

from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.metrics import Evaluation, evaluate
from mvretrieval.evaluation.os3dor import os3dor_measure
from mvretrieval.evaluation.protocols import Task, draw_queries, leave_one_out_task, open_set_task
from mvretrieval.evaluation.ranking import ScoreFunction, cosines, precomputed
from mvretrieval.evaluation.trec import (
    affordable_depth,
    evaluate_run,
    qrels_of,
    read_qrels,
    read_run,
    write_qrels,
    write_run,
)

IDS = [f"my things/{i * 7 % 90} 100%\t{'é' * (i % 3)}.glb" for i in range(90)]


def _case(seed: int, protocol: str) -> tuple[Task, ScoreFunction]:
    """Ninety objects of five classes, some without; every third shares its vector with another."""
    rng = np.random.default_rng(seed)
    labels: list[Any] = [f"class {c}" for c in rng.integers(5, size=90)]
    labels[0], labels[1] = None, "alone"
    vectors = unit(rng.standard_normal((90, 6)) + rng.standard_normal((5, 6))[rng.integers(5, size=90)])
    vectors[60:] = vectors[:30]
    if protocol == "leave-one-out":
        return leave_one_out_task(labels, IDS), cosines(vectors)
    return open_set_task(labels, IDS, draw_queries(labels, IDS, 5, seed)), cosines(vectors)


def _written(folder: Path, task: Task, scores: ScoreFunction, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    write_qrels(folder / "out" / "qrels.txt", task, IDS)
    write_run(folder / "out" / "run.txt", task, scores, IDS, **options)
    return read_qrels(folder / "out" / "qrels.txt"), read_run(folder / "out" / "run.txt")


def _same(one: Evaluation, two: Evaluation) -> bool:
    return one.ids == two.ids and all(np.array_equal(one.values[name], two.values[name]) for name in one.values)


@pytest.mark.parametrize("protocol", ["leave-one-out", "open-set"])
@pytest.mark.parametrize("seed", [0, 1])
def test_pytrec_eval_agrees_on_the_files(tmp_path: Path, protocol: str, seed: int) -> None:
    task, scores = _case(seed, protocol)
    ours = evaluate(task, scores, ids=IDS)
    qrels, run = _written(tmp_path, task, scores)
    assert ours.ids is not None and tuple(run) == tuple(qrels) == ours.ids
    oracle = pytrec_eval.RelevanceEvaluator(qrels, {"map", "P_1", "Rprec", "ndcg_cut_100", "recall_10", "recall_100"})
    theirs = oracle.evaluate(run)
    names = {"mAP": "map", "NN": "P_1", "FT": "Rprec", "NDCG@100": "ndcg_cut_100"}
    for name, their_name in (names | {"recall@10": "recall_10", "recall@100": "recall_100"}).items():
        np.testing.assert_allclose(ours.values[name], [theirs[query][their_name] for query in ours.ids], atol=1e-9)


@pytest.mark.parametrize("protocol", ["leave-one-out", "open-set"])
def test_the_files_alone_give_the_same_evaluation(tmp_path: Path, protocol: str) -> None:
    task, scores = _case(2, protocol)
    qrels, run = _written(tmp_path, task, scores)
    assert qrels == qrels_of(task, IDS)
    for measure in (None, os3dor_measure(task.n_relevant)):
        assert _same(evaluate(task, scores, measure, IDS), evaluate_run(qrels, run, measure))


@settings(max_examples=50)
@over(st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=8), st.floats(1e-12, 1e-6))
def test_a_run_keeps_the_order_of_any_scores(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], gap: float
) -> None:
    n = len(values)
    # Each score three times: two equal, one different by less than single precision resolves.
    row = np.concatenate([values, values, np.array(values, float) * (1 - gap)])
    task = leave_one_out_task(["x"] * 3 * n, IDS[: 3 * n])
    scores = precomputed(np.tile(row, (3 * n, 1)))
    path = tmp_path_factory.mktemp("trec") / "run.txt"
    write_run(path, task, scores, IDS)
    expected = sorted(range(1, 3 * n), key=lambda i: (-row[i], IDS[i]))
    run = read_run(path)[IDS[0]]
    assert sorted(run, key=lambda item: -run[item]) == [IDS[i] for i in expected]
    assert len({np.float32(score) for score in run.values()}) == len(run)


@settings(max_examples=60)
@over(st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=6, unique=True))
def test_any_id_round_trips(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    folder = tmp_path_factory.mktemp("trec")
    task = leave_one_out_task(["x"] * len(ids), ids)
    write_qrels(folder / "qrels.txt", task, ids)
    write_run(folder / "run.txt", task, precomputed(np.eye(len(ids))), ids)
    assert set(read_qrels(folder / "qrels.txt")) == set(ids)
    assert all(set(items) | {query} == set(ids) for query, items in read_run(folder / "run.txt").items())
    assert (folder / "run.txt").read_bytes().isascii()


def test_a_truncated_run(tmp_path: Path) -> None:
    task, scores = _case(3, "open-set")
    qrels, run = _written(tmp_path, task, scores, depth=10)
    assert {len(items) for items in run.values()} == {10}
    whole, cut = evaluate(task, scores, ids=IDS), evaluate_run(qrels, run)
    assert np.array_equal(whole.values["recall@10"], cut.values["recall@10"])
    assert np.array_equal(cut.values["recall@100"], cut.values["recall@10"])
    lines = len(task.queries) * len(task.gallery)
    assert affordable_depth(task, lines) is None
    assert affordable_depth(leave_one_out_task("x" * 300), 300 * 200) == 200
    assert affordable_depth(leave_one_out_task("x" * 300), 300) == 100
    assert (cut.values["mAP"] <= whole.values["mAP"]).all() and cut.means()["mAP"] < whole.means()["mAP"]


def test_queries_missing_from_a_run_have_no_hits() -> None:
    qrels = {"1": {"a": 1, "b": 1}, "2": {"a": 1}, "3": {"a": 0}, "4": {}}
    run = {"1": {"a": 0.5, "x": 0.5}, "3": {"a": 1.0}, "not judged": {"a": 1.0}}
    evaluation = evaluate_run(qrels, run)
    # "a" ranks before "x", which has the same score, by id and not by position.
    assert evaluate_run(qrels, {"1": dict(reversed(run["1"].items()))}).values["NN"].tolist() == [1, 0]
    assert evaluation.ids == ("1", "2") and evaluation.queries.tolist() == [0, 1] and evaluation.skipped == 2
    assert evaluation.values["mAP"].tolist() == [0.5, 0] and evaluation.values["NN"].tolist() == [1, 0]
    nothing = evaluate_run({}, {})
    assert len(nothing.queries) == 0 and nothing.values.keys() == evaluation.values.keys()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("q 0 item", ("line 1", "3 columns")),
        ("\nq Q0 i 1 high tag", ("line 2", "'high'")),
        ("q Q0 i 1 nan tag", ("line 1", "NaN")),
        ("q Q0 a%20b 1 0.5 tag\nq Q0 a%20b 2 0.4 tag", ("line 2", "duplicate item 'a b'")),
    ],
)
def test_a_malformed_run_is_refused(tmp_path: Path, content: str, named: tuple[str, str]) -> None:
    (tmp_path / "run.txt").write_text(content)
    with raises_code(EvaluationError, "bad_trec_file", *named):
        read_run(tmp_path / "run.txt")


def test_malformed_qrels_and_paths(tmp_path: Path) -> None:
    (tmp_path / "qrels.txt").write_text("q 0 i 0.5")
    with raises_code(EvaluationError, "bad_trec_file", "'0.5'"):
        read_qrels(tmp_path / "qrels.txt")
    (tmp_path / "qrels.txt").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "qrels.txt", tmp_path / "nowhere"):
        with raises_code(EvaluationError, "unreadable"):
            read_qrels(path)
    task, _ = _case(0, "leave-one-out")
    with raises_code(EvaluationError, "not_writable"):
        write_qrels(Path("/dev/null/qrels.txt"), task, IDS)
