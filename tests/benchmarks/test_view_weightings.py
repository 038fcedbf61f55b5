"""The view weightings of the benchmark `weights-matter` keep the contract of `ViewPooling`, and do what they say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.view_weightings import Central, Confident, ScoredViews, SetAttention
from mvrender.plugins import register
from mvretrieval.weighting.plugin import make_weighting

DIM = 16
PROTOTYPES = torch.eye(4, DIM)


@pytest.mark.parametrize("weighting", [Central(), Confident(PROTOTYPES), SetAttention(DIM)])
def test_the_contract(weighting: nn.Module) -> None:
    register("weightings", "test-study", lambda dim, n_views: weighting)
    make_weighting("test-study", DIM, 5)


def _weights(weighting: ScoredViews, views: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        weights: torch.Tensor = weighting(views, torch.ones(views.shape[:2], dtype=torch.bool))[1][0]
    return weights


def test_an_outlier_weighs_less() -> None:
    views = torch.eye(2, DIM)[[0, 0, 1]][None]
    weights = _weights(Central(), views)
    assert weights[2] < 0.2 < weights[0] == weights[1]


def test_a_view_that_resembles_one_class_weighs_more() -> None:
    sure, unsure = PROTOTYPES[1], PROTOTYPES.mean(dim=0)
    weights = _weights(Confident(PROTOTYPES), nn.functional.normalize(torch.stack([sure, unsure]), dim=1)[None])
    assert weights[0] > 0.9


def test_untrained_attention_is_the_mean() -> None:
    views = nn.functional.normalize(torch.randn(1, 5, DIM, generator=torch.Generator().manual_seed(0)), dim=2)
    torch.testing.assert_close(_weights(SetAttention(DIM), views), torch.full((5,), 0.2))
