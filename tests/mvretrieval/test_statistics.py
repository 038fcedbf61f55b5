"""Centring and whitening against a twin that says PCA plainly."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from mvretrieval.errors import DescriberError
from mvretrieval.weighting.whitening import Whitening, WhiteningFit

S, N, D = 2, 200, 12


def _views(seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    spread = rng.standard_normal((S, N, D)) * np.linspace(2, 0.1, D)
    turned = spread @ np.linalg.qr(rng.standard_normal((D, D)))[0]
    return (turned + rng.standard_normal((S, 1, D))).astype(np.float32)


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
        # An axis may point either way.
        np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=2e-4)
        np.testing.assert_allclose(found.std(axis=0), np.sqrt(deviation), rtol=1e-3)
        correlations = np.corrcoef(found.T) - np.eye(5)
        assert np.abs(correlations).max() < 1e-3


def test_centring_alone_takes_the_mean_away_and_nothing_else() -> None:
    views = _views()
    whitening = _fit(views, None)
    assert whitening.transform is None and whitening.dim == D
    for s in range(S):
        np.testing.assert_allclose(whitening.apply(views[s], s), views[s] - views[s].mean(axis=0), atol=1e-5)


def test_another_mean_can_be_taken_away() -> None:
    whitening = _fit(_views(), 5)
    words = np.ones((1, D), np.float32)
    assert np.allclose(whitening.apply(words, 0, mean=words[0]), 0)
    assert not np.allclose(whitening.apply(words, 0), 0)


@pytest.mark.parametrize("whiten", [None, 7])
def test_streaming_gives_what_all_at_once_gives(whiten: int | None) -> None:
    views = _views()
    fit = WhiteningFit(S, D)
    for part in np.split(views, [1, 50, 51, 120], axis=1):
        fit.add(part)
    streamed, at_once = fit.result(whiten), _fit(views, whiten)
    for s in range(S):
        np.testing.assert_allclose(np.abs(streamed.apply(views[s], s)), np.abs(at_once.apply(views[s], s)), atol=1e-4)


@pytest.mark.parametrize("whiten", [None, 7])
def test_bytes_round_trip_and_are_the_same_each_time(whiten: int | None) -> None:
    whitening = _fit(_views(), whiten)
    back = Whitening.from_bytes(whitening.to_bytes())
    assert np.array_equal(back.mean, whitening.mean) and back.n_views == whitening.n_views
    assert (back.transform is None) == (whiten is None)
    assert whiten is None or np.array_equal(back.transform, whitening.transform)  # type: ignore[arg-type]
    # The describer's fingerprint is over these bytes.
    assert back.to_bytes() == whitening.to_bytes()


def test_a_direction_without_variance_is_not_blown_up() -> None:
    views = _views()
    views[..., -1] = 0.5
    views[..., -2] = views[..., 0]
    found = _fit(views, D).apply(views[0], 0)
    assert np.isfinite(found).all()
    assert found[:, -2:].std(axis=0).max() < 0.01 * found[:, 0].std()


@pytest.mark.parametrize(
    ("n_views", "whiten", "said"),
    [
        (8, 8, "whitening to 8 dimensions needs more than 8 views to learn from, and there are 8"),
        (1, None, "centring needs more than 1 view to learn from, and there is 1"),
        (0, None, "there are 0"),
        (N, D + 1, f"cannot whiten {D}-dimensional vectors to {D + 1}"),
    ],
)
def test_too_little_to_learn_from_is_said_with_numbers(n_views: int, whiten: int | None, said: str) -> None:
    with pytest.raises(DescriberError, match=re.escape(said)):
        _fit(_views()[:, :n_views], whiten)
