"""The paired test against exact enumeration, and properties of a valid test."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from error_codes import raises_code
from hypothesis import given, settings
from hypothesis import strategies as st

from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation import significance
from mvretrieval.evaluation.metrics import Evaluation
from mvretrieval.evaluation.significance import bootstrap_interval, compare, randomization_p


def _exact(differences: list[float]) -> float:
    """Fraction of all sign flips that are as far from zero as the observed sum."""
    observed = abs(sum(differences)) - 1e-9
    flips = list(itertools.product((-1, 1), repeat=len(differences)))
    return sum(abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= observed for signs in flips) / len(
        flips
    )


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from([-1.0, -0.4, -0.1, 0.0, 0.1, 0.3, 0.7, 1.0]), min_size=1, max_size=9), st.integers(0, 99)
)
def test_agrees_with_exact_enumeration(differences: list[float], seed: int) -> None:
    draws = 4000
    exact = _exact(differences)
    found = float(randomization_p(np.array(differences)[:, None], seed, draws)[0])
    assert found == pytest.approx(
        (draws * exact + 1) / (draws + 1), abs=5 * math.sqrt(exact * (1 - exact) / draws) + 1e-9
    )


def test_metrics_share_draws_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = np.random.default_rng(0).normal(0.1, 0.3, (30, 2))
    joint = randomization_p(differences)
    assert [float(randomization_p(differences[:, m : m + 1])[0]) for m in range(2)] == joint.tolist()
    assert randomization_p(-differences).tolist() == joint.tolist()
    interval = bootstrap_interval(differences)
    monkeypatch.setattr(significance, "_MAX_CELLS", 30 * 64)
    assert np.allclose(randomization_p(differences), joint, atol=0.02)
    assert np.allclose(bootstrap_interval(differences), interval, atol=0.01)


def test_p_is_uniform_under_the_null_hypothesis() -> None:
    rng = np.random.default_rng(1)
    p = randomization_p(rng.normal(size=(40, 400)), draws=500)
    # Of 400 tests at 5 %, 20 are expected; six standard deviations.
    assert abs((p <= 0.05).sum() - 20) < 26 and abs(np.median(p) - 0.5) < 0.15


def test_a_clear_difference_has_the_smallest_p_and_an_interval_without_zero() -> None:
    differences = np.random.default_rng(2).normal(0.2, 0.1, (60, 1))
    assert randomization_p(differences, draws=999)[0] == 1 / 1000
    low, high = bootstrap_interval(differences)
    assert 0 < low[0] < differences.mean() < high[0]
    # Half its width is that of a normal distribution, 1.96 standard errors.
    assert (high[0] - low[0]) / 2 == pytest.approx(1.96 * differences.std(ddof=1) / math.sqrt(60), rel=0.1)
    wider = bootstrap_interval(differences, level=0.99)
    assert wider[0][0] < low[0] and wider[1][0] > high[0]


def _evaluation(ids: list[str] | None, **values: list[float]) -> Evaluation:
    n = len(next(iter(values.values())))
    arrays = {name: np.array(some) for name, some in values.items()}
    return Evaluation(np.arange(n), arrays, 0, None if ids is None else tuple(ids))


def test_queries_are_matched_by_id() -> None:
    one = _evaluation(["a", "b", "c", "d"], mAP=[0.1, 0.2, 0.3, 0.9], NN=[0, 0, 1, 1], ST=[1, 1, 1, 1])
    two = _evaluation(["c", "x", "b", "a"], NN=[1, 1, 0, 0], mAP=[0.2, 0.9, 0.1, 0.0])
    found = compare(one, two)
    assert list(found) == ["mAP", "NN"]
    assert (found["mAP"].queries, found["mAP"].first, found["mAP"].second) == pytest.approx((3, 0.2, 0.1))
    # All differences are equal: the interval is a point, and two of eight flips are as far.
    assert (found["mAP"].difference, found["mAP"].low, found["mAP"].high) == pytest.approx((0.1, 0.1, 0.1))
    assert found["mAP"].p == pytest.approx(0.25, abs=0.03)
    assert (found["NN"].difference, found["NN"].p) == (0, 1)


def test_runs_without_common_queries_or_metrics_are_refused() -> None:
    one, other = _evaluation(["a"], mAP=[1]), _evaluation(["b"], mAP=[1])
    with raises_code(EvaluationError, "nothing_in_common", "0 queries and 1 metrics"):
        compare(one, other)
    with raises_code(EvaluationError, "nothing_in_common", "1 queries and 0 metrics"):
        compare(one, _evaluation(["a"], ANMRR=[1]))
    with raises_code(EvaluationError, "no_ids"):
        compare(one, _evaluation(None, mAP=[1]))
