"""AdaM: view weighting and adaptive layer against plain formulas."""

from __future__ import annotations

import math

import pytest
import torch
from error_codes import raises_code
from random_views import B, D, V, random_views, randomize
from torch import nn

from mvretrieval.errors import ShapeError
from mvretrieval.weighting.adam import AdamConfig, AdamPooling
from mvretrieval.weighting.adaptive_layer import AdaptiveLayer
from mvretrieval.weighting.baselines import MeanPooling
from mvretrieval.weighting.spherical_harmonics import harmonics
from mvretrieval.weighting.view_weighting import ViewWeighting, ViewWeightingConfig


def _trained(**options: object) -> AdamPooling:
    return randomize(AdamPooling(AdamConfig(D, **options)))  # type: ignore[arg-type]


def test_adam_equals_its_formula() -> None:
    vectors, mask, directions = random_views()
    pooling = _trained(residual=0.7)
    pooled, weights = pooling(vectors, mask, directions)
    for b in range(B):
        views = vectors[b, mask[b]]
        s = torch.stack([pooling.instance(4 * f)[0] for f in views])  # 4 = sqrt(D)
        d = torch.stack([harmonics(direction) @ pooling.dataset for direction in directions[b, mask[b]]])
        a = (s + d).exp() / (s + d).exp().sum()
        h = sum(a_v * (f + 0.7 * pooling.adapter.weight @ f) for a_v, f in zip(a, views, strict=True))
        torch.testing.assert_close(weights[b, mask[b]], a)
        torch.testing.assert_close(pooled[b], nn.functional.normalize(h, dim=0))


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("dataset", ["directions", "slots", "none"])
def test_the_adaptive_layer_commutes_with_pooling(dataset: str, average: bool) -> None:
    """Per view and then the weighted sum, or once on the pooled vector: W has no bias and weights sum to 1."""
    vectors, mask, directions = random_views()
    pooling = _trained(dataset_scores=dataset, n_slots=V, average_softmaxes=average, residual=0.7)
    pooled, weights = pooling(vectors, mask, directions)
    adapted_views = pooling.adapter(vectors)
    per_view = (weights[..., None] * adapted_views).sum(dim=1)
    torch.testing.assert_close(nn.functional.normalize(per_view, dim=1), pooled)


def test_the_adaptive_layer_is_a_residual_linear_map_and_starts_as_the_identity() -> None:
    vectors, _, _ = random_views()
    layer = AdaptiveLayer(D, residual=0.3)
    assert torch.equal(layer(vectors), vectors) and layer.bias is None
    randomize(layer)
    expected = torch.stack([torch.stack([f + 0.3 * layer.weight @ f for f in views]) for views in vectors])
    torch.testing.assert_close(layer(vectors), expected)


def test_adam_without_its_layer_is_the_view_weighting() -> None:
    views = random_views()
    adam = _trained(adapter=False)
    weighting = ViewWeighting(ViewWeightingConfig(D))
    weighting.load_state_dict(adam.state_dict())
    for found, wanted in zip(adam(*views), weighting(*views), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("instance", [True, False])
@pytest.mark.parametrize("dataset", ["directions", "slots", "none"])
@pytest.mark.parametrize("adapter", [True, False])
@pytest.mark.parametrize("average", [True, False])
def test_untrained_adam_is_mean_pooling(instance: bool, dataset: str, adapter: bool, average: bool) -> None:
    vectors, mask, directions = random_views()
    config = AdamConfig(D, instance, dataset, V, average, adapter)  # type: ignore[arg-type]
    expected, uniform = MeanPooling()(vectors, mask, directions)
    pooled, weights = AdamPooling(config)(vectors, mask, directions)
    torch.testing.assert_close(pooled, expected)
    torch.testing.assert_close(weights, uniform)


def test_parameter_names_are_those_of_existing_files() -> None:
    names = {
        "instance.0.weight",
        "instance.0.bias",
        "instance.2.weight",
        "instance.2.bias",
        "dataset",
        "adapter.weight",
    }
    assert set(AdamPooling(AdamConfig(D)).state_dict()) == names


# -- scores ------------------------------------------------------------------------------------------------------------


def test_slot_scores_depend_on_the_order_and_the_number_of_views() -> None:
    vectors, mask, directions = random_views()
    pooling = _trained(dataset_scores="slots", n_slots=V)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    _, weights = pooling(vectors, mask, directions)
    _, permuted = pooling(vectors[:, order], mask[:, order], directions[:, order])
    assert not torch.allclose(permuted, weights[:, order], atol=1e-3)
    with raises_code(ShapeError, "slot_count", "6 views", "got 5"):
        pooling(vectors[:, :5], mask[:, :5], directions[:, :5])
    with raises_code(ShapeError, "no_slots"):
        AdamConfig(D, dataset_scores="slots")


def _without_dataset_scores(module: AdamPooling) -> AdamPooling:
    other = AdamPooling(AdamConfig(D, dataset_scores="none"))
    other.load_state_dict({name: value for name, value in module.state_dict().items() if name != "dataset"})
    return other


def test_views_of_unknown_direction_have_instance_scores_only() -> None:
    vectors, mask, directions = random_views()
    slots = _trained(dataset_scores="slots", n_slots=9)  # a photo has no slot, and there may be any number of photos
    assert torch.equal(slots(vectors, mask, None)[0], _without_dataset_scores(slots)(vectors, mask)[0])
    both = _trained()
    expected = _without_dataset_scores(both)(vectors, mask)
    unknown = torch.full_like(directions, math.nan)
    for found in (both(vectors, mask, None), both(vectors, mask, unknown)):
        torch.testing.assert_close(found[0], expected[0])
        torch.testing.assert_close(found[1], expected[1])
    assert not torch.allclose(both(vectors, mask, directions)[1], expected[1], atol=1e-3)


def test_one_softmax_lets_the_weight_of_a_useless_view_reach_zero_and_two_do_not() -> None:
    vectors, mask, directions = random_views()
    mask[:] = True
    for average, least in ((False, 0.0), (True, 1 / (2 * V))):
        pooling = AdamPooling(
            AdamConfig(D, instance_scores=False, dataset_scores="slots", n_slots=V, average_softmaxes=average)
        )
        with torch.no_grad():
            pooling.dataset[0] = -1e4
        _, weights = pooling(vectors, mask, directions)
        torch.testing.assert_close(weights[:, 0], torch.full((B,), least))


# -- gradients ---------------------------------------------------------------------------------------------------------


def test_gradients_reach_every_parameter() -> None:
    vectors, mask, directions = random_views()
    for pooling in (_trained(), _trained(dataset_scores="slots", n_slots=V), _trained(average_softmaxes=True)):
        pooled, _ = pooling(vectors, mask, directions)
        (pooled @ torch.randn(D)).sum().backward()
        for name, parameter in pooling.named_parameters():
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            if name != "instance.2.bias":  # a softmax ignores a constant
                assert parameter.grad.abs().max() > 1e-7, name


def test_an_untrained_module_has_gradients_despite_its_zeros() -> None:
    vectors, mask, directions = random_views()
    pooling = AdamPooling(AdamConfig(D))
    pooled, _ = pooling(vectors, mask, directions)
    (pooled @ torch.randn(D)).sum().backward()
    last = pooling.instance[2]
    assert isinstance(last, torch.nn.Linear)
    for parameter in (last.weight, pooling.dataset, pooling.adapter.weight):
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-7
