"""What views say about classes: against slow loops, and whatever the order of views and classes is."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_meshes import SMALL, unit

from mvretrieval.describe import Describer
from mvretrieval.errors import ShapeError
from mvretrieval.evaluation.zero_shot.view_fusion import (
    clearest,
    entropies,
    entropy_weights,
    normalised,
    pooled_scores,
    softmax,
    view_vectors,
    weighted_vectors,
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


def test_entropy_weights_are_those_of_the_formula() -> None:
    scores, mask = _scores()
    found = entropy_weights(entropies(softmax(scores, 0.05)), mask)
    for n in range(N):
        raw = []
        for v in range(V):
            powers = [math.exp(s / 0.05) for s in scores[n, v]]
            shares = [p / sum(powers) for p in powers]
            raw.append(1 + sum(p * math.log(p) for p in shares) / math.log(C) if mask[n, v] else 0.0)
        np.testing.assert_allclose(found[n], np.array(raw) / sum(raw), atol=1e-12)
    assert (found[~mask] == 0).all()


def test_entropy_at_its_ends() -> None:
    assert entropies(np.array([[1.0, 0.0, 0.0], [1 / 3] * 3])).tolist() == pytest.approx([0, 1])
    assert entropies(np.ones((2, 1))).tolist() == [0, 0]
    # Where nobody knows anything, all weigh the same; a masked view weighs nothing.
    assert entropy_weights(np.ones((1, 3)), np.array([[True, False, True]])).tolist() == [[0.5, 0, 0.5]]
    # A sure view beside one that knows nothing takes all.
    assert entropy_weights(np.array([[0.0, 1.0]]), np.ones((1, 2), bool)).tolist() == [[1, 0]]
    assert softmax(np.array([[1e4, 0.0]]), 0.01).tolist() == [[1, 0]]


def test_clearest_views_and_those_level_with_the_last() -> None:
    entropy = np.array([[0.5, 0.1, 0.5, 0.9], [0.3, 0.2, 0.1, 0.0]])
    mask = np.array([[True] * 4, [True, True, False, False]])
    assert clearest(entropy, mask, 1).tolist() == [[False, True, False, False], [False, True, False, False]]
    assert clearest(entropy, mask, 2).tolist() == [[True, True, True, False], [True, True, False, False]]
    assert clearest(entropy, mask, 3)[1].tolist() == mask[1].tolist()
    assert clearest(entropy, mask, 0) is mask and clearest(entropy, mask, 4) is mask


def test_weights_that_cannot_be() -> None:
    with pytest.raises(ShapeError, match="an object has no view"):
        normalised(np.ones((1, 2)), np.zeros((1, 2), bool))
    with pytest.raises(ShapeError, match="do not belong together"):
        normalised(np.ones((1, 3)), np.ones((1, 2), bool))


@settings(max_examples=40)
@given(
    st.integers(0, 10_000), st.permutations(range(V)), st.permutations(range(C)), st.sampled_from(["logits", "after"])
)
def test_the_order_of_views_and_classes_changes_nothing(
    seed: int, views: list[int], classes: list[int], how: Any
) -> None:
    scores, mask = _scores(seed)

    def answer(scores: Any, mask: Any) -> Any:
        doubt = entropies(softmax(scores, 0.05))
        kept = clearest(doubt, mask, 3)
        return pooled_scores(scores, entropy_weights(doubt, kept), how, 0.05)

    found = answer(scores[:, views][:, :, classes], mask[:, views])
    np.testing.assert_allclose(found, answer(scores, mask)[:, classes], atol=2e-9)


def test_masked_views_may_hold_anything() -> None:
    scores, mask = _scores()
    weights = normalised(np.ones((N, V)), mask)
    damaged = np.where(mask[..., None], scores, np.nan)
    for how in ("logits", "after"):
        np.testing.assert_array_equal(
            pooled_scores(damaged, weights, how, 0.1), pooled_scores(scores, weights, how, 0.1)
        )  # type: ignore[arg-type]


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
    return describer.with_whitening(adapter)


def _views(n: int = 6) -> tuple[Any, Any]:
    rng = np.random.default_rng(1)
    mask = rng.random((n, 3)) < 0.7
    mask[:, 1] = True
    return unit(rng.standard_normal((n, 2, 3, 10)) + 0.3), mask


@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("kind", [None, "adam", "mean", "clip-adapter", "chunk"])
def test_a_describers_own_weights_make_its_own_vectors(kind: Any, whitening: bool) -> None:
    """Weights of one's own take the place of the softmax, and nothing else."""
    describer = _describer(kind and NetworkConfig(kind), whitening)
    raw, mask = _views()
    if kind == "chunk":  # a ring with gaps has other neighbours
        mask = np.ones_like(mask)
    vectors, weights = describer.pool(raw, mask)
    np.testing.assert_allclose(weighted_vectors(describer, raw, weights), vectors, atol=2e-6)


def test_before_and_after_agree_where_scores_are_linear() -> None:
    """The mean of each view's scores is the score of the mean vector, but for that vector's length."""
    describer = _describer(whitening=False)
    raw, mask = _views()
    weights = normalised(np.random.default_rng(3).random(mask.shape), mask)
    names = unit(np.random.default_rng(2).standard_normal((C, 20))).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(view_vectors(describer, raw), axis=2), 1, atol=1e-5)
    # Each style is brought to length 1 by itself: with other views in each, their shares in the vector would differ.
    same = np.repeat(raw[:, :1], 2, axis=1)
    alone = view_vectors(describer, same)
    after = pooled_scores(alone @ names.T, weights, "logits", 0.01)
    before = weighted_vectors(describer, same, np.repeat(weights[:, None], 2, axis=1)) @ names.T
    ratio = after / before
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1], ratio.shape), rtol=1e-4)
    assert (ratio > 0).all() and (before.argmax(axis=1) == after.argmax(axis=1)).all()
