"""Predictions, accuracies and generalized zero-shot accuracy, on arrays with kntargets results."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from error_codes import raises_code
from hypothesis import given, settings
from hypothesis import strategies as st

from mvretrieval.errors import EvaluationError, ShapeError
from mvretrieval.evaluation.zero_shot.accuracy import accuracy, predict
from mvretrieval.evaluation.zero_shot.generalized import generalized_accuracy, harmonic_mean, seen_unseen_area
from mvretrieval.evaluation.zero_shot.view_fusion import ViewFusion


def test_equal_scores_are_ranked_in_the_order_of_the_candidates() -> None:
    scores = np.array([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.1, 0.3, 0.3]])
    found = predict(scores, np.array([0, 2, 2]))
    assert found.rank.tolist() == [0, 2, 1] and found.predicted.tolist() == [0, 0, 1]
    with raises_code(EvaluationError, "nan_scores"):
        predict(np.array([[np.nan, 1.0]]), np.array([0]))


def test_accuracy_by_hand() -> None:
    names = ("a", "b", "c", "d", "e", "f")
    targets = np.array([0, 0, 0, 1, 2])
    scores = np.zeros((5, 6))
    scores[0, 0] = scores[1, 0] = scores[2, 1] = scores[3, 4] = scores[4, 5] = 1  # right, right, b, e, f
    found = accuracy(predict(scores, targets), targets, names)
    # Ties behind the first go by candidate: object 2 has a at rank 1, object 3 b at rank 2, object 4 c at rank 3.
    assert found.objects == 5 and found.top == pytest.approx({1: 0.4, 3: 0.8, 5: 1.0})
    assert found.class_mean == pytest.approx({1: 2 / 9, 3: 2 / 3, 5: 1.0})
    assert [(one.name, one.objects, one.top_confusion) for one in found.classes] == [
        ("a", 3, "b"),
        ("b", 1, "e"),
        ("c", 1, "f"),
    ]
    empty = accuracy(predict(np.zeros((0, 6)), np.zeros(0, int)), np.zeros(0, int), names)
    assert math.isnan(empty.top[1]) and empty.classes == ()


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.permutations(range(5)))
def test_the_order_of_classes_changes_nothing_but_ties(seed: int, order: list[int]) -> None:
    rng = np.random.default_rng(seed)
    scores, targets = rng.random((12, 5)), rng.integers(0, 5, 12)
    positions = np.argsort(order)
    assert predict(scores[:, order], positions[targets]).rank.tolist() == predict(scores, targets).rank.tolist()
    seen = rng.random(5) < 0.5
    one, other = (
        generalized_accuracy(scores, targets, seen, 0.2),
        generalized_accuracy(scores[:, order], positions[targets], seen[order], 0.2),
    )
    np.testing.assert_allclose(list(vars(other).values()), list(vars(one).values()), atol=1e-12)


def test_harmonic_mean() -> None:
    assert harmonic_mean(0.5, 0.5) == 0.5 and harmonic_mean(1, 1 / 3) == pytest.approx(0.5)
    assert harmonic_mean(0, 0) == 0 == harmonic_mean(0, 1) and math.isnan(harmonic_mean(math.nan, 1))


def test_a_bias_moves_objects_from_seen_to_unseen_classes() -> None:
    # Two seen classes (0, 1), two unseen (2, 3); everything looks a little like seen class 0.
    scores = np.array([[0.9, 0.1, 0.2, 0.0], [0.4, 0.8, 0.3, 0.1], [0.6, 0.1, 0.5, 0.2], [0.6, 0.0, 0.3, 0.4]])
    targets, seen = np.arange(4), np.array([True, True, False, False])
    found = generalized_accuracy(scores, targets, seen)
    assert (found.seen, found.unseen, found.harmonic) == (1, 0, 0)
    assert (found.seen_alone, found.unseen_alone) == (1, 1)
    assert (found.seen_objects, found.unseen_objects, found.seen_classes, found.unseen_classes) == (2, 2, 2, 2)
    calibrated = generalized_accuracy(scores, targets, seen, bias=0.3)
    assert (calibrated.seen, calibrated.unseen, calibrated.harmonic) == (1, 1, 1)
    assert found.area == calibrated.area == 1
    lost = generalized_accuracy(scores, targets, seen, bias=10)
    assert (lost.seen, lost.unseen) == (0, 1)


def test_one_kind_alone() -> None:
    found = generalized_accuracy(np.eye(2), np.array([0, 1]), np.array([False, False]))
    assert found.unseen == 1 and math.isnan(found.seen) and math.isnan(found.harmonic) and math.isnan(found.area)
    with pytest.raises(ShapeError):
        generalized_accuracy(np.eye(2), np.array([0]), np.array([True, False]))
    with pytest.raises(EvaluationError, match="bias"):
        generalized_accuracy(np.eye(2), np.array([0, 1]), np.array([True, False]), float("nan"))


def test_the_area_is_that_under_the_curve_of_many_biases() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 6, 80)
    scores = rng.random((80, 6)) + 0.5 * np.eye(6)[targets]
    seen = np.arange(6) < 3
    scores[:, :3] += 0.3
    biases = np.linspace(-3, 3, 6001)
    curve = np.array(
        [[(found := generalized_accuracy(scores, targets, seen, bias)).seen, found.unseen] for bias in biases[::20]]
    )
    height = (curve[1:, 1] + curve[:-1, 1]) / 2
    expected = float(((curve[:-1, 0] - curve[1:, 0]) * height).sum())
    assert seen_unseen_area(scores, targets, seen) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("changes", [{"keep_views": -1}, {"temperature": 0.0}, {"temperature": float("inf")}])
def test_invalid_view_fusion(changes: dict[str, Any]) -> None:
    with raises_code(EvaluationError, "bad_options"):
        ViewFusion(**changes)
