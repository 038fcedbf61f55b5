"""Benchmarks of the group `protocol`: the metrics of the open-set benchmarks on the split of OS-ESB-core.

Values are percent, with the metric definitions of these benchmarks; not comparable with results of other groups.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import data
from benchmarks.benchmark import Benchmark
from mvretrieval.evaluation.metrics import evaluate
from mvretrieval.evaluation.os3dor import os3dor_measure
from mvretrieval.evaluation.protocols import OpenSetQueries, Task, open_set_task
from mvretrieval.evaluation.ranking import ScoreFunction, cosines, precomputed
from mvretrieval.evaluation.transductive import Method, transductive

# Scores of a random ranking in percent; standard deviations of one draw: 0.21, 0.20 and 0.41.
BY_CHANCE = {"mAP": 6.05, "NDCG@100": 4.20, "ANMRR": 95.8}
PERFECT_NDCG = 30.94


@cache
def _esb() -> tuple[Task, dict[str, NDArray[Any]]]:
    """Queries and targets of the split, and their columns in the file."""
    with np.load(data.shared() / "os_esb_core.npz") as file:
        chosen = file["query"] | file["target"]
        columns = {name: file[name][chosen] for name in file}
    queries = OpenSetQueries(tuple(columns["names"][columns["query"]].tolist()))
    return open_set_task(columns["label"].tolist(), columns["names"].tolist(), queries), columns


def _percent(scores: ScoreFunction) -> dict[str, float]:
    task, _ = _esb()
    return {name: 100 * mean for name, mean in evaluate(task, scores, os3dor_measure(task.n_relevant)).means().items()}


def perfect() -> dict[str, float]:
    """All relevant items first."""
    task, _ = _esb()
    values = _percent(precomputed((task.class_ids[:, None] == task.class_ids).astype(np.float64)))
    return values | {"off by": abs(values["NDCG@100"] - PERFECT_NDCG)}


def by_chance() -> dict[str, float]:
    """Mean over 100 random rankings."""
    n = len(_esb()[0].class_ids)
    draws = [_percent(precomputed(np.random.default_rng(seed).random((n, n)))) for seed in range(100)]
    values = {name: float(np.mean([draw[name] for draw in draws])) for name in BY_CHANCE}
    return values | {"off by": max(abs(values[name] - expected) for name, expected in BY_CHANCE.items())}


def _features(name: str) -> NDArray[np.float32]:
    features = _esb()[1][name].astype(np.float32)
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True), np.float32)


def resnet18() -> dict[str, float]:
    """Mean of ResNet18 features over 12 views, as distributed with the benchmark."""
    return _percent(cosines(_features("mv12_resnet18")))


def pointnet() -> dict[str, float]:
    """PointNet's feature of 1024 points, as distributed with the benchmark."""
    return _percent(cosines(_features("pt1024_pointnet")))


def _reranked(method: Method) -> dict[str, float]:
    """ResNet18 features, re-ranked as a whole batch."""
    vectors = _features("mv12_resnet18")
    print(f"  transductive ({method}): not comparable with rows that process one query at a time", file=sys.stderr)
    return _percent(precomputed(transductive(method, vectors @ vectors.T)))


BENCHMARKS = (
    Benchmark(
        "esb-perfect", "protocol", "perfect ranking of OS-ESB-core: NDCG against 30.94 percent", {"off by": 0.005},
        perfect, at_most=True,
    ),
    Benchmark(
        "esb-chance", "protocol", "random ranking: mAP, NDCG, ANMRR against 6.05, 4.20, 95.8 percent", {"off by": 0.15},
        by_chance, at_most=True,
    ),
    Benchmark("esb-resnet18", "protocol", "12-view ResNet18 features of the benchmark", {}, resnet18),
    Benchmark("esb-pointnet", "protocol", "PointNet features of the benchmark", {}, pointnet),
    Benchmark(
        "esb-k-reciprocal", "protocol", "transductive: ResNet18 features, k-reciprocal", {}, lambda: _reranked("k-reciprocal")
    ),
    Benchmark(
        "esb-propagation", "protocol", "transductive: ResNet18 features, propagation", {}, lambda: _reranked("propagation")
    ),
)  # fmt: skip
