"""Transductive re-ranking against naive implementations of the definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from error_codes import raises_code
from made_meshes import unit
from numpy.typing import NDArray

from mvretrieval.errors import EvaluationError, ShapeError
from mvretrieval.evaluation import transductive as module
from mvretrieval.evaluation.metrics import evaluate
from mvretrieval.evaluation.protocols import leave_one_out_task
from mvretrieval.evaluation.ranking import cosines, precomputed
from mvretrieval.evaluation.transductive import Method, k_reciprocal, propagation, transductive

Matrix = NDArray[Any]


def _similarity(seed: int, n: int = 26) -> Matrix:
    vectors = unit(np.random.default_rng(seed).standard_normal((n, 5)))
    vectors[-3:] = vectors[:3]  # the same object twice
    everything = np.arange(n)
    return np.asarray(cosines(vectors)(everything, everything))


def _nearest(similarity: Matrix, p: int, k: int) -> list[int]:
    others = [g for g in range(len(similarity)) if g != p]
    return [p, *sorted(others, key=lambda g: (-similarity[p, g], g))[:k]]


def _naive_k_reciprocal(similarity: Matrix, k1: int, k2: int, weight: float) -> Matrix:
    n = len(similarity)

    def reciprocal(p: int, k: int) -> set[int]:
        return {g for g in _nearest(similarity, p, k) if p in _nearest(similarity, g, k)}

    encodings = []
    for p in range(n):
        base = reciprocal(p, k1)
        expanded = set(base)
        for q in base:
            small = reciprocal(q, round(k1 / 2))
            if len(small & base) >= 2 / 3 * len(small) - 1e-9:
                expanded |= small
        encodings.append([math.exp(similarity[p, g] - 1) if g in expanded else 0.0 for g in range(n)])
    averaged = [np.mean([encodings[g] for g in _nearest(similarity, p, k2 - 1)], axis=0) for p in range(n)]
    distance = np.zeros((n, n))
    for p in range(n):
        for g in range(n):
            jaccard = 1 - np.minimum(averaged[p], averaged[g]).sum() / np.maximum(averaged[p], averaged[g]).sum()
            distance[p, g] = (1 - weight) * jaccard + weight * (1 - similarity[p, g])
    return -distance


@pytest.mark.parametrize(("k1", "k2", "weight"), [(6, 3, 0.3), (5, 1, 0.0), (40, 6, 0.5), (20, 6, 1.0)])
def test_k_reciprocal_agrees_with_its_definition(k1: int, k2: int, weight: float) -> None:
    similarity = _similarity(0)
    expected = _naive_k_reciprocal(similarity, k1, k2, weight)
    np.testing.assert_allclose(k_reciprocal(similarity, k1, k2, weight), expected, atol=1e-5)


def _naive_propagation(similarity: Matrix, k: int, alpha: float, steps: int) -> Matrix:
    """The two steps, iterated."""
    n = len(similarity)
    w = np.eye(n)
    for i in range(n):
        for j in range(n):
            if i != j and j in _nearest(similarity, i, k) and i in _nearest(similarity, j, k):
                w[i, j] = max(similarity[i, j], 0.0) ** 3
    s = np.array([[w[i, j] / math.sqrt(w[i].sum() * w[j].sum()) for j in range(n)] for i in range(n)])
    a = np.eye(n)
    for _ in range(steps):
        b = s @ a
        a = alpha * b @ s.T + (1 - alpha) * np.eye(n)
    return a


@pytest.mark.parametrize(("k", "alpha"), [(4, 0.9), (1, 0.5), (30, 0.8)])
def test_propagation_is_the_limit_of_the_iteration(k: int, alpha: float) -> None:
    similarity = _similarity(1)
    similarity[5], similarity[:, 5] = 0, 0  # a zero vector
    expected = _naive_propagation(similarity, k, alpha, 300)
    found = propagation(similarity, k, alpha)
    joined = expected > 0
    np.testing.assert_allclose(found[joined], expected[joined], atol=1e-9)
    np.testing.assert_allclose(found[~joined], similarity[~joined] - 2)


@pytest.mark.parametrize("method", ["k-reciprocal", "propagation"])
def test_the_order_of_the_objects_does_not_matter(method: Method) -> None:
    similarity = _similarity(2)[:23, :23]  # without ties, which are broken by order
    moved = np.random.default_rng(0).permutation(23)
    np.testing.assert_allclose(
        transductive(method, similarity[np.ix_(moved, moved)]),
        transductive(method, similarity)[np.ix_(moved, moved)],
        atol=1e-5,
    )


@pytest.mark.parametrize("method", ["k-reciprocal", "propagation"])
def test_chains_are_followed(method: Method) -> None:
    """Two classes on two arcs: the ends of an arc are nearer to the other class than to each other."""
    rng = np.random.default_rng(3)
    angle = np.tile(np.linspace(0, 2.6, 60), 2)
    height = np.repeat([-0.35, 0.35], 60)
    vectors = unit(np.stack([np.cos(angle), np.sin(angle), height], axis=1) + 0.02 * rng.standard_normal((120, 3)))
    task = leave_one_out_task([0] * 60 + [1] * 60)
    before = evaluate(task, cosines(vectors)).means()["mAP"]
    after = evaluate(task, precomputed(transductive(method, vectors @ vectors.T))).means()["mAP"]
    assert after > before + 0.05


@pytest.mark.parametrize("method", ["k-reciprocal", "propagation"])
def test_few_objects_and_many(method: Method, monkeypatch: pytest.MonkeyPatch) -> None:
    assert transductive(method, np.zeros((0, 0))).shape == (0, 0)
    assert np.isfinite(transductive(method, np.ones((1, 1)))).all()
    assert np.isfinite(transductive(method, np.ones((4, 4)))).all()
    monkeypatch.setattr(module, "MAX_OBJECTS", 3)
    with raises_code(EvaluationError, "too_many_objects", "4 objects"):
        transductive(method, np.eye(4))
    with raises_code(ShapeError, "bad_shape", "(2, 3)"):
        transductive(method, np.ones((2, 3)))
