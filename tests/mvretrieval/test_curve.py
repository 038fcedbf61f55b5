"""Calibration curves against scikit-learn: fit, selection by cross-validation, calibration error, stored form."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from error_codes import raises_code
from hypothesis import given
from hypothesis import strategies as st

from mvretrieval.confidence.calibration import Calibration
from mvretrieval.confidence.curve import Curve, expected_calibration_error
from mvretrieval.confidence.fit import CalibrationPairs, fit_candidate, fit_curve
from mvretrieval.errors import CalibrationError


def _pairs(seed: int = 0, n: int = 400) -> CalibrationPairs:
    """Pairs that are the same class more often the higher the cosine is above the cohort mean."""
    rng = np.random.default_rng(seed)
    cohort_means, above = rng.uniform(0.2, 0.6, n), rng.normal(0.1, 0.15, n)
    same = rng.uniform(size=n) < 1 / (1 + np.exp(-12 * (above - 0.1)))
    return CalibrationPairs(cohort_means + above, cohort_means, same, np.arange(n) // 20, n // 10)


@pytest.mark.parametrize("with_cohort", [False, True])
def test_curves_equal_the_predictions_of_scikit_learn(with_cohort: bool) -> None:
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    pairs = _pairs()
    columns = np.stack([pairs.cosines, pairs.cohort_means][: 1 + with_cohort], axis=1)
    scaled = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    model = LogisticRegression(C=1000.0).fit(scaled, pairs.same)
    logistic, isotonic = (fit_candidate(pairs, method, with_cohort) for method in ("logistic", "isotonic"))
    assert logistic is not None and isotonic is not None and (logistic.cohort_weight > 0.5) == with_cohort
    predicted = logistic(pairs.cosines, pairs.cohort_means)
    np.testing.assert_allclose(predicted, model.predict_proba(scaled)[:, 1], atol=2e-3)
    x, bound = pairs.cosines - isotonic.cohort_weight * pairs.cohort_means, 1 / (len(pairs.same) + 2)
    steps = IsotonicRegression(y_min=bound, y_max=1 - bound, out_of_bounds="clip").fit(x, pairs.same)
    probe = np.linspace(x.min() - 1, x.max() + 1, 500)
    np.testing.assert_allclose(isotonic(probe, 0.0), steps.predict(probe), atol=1e-12)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=20), st.floats(-1, 1), st.integers(0, 20))
def test_a_curve_is_monotonic_and_a_probability(cosines: list[float], cohort_mean: float, seed: int) -> None:
    for method in ("logistic", "isotonic"):
        curve = fit_candidate(_pairs(seed % 3, 100), method, seed % 2 == 0)
        assert curve is not None
        confidences = curve(np.sort(cosines), cohort_mean)
        assert (np.diff(confidences) >= 0).all() and (0 < confidences).all() and (confidences < 1).all()


def test_the_cohort_is_used_only_where_it_helps_on_held_out_classes() -> None:
    pairs = _pairs(n=2000)
    assert fit_curve(pairs).cohort_weight == pytest.approx(1, abs=0.2)
    without = replace(pairs, cosines=pairs.cosines - pairs.cohort_means, cohort_means=np.zeros(2000))
    curve = fit_curve(without)
    assert curve.cohort_weight == 0 and curve.error is not None and curve.error < 0.06
    assert (curve.pairs, curve.groups, curve.queries) == (2000, 100, 200)


def test_too_few_pairs_and_a_single_outcome_are_refused() -> None:
    pairs = _pairs()
    with raises_code(CalibrationError, "too_few_pairs", "19 pairs", "20 are needed"):
        fit_curve(pairs.take(np.arange(400) < 19))
    for same in (True, False):
        with raises_code(CalibrationError, "one_outcome", "all of the 400" if same else "none of the 400"):
            fit_curve(replace(pairs, same=np.full(400, same)))


def test_calibration_error_is_the_mean_gap_of_the_bins() -> None:
    predicted = np.array([0.05, 0.05, 0.95, 0.95, 1.0])
    same = np.array([True, False, True, True, False])
    expected = abs(0.1 - 1) / 5 + abs(2.9 - 2) / 5
    assert expected_calibration_error(predicted, same, 10) == pytest.approx(expected)
    rng = np.random.default_rng(0)
    calibrated = rng.uniform(size=20000)
    assert expected_calibration_error(calibrated, rng.uniform(size=20000) < calibrated) < 0.02
    assert expected_calibration_error(np.full(100, 0.9), np.zeros(100, bool)) == pytest.approx(0.9)


def test_json_round_trips_and_keys_of_format_version_1_are_read() -> None:
    curves = {name: fit_curve(_pairs(seed)) for seed, name in enumerate(("objects", "images"))}
    calibration = Calibration("label", "a > 1", 7, curves, {"text": "why"})
    text = calibration.to_json()
    assert Calibration.from_json(text) == calibration
    old = json.loads(text)
    old["epoch"] = old.pop("generation")
    old["left_out"] = {"words": "why"}
    for name in ("objects", "images"):
        curve = old["curves"].pop(name)
        curve["share"], curve["questions"] = curve.pop("cohort_weight"), curve.pop("queries")
        old["curves"]["pictures" if name == "images" else name] = curve
    assert Calibration.from_json(json.dumps(old)) == calibration
    assert {type(knot) for knot in Curve.from_json(json.loads(text)["curves"]["objects"]).knots} == {float}
