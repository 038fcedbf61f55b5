"""The open-set benchmarks' metrics against a naive implementation, and their check values on OS-ESB."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvretrieval.evaluation import ranking
from mvretrieval.evaluation.metrics import evaluate
from mvretrieval.evaluation.os3dor import os3dor_measure, os3dor_metrics
from mvretrieval.evaluation.protocols import OpenSetQueries, Task, open_set_task


def _naive(relevant: list[bool], max_relevant: int) -> dict[str, float]:
    """Metrics of one ranking by the benchmarks' definitions."""
    ng = sum(relevant)
    precisions, found = [], 0
    for rank, hit in enumerate(relevant, start=1):
        if hit:
            found += 1
            precisions.append(found / rank)
    interpolated = [max(precisions[i:]) for i in range(ng)]

    dcg = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(relevant[:100], start=1) if hit)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, 101))

    k = min(4 * ng, 2 * max_relevant)
    costs = [rank if relevant[rank - 1] else k + 1 for rank in range(1, ng + 1)]
    mean_rank = sum(costs) / ng
    return {
        "mAP": sum(interpolated) / ng,
        "NDCG@100": dcg / ideal,
        "ANMRR": (mean_rank - ng / 2 - 1 / 2) / (k - ng / 2 + 1 / 2),
    }


@settings(max_examples=150)
@given(st.integers(1, 140), st.data())
def test_agrees_with_the_definitions(length: int, data: st.DataObject) -> None:
    # One number per ranking, a bit per rank: quicker to draw than lists of booleans.
    numbers = data.draw(st.lists(st.integers(1, 2**length - 1), min_size=1, max_size=4))
    rankings = [[bool(number >> rank & 1) for rank in range(length)] for number in numbers]
    relevant = np.array(rankings)
    count = relevant.sum(axis=1)
    found = os3dor_measure(count)(relevant, count)
    for i, ranking_ in enumerate(rankings):
        assert {name: float(values[i]) for name, values in found.items()} == pytest.approx(_naive(ranking_, max(count)))
    assert all(((values >= 0) & (values <= 1 + 1e-12)).all() for values in found.values())


def test_perfect_and_worst() -> None:
    count = np.array([3, 1])
    perfect = os3dor_metrics(np.arange(8) < count[:, None], count, 3)
    assert perfect["mAP"].tolist() == [1, 1] and perfect["ANMRR"].tolist() == [0, 0]
    worst = os3dor_metrics(np.arange(8) >= 8 - count[:, None], count, 3)
    assert worst["ANMRR"].tolist() == [1, 1]
    # One relevant item where the ideal has a hundred, so even the perfect ranking has a low value.
    assert perfect["NDCG@100"][1] == pytest.approx(1 / sum(1 / math.log2(r + 1) for r in range(1, 101)))


def test_missing_items_of_a_truncated_ranking_are_not_relevant() -> None:
    count = np.array([4])
    whole = os3dor_metrics(np.array([[True, False] + [False] * 8]), count, 4)
    cut = os3dor_metrics(np.array([[True, False]]), count, 4)
    assert {name: values.tolist() for name, values in cut.items()} == {
        name: values.tolist() for name, values in whole.items()
    }


# -- OS-ESB-core -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def esb(shared_data: Path) -> tuple[Task, Any]:
    data = np.load(shared_data / "os_esb_core.npz")
    chosen = data["query"] | data["target"]
    queries = OpenSetQueries(tuple(data["names"][data["query"]].tolist()))
    return open_set_task(data["label"][chosen].tolist(), data["names"][chosen].tolist(), queries), data


@pytest.mark.shared_data
def test_the_published_split(esb: tuple[Task, Any]) -> None:
    task, data = esb
    assert (len(task.queries), len(task.gallery), task.skipped) == (120, 452, 0)
    label = data["label"]
    expected = [int((label[data["target"]] == one).sum()) for one in label[data["query"]]]
    assert sorted(task.n_relevant.tolist()) == sorted(expected)


@pytest.mark.shared_data
def test_check_values(esb: tuple[Task, Any]) -> None:
    task, _ = esb
    measure = os3dor_measure(task.n_relevant)
    same_class = (task.class_ids[:, None] == task.class_ids).astype(float)
    assert evaluate(task, ranking.precomputed(same_class), measure).means() == pytest.approx(
        {"mAP": 1, "NDCG@100": 0.3094, "ANMRR": 0}, abs=5e-5
    )
    by_chance = []
    for seed in range(40):
        scores = np.random.default_rng(seed).random(same_class.shape)
        by_chance.append(list(evaluate(task, ranking.precomputed(scores), measure).means().values()))
    # One draw's standard deviations: 0.0021, 0.0020, 0.0041.
    assert np.mean(by_chance, axis=0) == pytest.approx([0.0605, 0.0420, 0.958], abs=0.0015)
