"""Our metrics against pytrec_eval, and against twins that walk one ranking at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from made_meshes import unit
from numpy.typing import NDArray

from mvretrieval.errors import ShapeError
from mvretrieval.evaluation.metrics import leave_one_out, ndcg_at, ranked_metrics, recall_at


def _collection(seed: int, n: int = 60, classes: int = 5) -> tuple[NDArray[np.float32], list[Any]]:
    rng = np.random.default_rng(seed)
    labels: list[Any] = [f"class {c}" for c in rng.integers(classes, size=n)]
    labels[0], labels[1], labels[2] = None, "alone", None
    return unit(rng.standard_normal((n, 8)) + 0.6 * rng.standard_normal((classes + 1, 8))[rng.integers(classes, size=n)]), labels


def _runs(vectors: NDArray[np.float32], labels: list[Any]) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]:
    """Judgements and rankings as pytrec_eval wants them; scores are ranks, as it breaks ties in its own way."""
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
    """One ranking, as the definitions say it."""
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
    }


@settings(max_examples=150, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=30).filter(any))
def test_agrees_with_the_definitions(ranking: list[bool]) -> None:
    relevant = np.array([ranking])
    count = relevant.sum(axis=1)
    found = {name: float(values[0]) for name, values in ranked_metrics(relevant, count).items()}
    assert found == pytest.approx(_naive(ranking))
    assert all(0 <= value <= 1 + 1e-12 for value in found.values())
    assert recall_at(100, relevant, count)[0] == 1


def test_a_perfect_ranking_is_one_everywhere() -> None:
    vectors = unit(np.repeat(np.eye(4), 3, axis=0) + 1e-3 * np.random.default_rng(0).standard_normal((12, 4)))
    means = leave_one_out(vectors, [i // 3 for i in range(12)]).means()
    assert means == pytest.approx({"NN": 1, "FT": 1, "ST": 1, "DCG": 1, "mAP": 1})


def test_a_query_is_not_in_its_own_ranking() -> None:
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    evaluation = leave_one_out(vectors, ["a", "b", "a"])
    # Object 2 is nearer to 1 than to 0, and 0 nearer to 2 than to 1: itself counts for none.
    assert evaluation.values["NN"].tolist() == [1.0, 0.0]


def test_equal_scores_are_ranked_by_position() -> None:
    vectors = np.ones((6, 1), np.float32)
    labels = ["x", "y", "y", "x", "y", "y"]
    evaluation = leave_one_out(vectors, labels)
    assert evaluation.values["NN"][0] == 0  # 1 comes first for 0
    assert evaluation.values["NN"][3] == 1  # 0 comes first for 3
    again = leave_one_out(vectors, labels, block=1)
    assert all(np.array_equal(evaluation.values[name], again.values[name]) for name in evaluation.values)


def test_objects_without_label_are_in_the_way_and_objects_alone_are_skipped() -> None:
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


def test_labels_must_be_as_many_as_vectors() -> None:
    with pytest.raises(ShapeError, match="3 vectors have 2 labels"):
        leave_one_out(np.ones((3, 2), np.float32), ["a", "b"])
