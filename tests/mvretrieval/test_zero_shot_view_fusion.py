"""View fusion against slow loops, and its invariance to the order of views and classes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from error_codes import raises_code
from hypothesis import given, settings
from hypothesis import strategies as st
from made_meshes import SMALL, unit

from mvretrieval.describe import Describer
from mvretrieval.errors import ShapeError
from mvretrieval.evaluation.zero_shot.entropy import (
    entropy_weights,
    lowest_entropy,
    normalize_weights,
    normalized_entropy,
    softmax,
)
from mvretrieval.evaluation.zero_shot.view_fusion import (
    FusionStage,
    fuse_scores,
    pool_with_weights,
    single_view_vectors,
)
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.config import AdapterConfig
from mvretrieval.weighting.network import NetworkConfig
from mvretrieval.weighting.whitening import WhiteningFit

N, V, C = 4, 5, 3


def _scores(seed: int = 0, n: int = N, v: int = V, c: int = C) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    mask = rng.random((n, v)) < 0.7
    mask[:, 1] = True
    return rng.standard_normal((n, v, c)) * 0.1, mask


def test_entropy_weights_match_the_formula() -> None:
    scores, mask = _scores()
    found = entropy_weights(normalized_entropy(softmax(scores, 0.05)), mask)
    for n in range(N):
        raw = []
        for v in range(V):
            powers = [math.exp(s / 0.05) for s in scores[n, v]]
            shares = [p / sum(powers) for p in powers]
            raw.append(1 + sum(p * math.log(p) for p in shares) / math.log(C) if mask[n, v] else 0.0)
        np.testing.assert_allclose(found[n], np.array(raw) / sum(raw), atol=1e-12)
    assert (found[~mask] == 0).all()


def test_entropy_extremes() -> None:
    assert normalized_entropy(np.array([[1.0, 0.0, 0.0], [1 / 3] * 3])).tolist() == pytest.approx([0, 1])
    assert normalized_entropy(np.ones((2, 1))).tolist() == [0, 0]
    # Uniform views have equal weights; a masked view has weight 0.
    assert entropy_weights(np.ones((1, 3)), np.array([[True, False, True]])).tolist() == [[0.5, 0, 0.5]]
    # A certain view beside a uniform one has all the weight.
    assert entropy_weights(np.array([[0.0, 1.0]]), np.ones((1, 2), bool)).tolist() == [[1, 0]]
    assert softmax(np.array([[1e4, 0.0]]), 0.01).tolist() == [[1, 0]]


def test_lowest_entropy_includes_ties() -> None:
    entropy = np.array([[0.5, 0.1, 0.5, 0.9], [0.3, 0.2, 0.1, 0.0]])
    mask = np.array([[True] * 4, [True, True, False, False]])
    assert lowest_entropy(entropy, mask, 1).tolist() == [[False, True, False, False], [False, True, False, False]]
    assert lowest_entropy(entropy, mask, 2).tolist() == [[True, True, True, False], [True, True, False, False]]
    assert lowest_entropy(entropy, mask, 3)[1].tolist() == mask[1].tolist()
    assert lowest_entropy(entropy, mask, 0) is mask and lowest_entropy(entropy, mask, 4) is mask


def test_invalid_weights() -> None:
    with raises_code(ShapeError, "no_views"):
        normalize_weights(np.ones((1, 2)), np.zeros((1, 2), bool))
    with raises_code(ShapeError, "bad_shape"):
        normalize_weights(np.ones((1, 3)), np.ones((1, 2), bool))


@settings(max_examples=40)
@given(
    st.integers(0, 10_000),
    st.permutations(range(V)),
    st.permutations(range(C)),
    st.sampled_from(["logits", "probabilities"]),
)
def test_the_order_of_views_and_classes_does_not_matter(
    seed: int, views: list[int], classes: list[int], how: Any
) -> None:
    scores, mask = _scores(seed)

    def fused(scores: Any, mask: Any) -> Any:
        entropy = normalized_entropy(softmax(scores, 0.05))
        kept = lowest_entropy(entropy, mask, 3)
        return fuse_scores(scores, entropy_weights(entropy, kept), how, 0.05)

    found = fused(scores[:, views][:, :, classes], mask[:, views])
    np.testing.assert_allclose(found, fused(scores, mask)[:, classes], atol=2e-9)


def test_masked_views_are_ignored() -> None:
    scores, mask = _scores()
    weights = normalize_weights(np.ones((N, V)), mask)
    damaged = np.where(mask[..., None], scores, np.nan)
    stages: tuple[FusionStage, ...] = ("logits", "probabilities")
    for stage in stages:
        expected = fuse_scores(scores, weights, stage, 0.1)
        np.testing.assert_array_equal(fuse_scores(damaged, weights, stage, 0.1), expected)


def _describer(network: NetworkConfig | None = None, whitening: bool = True, trained: bool = True) -> Describer:
    describer = Describer.from_config(replace(SMALL, styles=("texture", "clay")))
    fit = WhiteningFit(2, 10)
    fit.add(unit(np.random.default_rng(0).standard_normal((2, 50, 10)) + 1))
    fitted = fit.result(6) if whitening else None
    if network is None:
        return describer.with_whitening(fitted)
    config = AdapterConfig(
        "", "builtin:", SMALL.rig, ("texture", "clay"), SMALL.size, 3, 6 if whitening else 10, network
    )
    adapter = Adapter.untrained(config, fitted)
    torch.manual_seed(0)
    for parameter in adapter.network.parameters():
        torch.nn.init.normal_(parameter, std=0.5 if trained else 0)
    return replace(describer, whitening=adapter.whitening, adapter=adapter)


def _views(n: int = 6) -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    mask = rng.random((n, 3)) < 0.7
    mask[:, 1] = True
    return unit(rng.standard_normal((n, 2, 3, 10)) + 0.3), mask


@pytest.mark.parametrize("whitening", [True, False])
@pytest.mark.parametrize("kind", [None, "adam", "mean", "clip-adapter", "chunk"])
def test_the_describers_weights_reproduce_its_vectors(kind: Any, whitening: bool) -> None:
    """Given weights replace the softmax only."""
    describer = _describer(kind and NetworkConfig(kind), whitening)
    raw, mask = _views()
    if kind == "chunk":  # a ring with gaps has different neighbours
        mask = np.ones_like(mask)
    vectors, weights = describer.pool(raw, mask)
    np.testing.assert_allclose(pool_with_weights(describer, raw, weights), vectors, atol=2e-6)


def test_feature_and_logit_fusion_agree_for_linear_scores() -> None:
    """The mean of the views' scores is the score of the mean vector, up to the vector's length."""
    describer = _describer(whitening=False)
    raw, mask = _views()
    weights = normalize_weights(np.random.default_rng(3).random(mask.shape), mask)
    names = unit(np.random.default_rng(2).standard_normal((C, 20))).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(single_view_vectors(describer, raw), axis=2), 1, atol=1e-5)
    # Styles are normalized separately: with different views, their parts of the vector would differ.
    same = np.repeat(raw[:, :1], 2, axis=1)
    single = single_view_vectors(describer, same)
    by_logits = fuse_scores(single @ names.T, weights, "logits", 0.01)
    by_features = pool_with_weights(describer, same, np.repeat(weights[:, None], 2, axis=1)) @ names.T
    ratio = by_logits / by_features
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-4)
    assert (ratio > 0).all() and (by_features.argmax(axis=1) == by_logits.argmax(axis=1)).all()
