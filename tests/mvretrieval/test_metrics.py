"""Metrics against pytrec_eval, and against naive implementations for one ranking."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import pytrec_eval
from error_codes import raises_code
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st
from made_meshes import unit
from numpy.typing import NDArray

from mvretrieval.errors import EvaluationError, ShapeError
from mvretrieval.evaluation.metrics import evaluate, leave_one_out, ndcg_at, ranked_metrics, recall_at
from mvretrieval.evaluation.protocols import leave_one_out_task
from mvretrieval.evaluation.ranking import cosines, precomputed


def _collection(seed: int, n: int = 60, classes: int = 5) -> tuple[NDArray[np.float32], list[Any]]:
    rng = np.random.default_rng(seed)
    labels: list[Any] = [f"class {c}" for c in rng.integers(classes, size=n)]
    labels[0], labels[1], labels[2] = None, "alone", None
    return unit(
        rng.standard_normal((n, 8)) + 0.6 * rng.standard_normal((classes + 1, 8))[rng.integers(classes, size=n)]
    ), labels


def _runs(
    vectors: NDArray[np.float32], labels: list[Any]
) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]:
    """Qrels and run for pytrec_eval; scores are ranks, because it breaks ties differently."""
    qrel: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    scores = vectors @ vectors.T
    for q, label in enumerate(labels):
        others = [i for i in range(len(labels)) if i != q]
        if label is None or not any(labels[i] == label for i in others):
            continue
        qrel[f"{q}"] = {f"{i}": int(labels[i] == label) for i in others}
        ranked = sorted(others, key=lambda i: (-scores[q, i], i))
        run[f"{q}"] = {f"{i}": float(len(ranked) - rank) for rank, i in enumerate(ranked)}
    return qrel, run


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_pytrec_eval(seed: int) -> None:
    vectors, labels = _collection(seed)
    evaluation = leave_one_out(vectors, labels, block=7)
    qrel, run = _runs(vectors, labels)
    oracle = pytrec_eval.RelevanceEvaluator(qrel, {"map", "P_1", "ndcg_cut_10", "recall_10", "recall_5"}).evaluate(run)
    assert [f"{q}" for q in evaluation.queries] == list(qrel)
    for i, q in enumerate(evaluation.queries):
        assert evaluation.values["mAP"][i] == pytest.approx(oracle[f"{q}"]["map"], abs=1e-6)
        assert evaluation.values["NN"][i] == oracle[f"{q}"]["P_1"]
    ranked = [sorted(run[q], key=lambda i, q=q: -run[q][i]) for q in qrel]  # type: ignore[misc]
    relevant = np.array([[bool(qrel[q][i]) for i in order] for q, order in zip(qrel, ranked, strict=True)])
    for k in (5, 10):
        expected = [oracle[q][f"recall_{k}"] for q in qrel]
        np.testing.assert_allclose(recall_at(k, relevant, relevant.sum(axis=1)), expected, atol=1e-6)
    expected = [oracle[q]["ndcg_cut_10"] for q in qrel]
    np.testing.assert_allclose(ndcg_at(10, relevant, relevant.sum(axis=1)), expected, atol=1e-6)


def _naive(relevant: list[bool]) -> dict[str, float]:
    """Metrics of one ranking by their definitions."""
    r = sum(relevant)
    precision_sum = found = 0.0
    for rank, hit in enumerate(relevant, start=1):
        if hit:
            found += 1
            precision_sum += found / rank
    gain = [1.0 if rank == 1 else 1 / math.log2(rank) for rank in range(1, len(relevant) + 1)]
    return {
        "NN": float(relevant[0]),
        "FT": sum(relevant[:r]) / r,
        "ST": sum(relevant[: 2 * r]) / r,
        "DCG": sum(g for g, hit in zip(gain, relevant, strict=True) if hit) / sum(gain[:r]),
        "mAP": precision_sum / r,
        "NDCG@100": _naive_dcg(relevant[:100]) / _naive_dcg([True] * min(r, 100)),
        "recall@10": sum(relevant[:10]) / r,
        "recall@100": sum(relevant[:100]) / r,
    }


def _naive_dcg(relevant: list[bool]) -> float:
    return sum(1 / math.log2(rank + 1) for rank, hit in enumerate(relevant, start=1) if hit)


@settings(max_examples=150)
@over(st.lists(st.booleans(), min_size=1, max_size=130).filter(any))
def test_agrees_with_the_definitions(ranking: list[bool]) -> None:
    relevant = np.array([ranking])
    count = relevant.sum(axis=1)
    found = {name: float(values[0]) for name, values in ranked_metrics(relevant, count).items()}
    assert found == pytest.approx(_naive(ranking))
    assert all(0 <= value <= 1 + 1e-12 for value in found.values())
    assert recall_at(130, relevant, count)[0] == 1


def test_a_perfect_ranking_is_one_everywhere() -> None:
    vectors = unit(np.repeat(np.eye(4), 3, axis=0) + 1e-3 * np.random.default_rng(0).standard_normal((12, 4)))
    means = leave_one_out(vectors, [i // 3 for i in range(12)]).means()
    assert {"NN", "FT", "ST", "DCG", "mAP", "NDCG@100", "recall@10", "recall@100"} == means.keys()
    assert list(means.values()) == pytest.approx([1] * len(means))


def test_a_query_is_not_in_its_own_ranking() -> None:
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    evaluation = leave_one_out(vectors, ["a", "b", "a"])
    # Object 2 is nearer to 1 than to 0, and 0 nearer to 2 than to 1: the query itself is excluded.
    assert evaluation.values["NN"].tolist() == [1.0, 0.0]


def test_ties_are_broken_by_position() -> None:
    vectors = np.ones((6, 1), np.float32)
    labels = ["x", "y", "y", "x", "y", "y"]
    evaluation = leave_one_out(vectors, labels)
    assert evaluation.values["NN"][0] == 0  # 1 comes first for 0
    assert evaluation.values["NN"][3] == 1  # 0 comes first for 3
    again = leave_one_out(vectors, labels, block=1)
    assert all(np.array_equal(evaluation.values[name], again.values[name]) for name in evaluation.values)


def test_unlabeled_objects_stay_in_the_gallery_and_single_objects_are_skipped() -> None:
    vectors = unit(np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1]], float))
    evaluation = leave_one_out(vectors, ["a", None, "a", "alone"])
    assert evaluation.queries.tolist() == [0, 2] and evaluation.skipped == 1
    assert evaluation.values["NN"].tolist() == [0, 0]
    assert evaluation.values["mAP"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("labels", [[], [None, None], ["a", "b"]])
def test_without_queries_means_are_nan(labels: list[Any]) -> None:
    evaluation = leave_one_out(np.ones((len(labels), 2), np.float32), labels)
    assert len(evaluation.queries) == 0
    assert all(math.isnan(value) for value in evaluation.means().values())


def test_labels_and_vectors_must_match_in_number() -> None:
    with raises_code(ShapeError, "bad_shape", "3 vectors", "2 labels"):
        leave_one_out(np.ones((3, 2), np.float32), ["a", "b"])


def test_ties_are_broken_by_id_if_ids_are_given() -> None:
    labels = ["x", "y", "y", "x", "y", "y"]
    task = leave_one_out_task(labels, ["e", "f", "g", "h", "c", "d"])
    evaluation = evaluate(task, cosines(np.ones((6, 1), np.float32)), ids="efghcd")
    # In order of id: y (4), y (5), x (0), y (1), y (2), x (3).
    assert evaluation.ids == tuple("efghcd")
    assert dict(zip(evaluation.ids, evaluation.values["NN"], strict=True)) == dict(
        zip("efghcd", [0, 1, 1, 0, 1, 1], strict=True)
    )
    assert evaluation.values["mAP"][0] == pytest.approx(1 / 5)


def test_the_order_of_the_objects_does_not_matter_if_ids_are_given() -> None:
    vectors, labels = _collection(3)
    vectors[20:40] = vectors[40:]  # ties
    ids = [f"object {i * 7 % 60}" for i in range(60)]
    base = evaluate(leave_one_out_task(labels, ids), cosines(vectors), ids=ids)
    moved = np.random.default_rng(0).permutation(60)
    ids_moved, labels_moved = [ids[i] for i in moved], [labels[i] for i in moved]
    again = evaluate(leave_one_out_task(labels_moved, ids_moved), cosines(vectors[moved]), ids=ids_moved)
    assert base.ids is not None and again.ids is not None
    assert dict(zip(base.ids, base.values["mAP"], strict=True)) == dict(
        zip(again.ids, again.values["mAP"], strict=True)
    )


@pytest.mark.parametrize(("n", "dim"), [(61, 1280), (905, 256), (300, 512)])
def test_equal_vectors_have_equal_scores(n: int, dim: int) -> None:
    # In single precision, matrix products of these shapes differ in the last digit from column to column.
    rng = np.random.default_rng(0)
    vectors = unit(rng.standard_normal((n, dim)))
    vectors[: n // 3] = vectors[-(n // 3) :]
    everything = np.arange(n)
    for block in (1, 7, n):
        scores = np.concatenate([cosines(vectors)(everything[i : i + block], everything) for i in range(0, n, block)])
        assert np.array_equal(scores[:, : n // 3], scores[:, -(n // 3) :])


def test_scores_from_a_matrix_or_a_function() -> None:
    vectors, labels = _collection(4)
    task = leave_one_out_task(labels)
    from_vectors = leave_one_out(vectors, labels)
    matrix = (vectors.astype(float) @ vectors.T.astype(float)).round(9)
    for scores in (precomputed(matrix), lambda queries, gallery: np.stack([matrix[q, gallery] for q in queries])):
        found = evaluate(task, scores, block=9)
        assert all(np.array_equal(found.values[name], from_vectors.values[name]) for name in found.values)
    # A query's own score is ignored, whether lowest or highest.
    for own in (-np.inf, np.inf):
        np.fill_diagonal(matrix, own)
        assert np.array_equal(evaluate(task, precomputed(matrix)).values["mAP"], from_vectors.values["mAP"])


def test_invalid_scores_are_refused() -> None:
    task = leave_one_out_task(["a", "a", "b"])
    with raises_code(EvaluationError, "nan_scores", "object 1"):
        evaluate(task, precomputed(np.array([[0, 0, 0], [0, np.nan, np.nan], [0, 0, 0]])))
    with raises_code(ShapeError, "bad_shape"):
        evaluate(task, lambda queries, gallery: np.zeros((len(queries), 2)))
