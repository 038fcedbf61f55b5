"""What every pooling promises, and what AdaM adds."""

from __future__ import annotations

import itertools
import math
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mvretrieval.errors import ShapeError
from mvretrieval.weighting.adam import AdamConfig, AdamPooling
from mvretrieval.weighting.baselines import ChunkPooling, ClipAdapterPooling
from mvretrieval.weighting.pooling import MaxPooling, MeanPooling
from mvretrieval.weighting.spherical_harmonics import N_HARMONICS, harmonics

B, V, D = 3, 6, 16
_Module = TypeVar("_Module", bound=nn.Module)


def _random_views(seed: int = 0, views: int = V) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    vectors = nn.functional.normalize(torch.randn(B, views, D), dim=2)
    mask = torch.ones(B, views, dtype=torch.bool)
    mask[0, 1] = mask[1, :3] = False
    directions = nn.functional.normalize(torch.randn(B, views, 3), dim=2)
    return vectors, mask, directions


def _trained(**options: object) -> AdamPooling:
    return _moved(AdamPooling(AdamConfig(D, **options)))  # type: ignore[arg-type]


def _moved(module: _Module) -> _Module:
    """Every parameter somewhere else than at its start."""
    torch.manual_seed(7)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.7)
    return module.eval()


def _all_poolings(ordered: bool = True) -> list[nn.Module]:
    adams = [
        _trained(instance_scores=i, dataset_scores=d, n_slots=V, adapter=a, average_softmaxes=s)
        for i, d, a, s in itertools.product(
            (True, False), ("directions", "slots", "none"), (True, False), (True, False)
        )
        if ordered or d != "slots"
    ]
    rings = [_moved(ChunkPooling(D))] if ordered else []
    return [MeanPooling(), MaxPooling(), _moved(ClipAdapterPooling(D)), *rings, *adams]


def _name(module: nn.Module) -> str:
    return str(getattr(module, "config", type(module).__name__))


@pytest.mark.parametrize("pooling", _all_poolings(), ids=_name)
def test_vectors_are_unit_and_weights_are_shares_of_what_was_rendered(pooling: nn.Module) -> None:
    vectors, mask, directions = _random_views()
    pooled, weights = pooling(vectors, mask, directions)
    assert pooled.shape == (B, D) and weights.shape == (B, V)
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(B))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(B))
    assert (weights[~mask] == 0).all() and (weights >= 0).all()


@pytest.mark.parametrize("pooling", _all_poolings(), ids=_name)
@pytest.mark.parametrize("garbage", [0.0, 1e30, -1e30, math.inf, math.nan])
def test_a_masked_view_may_hold_anything(pooling: nn.Module, garbage: float) -> None:
    vectors, mask, directions = _random_views()
    expected = pooling(vectors, mask, directions)
    spoilt, turned = vectors.clone(), directions.clone()
    spoilt[~mask], turned[~mask] = garbage, math.nan
    for found, wanted in zip(pooling(spoilt, mask, turned), expected, strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("pooling", _all_poolings(ordered=False), ids=_name)
def test_padding_with_masked_views_changes_nothing(pooling: nn.Module) -> None:
    vectors, mask, directions = _random_views()
    pooled, weights = pooling(vectors, mask, directions)
    wide = torch.cat([vectors, torch.full((B, 2, D), math.nan)], dim=1)
    wide_mask = torch.cat([mask, torch.zeros(B, 2, dtype=torch.bool)], dim=1)
    padded, padded_weights = pooling(wide, wide_mask, torch.cat([directions, torch.zeros(B, 2, 3)], dim=1))
    torch.testing.assert_close(padded, pooled)
    torch.testing.assert_close(padded_weights[:, :V], weights)


@pytest.mark.parametrize("pooling", _all_poolings(ordered=False), ids=_name)
def test_permuting_views_permutes_weights_and_keeps_the_vector(pooling: nn.Module) -> None:
    vectors, mask, directions = _random_views()
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    pooled, weights = pooling(vectors, mask, directions)
    again, permuted = pooling(vectors[:, order], mask[:, order], directions[:, order])
    torch.testing.assert_close(again, pooled)
    torch.testing.assert_close(permuted, weights[:, order])


def test_slots_depend_on_the_order_and_the_number_of_views() -> None:
    vectors, mask, directions = _random_views()
    pooling = _trained(dataset_scores="slots", n_slots=V)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    _, weights = pooling(vectors, mask, directions)
    _, permuted = pooling(vectors[:, order], mask[:, order], directions[:, order])
    assert not torch.allclose(permuted, weights[:, order], atol=1e-3)
    with pytest.raises(ShapeError, match="6 views, not 5"):
        pooling(vectors[:, :5], mask[:, :5], directions[:, :5])
    with pytest.raises(ShapeError, match="n_slots"):
        AdamConfig(D, dataset_scores="slots")


@pytest.mark.parametrize("instance", [True, False])
@pytest.mark.parametrize("dataset", ["directions", "slots", "none"])
@pytest.mark.parametrize("adapter", [True, False])
@pytest.mark.parametrize("average", [True, False])
def test_untrained_adam_is_mean_pooling(instance: bool, dataset: str, adapter: bool, average: bool) -> None:
    vectors, mask, directions = _random_views()
    config = AdamConfig(D, instance, dataset, V, adapter, average_softmaxes=average)  # type: ignore[arg-type]
    expected, shares = MeanPooling()(vectors, mask, directions)
    pooled, weights = AdamPooling(config)(vectors, mask, directions)
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(weights, shares)


@pytest.mark.parametrize(
    "rival", [ClipAdapterPooling(D), ClipAdapterPooling(D, 0.9), ChunkPooling(D), ChunkPooling(D, 0.1)]
)
def test_untrained_rivals_are_mean_pooling_and_learn_from_there(rival: nn.Module) -> None:
    vectors, mask, _ = _random_views()
    expected, shares = MeanPooling()(vectors, mask)
    pooled, weights = rival(vectors, mask)
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(weights, shares)
    (pooled @ torch.randn(D)).sum().backward()
    assert max(float(p.grad.abs().max()) for p in rival.parameters() if p.grad is not None) > 1e-6


def test_clip_adapter_is_its_formula() -> None:
    vectors, mask, _ = _random_views()
    rival = _moved(ClipAdapterPooling(D, 0.3))
    pooled, _ = rival(vectors, mask)
    first, _, last = rival.bottleneck
    for b in range(B):
        g = vectors[b, mask[b]].mean(dim=0)
        h = 0.7 * g + 0.3 * last.weight @ nn.functional.gelu(first.weight @ (4 * g)) / 4  # 4 = root of D
        torch.testing.assert_close(pooled[b], nn.functional.normalize(h, dim=0))


def test_chunks_are_neighbours_on_the_closed_ring() -> None:
    vectors, mask, _ = _random_views()
    rival = _moved(ChunkPooling(D, 0.5))
    pooled, _ = rival(vectors, mask)
    left, own, right = rival.convolution.weight.unbind(dim=2)
    for b in range(B):
        ring = torch.where(mask[b, :, None], vectors[b], 0)
        chunks = [left @ ring[v - 1] + own @ ring[v] + right @ ring[(v + 1) % V] for v in range(V) if mask[b, v]]
        h = vectors[b, mask[b]].mean(dim=0) + 0.5 * torch.stack(chunks).mean(dim=0)
        torch.testing.assert_close(pooled[b], nn.functional.normalize(h, dim=0))
    around, _ = rival(vectors.roll(2, dims=1), mask.roll(2, dims=1))
    torch.testing.assert_close(around, pooled)
    backwards, _ = rival(vectors.flip(1), mask.flip(1))
    assert not torch.allclose(backwards, pooled, atol=1e-3)


def test_mean_and_max_are_what_they_say() -> None:
    vectors, mask, _ = _random_views()
    mean, _ = MeanPooling()(vectors, mask)
    largest, weights = MaxPooling()(vectors, mask)
    for b in range(B):
        seen = vectors[b, mask[b]]
        torch.testing.assert_close(mean[b], nn.functional.normalize(seen.mean(dim=0), dim=0))
        torch.testing.assert_close(largest[b], nn.functional.normalize(seen.max(dim=0).values, dim=0))
        won = torch.stack([(vectors[b, v] == seen.max(dim=0).values).float().mean() for v in range(V)])
        torch.testing.assert_close(weights[b], torch.where(mask[b], won, 0))


def test_max_of_negative_values_is_not_won_by_a_masked_view() -> None:
    vectors = torch.tensor([[[-0.8, -0.6], [-0.6, -0.8], [0.0, 0.0]]])
    pooled, _ = MaxPooling()(vectors, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(pooled, nn.functional.normalize(torch.tensor([[-0.6, -0.6]]), dim=1))


def _without_dataset_scores(module: AdamPooling) -> AdamPooling:
    alone = AdamPooling(AdamConfig(D, dataset_scores="none"))
    alone.load_state_dict({name: value for name, value in module.state_dict().items() if name != "dataset"})
    return alone


def test_views_of_unknown_direction_go_by_their_instance_scores_alone() -> None:
    vectors, mask, directions = _random_views()
    slots = _trained(dataset_scores="slots", n_slots=9)  # a photo has no slot, and photos may be of any number
    assert torch.equal(slots(vectors, mask, None)[0], _without_dataset_scores(slots)(vectors, mask)[0])
    both = _trained()
    alone = _without_dataset_scores(both)
    expected = alone(vectors, mask)
    unknown = torch.full_like(directions, math.nan)
    for found in (both(vectors, mask, None), both(vectors, mask, unknown)):
        torch.testing.assert_close(found[0], expected[0])
        torch.testing.assert_close(found[1], expected[1])
    assert not torch.allclose(both(vectors, mask, directions)[1], expected[1], atol=1e-3)


def test_one_softmax_lets_a_worthless_view_fall_to_zero_and_two_do_not() -> None:
    vectors, mask, directions = _random_views()
    mask[:] = True
    for average, least in ((False, 0.0), (True, 1 / (2 * V))):
        pooling = AdamPooling(
            AdamConfig(D, instance_scores=False, dataset_scores="slots", n_slots=V, average_softmaxes=average)
        )
        with torch.no_grad():
            pooling.dataset[0] = -1e4
        _, weights = pooling(vectors, mask, directions)
        torch.testing.assert_close(weights[:, 0], torch.full((B,), least))


def test_gradients_reach_every_part() -> None:
    vectors, mask, directions = _random_views()
    for pooling in (_trained(), _trained(dataset_scores="slots", n_slots=V), _trained(average_softmaxes=True)):
        pooled, _ = pooling(vectors, mask, directions)
        (pooled @ torch.randn(D)).sum().backward()
        for name, parameter in pooling.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            if name != "instance.2.bias":  # a softmax does not see a constant
                assert parameter.grad.abs().max() > 1e-7, name


def test_an_untrained_module_can_start_to_learn_despite_its_zeros() -> None:
    vectors, mask, directions = _random_views()
    pooling = AdamPooling(AdamConfig(D))
    pooled, _ = pooling(vectors, mask, directions)
    (pooled @ torch.randn(D)).sum().backward()
    for parameter in (pooling.instance[2].weight, pooling.dataset, pooling.adapter.weight):
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-7


def test_harmonics_are_orthonormal_over_the_sphere() -> None:
    # Gauss-Legendre in height and even steps in azimuth integrate degree 6 exactly.
    nodes, weights = (torch.tensor(part) for part in np.polynomial.legendre.leggauss(8))
    azimuth = torch.arange(16, dtype=torch.float64) * (2 * math.pi / 16)
    flat = (1 - nodes**2).sqrt()
    points = torch.stack(
        [flat[:, None] * azimuth.sin(), nodes[:, None].expand(-1, 16), flat[:, None] * azimuth.cos()], dim=-1
    ).reshape(-1, 3)
    area = (weights[:, None] * (2 * math.pi / 16)).expand(-1, 16).reshape(-1, 1)
    values = harmonics(points)
    assert values.shape == (128, N_HARMONICS)
    torch.testing.assert_close(
        values.T @ (area * values), torch.eye(N_HARMONICS, dtype=torch.float64), atol=1e-7, rtol=0
    )
    torch.testing.assert_close(
        (area * values).sum(dim=0), torch.zeros(N_HARMONICS, dtype=torch.float64), atol=1e-9, rtol=0
    )


def test_harmonics_turn_about_the_up_axis() -> None:
    """Order 0 of each degree does not change around +Y."""
    azimuth = torch.linspace(0, 6, 7)
    ring = torch.stack([0.8 * azimuth.sin(), torch.full_like(azimuth, 0.6), 0.8 * azimuth.cos()], dim=1)
    values = harmonics(ring)
    zonal = [1, 5, 11]
    assert values[:, zonal].std(dim=0).max() < 1e-6
    assert values[:, [i for i in range(N_HARMONICS) if i not in zonal]].std(dim=0).min() > 0.05


@pytest.mark.parametrize(
    "pooling",
    [MeanPooling(), MaxPooling(), AdamPooling(AdamConfig(D)), ClipAdapterPooling(D), ChunkPooling(D)],
    ids=_name,
)
def test_arrays_that_do_not_belong_together_are_refused(pooling: nn.Module) -> None:
    vectors, mask, directions = _random_views()
    with pytest.raises(ShapeError, match="mask"):
        pooling(vectors, mask[:, :2])
    with pytest.raises(ShapeError, match="directions"):
        pooling(vectors, mask, directions[:, :2])
    with pytest.raises(ShapeError, match="no view"):
        pooling(vectors, torch.zeros_like(mask))
