"""Training on arrays of view vectors, without a collection; and the layers by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from error_codes import raises_code
from synthetic_features import synthetic_features

from mvretrieval import Adapter, AdaptiveLayer, ViewWeighting, ViewWeightingConfig
from mvretrieval.errors import AdapterError, ShapeError, TrainingError
from mvretrieval.evaluation.metrics import leave_one_out
from mvtrain import TrainConfig, fit_adapter_on_views

FEW = TrainConfig(whiten=0, folds=0, max_steps=30, classes_per_batch=12, learning_rate=1e-2, min_views=2)


def test_an_adapter_for_arrays_finds_unseen_classes_better_than_the_mean(tmp_path: Path) -> None:
    seen, unseen = synthetic_features(24), synthetic_features(10, seed=99)
    adapter = fit_adapter_on_views(seen.views[:, 0], seen.labels, seen.directions, FEW, mask=seen.mask)
    adapter.save(tmp_path / "adapter")
    adapter = Adapter.load(tmp_path / "adapter")
    vectors, weights = adapter.pool(unseen.views.astype(np.float32), unseen.mask, unseen.directions)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-5)
    mean = np.where(unseen.mask[..., None], unseen.views[:, 0], 0).astype(np.float32).sum(axis=1)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    learned, plain = (leave_one_out(v, unseen.labels).means()["mAP"] for v in (vectors, mean))
    assert learned > plain + 0.02
    assert adapter.config.encoder == adapter.config.rig == "arrays" and adapter.config.classes == tuple(seen.classes)
    with raises_code(AdapterError, "adapter_other_views"):
        adapter.config.check_fits("views=1 rig=r styles=texture size=64 encoder=[e]")


def test_unknown_directions_and_several_styles() -> None:
    features = synthetic_features(6)
    views = np.concatenate([features.views, features.views[..., ::-1]], axis=1)
    adapter = fit_adapter_on_views(views, features.labels, config=FEW, mask=features.mask, styles=("clay", "depth"))
    vectors, _ = adapter.pool(views.astype(np.float32), features.mask, None)
    assert vectors.shape == (len(features), 2 * views.shape[-1])
    again = fit_adapter_on_views(
        views, features.labels, config=FEW, mask=features.mask, styles=("clay", "depth"), init_from=adapter
    )
    assert again.config.classes == adapter.config.classes


_VIEWS = np.ones((4, 3, 8), np.float32)
_LABELS = ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"views": np.ones((4, 8))}, "views_shape"),
        ({"views": np.ones((0, 3, 8)), "labels": []}, "views_shape"),
        ({"labels": ["a"]}, "label_count"),
        ({"mask": np.ones((4, 2), bool)}, "mask_shape"),
        ({"mask": np.zeros((4, 3), bool)}, "no_view"),
        ({"directions": np.ones((4, 3))}, "directions_shape"),
        ({"views": np.full((4, 3, 8), np.nan)}, "not_finite"),
        ({"views": np.ones((4, 2, 3, 8))}, "style_count"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arguments: dict[str, Any], code: str) -> None:
    with raises_code(ShapeError, code):
        fit_adapter_on_views(**{"views": _VIEWS, "labels": _LABELS, "config": FEW, **arguments})


def test_what_cannot_be_learned_is_refused() -> None:
    with raises_code(TrainingError, "too_few_classes"):
        fit_adapter_on_views(_VIEWS, ["a"] * 4, config=FEW)
    with raises_code(TrainingError, "no_text_tower"):
        fit_adapter_on_views(_VIEWS, _LABELS, config=TrainConfig(loss="text"))


def test_the_adaptive_layer_commutes_with_the_weighted_sum() -> None:
    torch.manual_seed(0)
    weighting, layer = ViewWeighting(ViewWeightingConfig(dim=16)), AdaptiveLayer(16, residual=0.5)
    for parameter in [*weighting.parameters(), *layer.parameters()]:
        torch.nn.init.normal_(parameter, std=0.3)
    views, mask = torch.nn.functional.normalize(torch.randn(5, 7, 16), dim=-1), torch.rand(5, 7) < 0.8
    mask[:, 0] = True
    directions = torch.nn.functional.normalize(torch.randn(5, 7, 3), dim=-1)
    pooled, weights = weighting.weighted_sum(views, mask, directions)
    adapted = (weights[..., None] * layer(views)).sum(dim=1)
    torch.testing.assert_close(adapted, layer(pooled), atol=1e-6, rtol=1e-5)
    assert weights[~mask].abs().max() == 0
