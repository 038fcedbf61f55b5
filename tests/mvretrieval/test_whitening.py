"""Centring and whitening against a plain PCA."""

from __future__ import annotations

import numpy as np
import pytest
from error_codes import raises_code
from numpy.typing import NDArray

from mvretrieval.errors import DescriberError
from mvretrieval.weighting.whitening import Whitening, WhiteningFit

S, N, D = 2, 200, 12


def _views(seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    spread = rng.standard_normal((S, N, D)) * np.linspace(2, 0.1, D)
    rotated = spread @ np.linalg.qr(rng.standard_normal((D, D)))[0]
    return np.asarray(rotated + rng.standard_normal((S, 1, D)), np.float32)


def _fit(views: NDArray[np.float32], whiten: int | None) -> Whitening:
    fit = WhiteningFit(*views.shape[::2])
    fit.add(views)
    return fit.result(whiten)


def test_whitening_is_pca_with_the_fourth_root_of_the_variance() -> None:
    views = _views()
    whitening = _fit(views, 5)
    assert whitening.dim == 5 and whitening.n_views == N
    for s in range(S):
        centred = views[s].astype(float) - views[s].astype(float).mean(axis=0)
        _, singular, axes = np.linalg.svd(centred, full_matrices=False)
        deviation = singular[:5] / np.sqrt(N)
        expected = centred @ axes[:5].T / np.sqrt(deviation)
        found = whitening.apply(views[s], s)
        # The sign of an axis is arbitrary.
        np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=2e-4)
        np.testing.assert_allclose(found.std(axis=0), np.sqrt(deviation), rtol=1e-3)
        correlations = np.corrcoef(found.T) - np.eye(5)
        assert np.abs(correlations).max() < 1e-3


def test_centring_subtracts_the_mean_only() -> None:
    views = _views()
    whitening = _fit(views, None)
    assert whitening.transform is None and whitening.dim == D
    for s in range(S):
        np.testing.assert_allclose(whitening.apply(views[s], s), views[s] - views[s].mean(axis=0), atol=1e-5)


def test_another_mean_can_be_subtracted() -> None:
    whitening = _fit(_views(), 5)
    text = np.ones((1, D), np.float32)
    assert np.allclose(whitening.apply(text, 0, mean=text[0]), 0)
    assert not np.allclose(whitening.apply(text, 0), 0)


@pytest.mark.parametrize("whiten", [None, 7])
def test_streaming_equals_one_pass(whiten: int | None) -> None:
    views = _views()
    fit = WhiteningFit(S, D)
    for part in np.split(views, [1, 50, 51, 120], axis=1):
        fit.add(part)
    streamed, at_once = fit.result(whiten), _fit(views, whiten)
    for s in range(S):
        np.testing.assert_allclose(np.abs(streamed.apply(views[s], s)), np.abs(at_once.apply(views[s], s)), atol=1e-4)


@pytest.mark.parametrize("whiten", [None, 7])
def test_serialization_round_trips_and_is_deterministic(whiten: int | None) -> None:
    whitening = _fit(_views(), whiten)
    back = Whitening.from_bytes(whitening.to_bytes())
    assert np.array_equal(back.mean, whitening.mean) and back.n_views == whitening.n_views
    assert (back.transform is None) == (whiten is None)
    assert whiten is None or np.array_equal(back.transform, whitening.transform)  # type: ignore[arg-type]
    # The describer's fingerprint is computed over these bytes.
    assert back.to_bytes() == whitening.to_bytes()


def test_an_axis_without_variance_is_not_amplified() -> None:
    views = _views()
    views[..., -1] = 0.5
    views[..., -2] = views[..., 0]
    found = _fit(views, D).apply(views[0], 0)
    assert np.isfinite(found).all()
    assert found[:, -2:].std(axis=0).max() < 0.01 * found[:, 0].std()


@pytest.mark.parametrize(
    ("n_views", "whiten", "code", "values"),
    [
        (8, 8, "too_few_views", ("8 dimensions", "more than 8 views", "there are 8")),
        (1, None, "too_few_views", ("at least 2 views", "there is 1")),
        (0, None, "too_few_views", ("there are 0",)),
        (N, D + 1, "too_many_dimensions", (f"{D}-dimensional", f"{D + 1} dimensions")),
    ],
)
def test_too_few_views_or_dimensions_are_refused_with_numbers(
    n_views: int, whiten: int | None, code: str, values: tuple[str, ...]
) -> None:
    with raises_code(DescriberError, code, *values):
        _fit(_views()[:, :n_views], whiten)
