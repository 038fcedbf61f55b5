"""The contract of every pooling, and the formulas of the baselines."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from error_codes import raises_code
from random_views import B, D, V, random_views, randomize
from torch import nn

from mvretrieval.errors import ShapeError
from mvretrieval.weighting.adam import AdamConfig, AdamPooling
from mvretrieval.weighting.baselines import AdaptedPooling, ChunkPooling, ClipAdapterPooling, MaxPooling, MeanPooling
from mvretrieval.weighting.view_weighting import ViewWeighting, ViewWeightingConfig


def _all_poolings(order_dependent: bool = True) -> list[nn.Module]:
    adams = [
        randomize(AdamPooling(AdamConfig(D, instance, dataset, V, average, adapter)))  # type: ignore[arg-type]
        for instance, dataset, average, adapter in itertools.product(
            (True, False), ("directions", "slots", "none"), (True, False), (True, False)
        )
        if order_dependent or dataset != "slots"
    ]
    rings = [randomize(ChunkPooling(D))] if order_dependent else []
    adapted = [randomize(AdaptedPooling(pooling, D, 0.5)) for pooling in (MeanPooling(), MaxPooling())]
    weighting = randomize(ViewWeighting(ViewWeightingConfig(D)))
    return [MeanPooling(), MaxPooling(), *adapted, randomize(ClipAdapterPooling(D)), *rings, weighting, *adams]


def _name(module: nn.Module) -> str:
    return f"{type(module).__name__}-{getattr(module, 'config', '')}"


@pytest.mark.parametrize("pooling", _all_poolings(), ids=_name)
def test_vectors_have_unit_norm_and_weights_of_rendered_views_sum_to_one(pooling: nn.Module) -> None:
    vectors, mask, directions = random_views()
    pooled, weights = pooling(vectors, mask, directions)
    assert pooled.shape == (B, D) and weights.shape == (B, V)
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(B))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(B))
    assert (weights[~mask] == 0).all() and (weights >= 0).all()


@pytest.mark.parametrize("pooling", _all_poolings(), ids=_name)
@pytest.mark.parametrize("garbage", [0.0, 1e30, -1e30, math.inf, math.nan])
def test_content_of_masked_views_has_no_effect(pooling: nn.Module, garbage: float) -> None:
    vectors, mask, directions = random_views()
    expected = pooling(vectors, mask, directions)
    vectors, directions = vectors.clone(), directions.clone()
    vectors[~mask], directions[~mask] = garbage, math.nan
    for found, wanted in zip(pooling(vectors, mask, directions), expected, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("pooling", _all_poolings(order_dependent=False), ids=_name)
def test_padding_with_masked_views_changes_nothing(pooling: nn.Module) -> None:
    vectors, mask, directions = random_views()
    pooled, weights = pooling(vectors, mask, directions)
    wide = torch.cat([vectors, torch.full((B, 2, D), math.nan)], dim=1)
    wide_mask = torch.cat([mask, torch.zeros(B, 2, dtype=torch.bool)], dim=1)
    padded, padded_weights = pooling(wide, wide_mask, torch.cat([directions, torch.zeros(B, 2, 3)], dim=1))
    torch.testing.assert_close(padded, pooled)
    torch.testing.assert_close(padded_weights[:, :V], weights)


@pytest.mark.parametrize("pooling", _all_poolings(order_dependent=False), ids=_name)
def test_permuting_views_permutes_weights_and_keeps_the_vector(pooling: nn.Module) -> None:
    vectors, mask, directions = random_views()
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    pooled, weights = pooling(vectors, mask, directions)
    again, permuted = pooling(vectors[:, order], mask[:, order], directions[:, order])
    torch.testing.assert_close(again, pooled)
    torch.testing.assert_close(permuted, weights[:, order])


@pytest.mark.parametrize(
    "pooling",
    [MeanPooling(), MaxPooling(), AdamPooling(AdamConfig(D)), ClipAdapterPooling(D), ChunkPooling(D)],
    ids=_name,
)
def test_arrays_of_disagreeing_shapes_are_refused(pooling: nn.Module) -> None:
    vectors, mask, directions = random_views()
    with raises_code(ShapeError, "mask_shape", "(3, 6, 16)", "(3, 2)"):
        pooling(vectors, mask[:, :2])
    with raises_code(ShapeError, "directions_shape", "(3, 2, 3)"):
        pooling(vectors, mask, directions[:, :2])
    with raises_code(ShapeError, "no_view"):
        pooling(vectors, torch.zeros_like(mask))


# -- baselines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "baseline",
    [
        ClipAdapterPooling(D),
        ClipAdapterPooling(D, 0.9),
        ChunkPooling(D),
        ChunkPooling(D, 0.1),
        AdaptedPooling(MeanPooling(), D, 1.0),
    ],
)
def test_untrained_baselines_are_mean_pooling_and_have_gradients(baseline: nn.Module) -> None:
    vectors, mask, _ = random_views()
    expected, uniform = MeanPooling()(vectors, mask)
    pooled, weights = baseline(vectors, mask)
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(weights, uniform)
    (pooled @ torch.randn(D)).sum().backward()
    assert max(float(p.grad.abs().max()) for p in baseline.parameters() if p.grad is not None) > 1e-6


def test_clip_adapter_equals_its_formula() -> None:
    vectors, mask, _ = random_views()
    baseline = randomize(ClipAdapterPooling(D, 0.3))
    pooled, _ = baseline(vectors, mask)
    first, _, last = baseline.bottleneck
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    for b in range(B):
        g = vectors[b, mask[b]].mean(dim=0)
        h = 0.7 * g + 0.3 * last.weight @ nn.functional.gelu(first.weight @ (4 * g)) / 4  # 4 = sqrt(D)
        torch.testing.assert_close(pooled[b], nn.functional.normalize(h, dim=0))


def test_chunk_pooling_convolves_neighbours_on_the_closed_ring() -> None:
    vectors, mask, _ = random_views()
    baseline = randomize(ChunkPooling(D, 0.5))
    pooled, _ = baseline(vectors, mask)
    left, own, right = baseline.convolution.weight.unbind(dim=2)
    for b in range(B):
        ring = torch.where(mask[b, :, None], vectors[b], 0)
        chunks = [left @ ring[v - 1] + own @ ring[v] + right @ ring[(v + 1) % V] for v in range(V) if mask[b, v]]
        h = vectors[b, mask[b]].mean(dim=0) + 0.5 * torch.stack(chunks).mean(dim=0)
        torch.testing.assert_close(pooled[b], nn.functional.normalize(h, dim=0))
    rotated, _ = baseline(vectors.roll(2, dims=1), mask.roll(2, dims=1))
    torch.testing.assert_close(rotated, pooled)
    reversed_, _ = baseline(vectors.flip(1), mask.flip(1))
    assert not torch.allclose(reversed_, pooled, atol=1e-3)


def test_mean_and_max_pooling_equal_their_formulas() -> None:
    vectors, mask, _ = random_views()
    mean, _ = MeanPooling()(vectors, mask)
    largest, weights = MaxPooling()(vectors, mask)
    for b in range(B):
        rendered = vectors[b, mask[b]]
        maximum = rendered.max(dim=0).values
        torch.testing.assert_close(mean[b], nn.functional.normalize(rendered.mean(dim=0), dim=0))
        torch.testing.assert_close(largest[b], nn.functional.normalize(maximum, dim=0))
        fractions = torch.stack([(vectors[b, v] == maximum).float().mean() for v in range(V)])
        torch.testing.assert_close(weights[b], torch.where(mask[b], fractions, 0))


def test_a_masked_view_does_not_win_the_maximum_of_negative_values() -> None:
    vectors = torch.tensor([[[-0.8, -0.6], [-0.6, -0.8], [0.0, 0.0]]])
    pooled, _ = MaxPooling()(vectors, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(pooled, nn.functional.normalize(torch.tensor([[-0.6, -0.6]]), dim=1))
