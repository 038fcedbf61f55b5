"""Options of an adapter's network, and the network over several styles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from error_codes import raises_code
from random_views import B, D, V, random_views, randomize

from mvretrieval.errors import AdapterError
from mvretrieval.weighting.network import AdapterNetwork, NetworkConfig


@pytest.mark.parametrize(
    ("kind", "options", "code", "value"),
    [
        ("adm", {}, "unknown_pooling", "did you mean 'adam'?"),
        ("adam", {"dataset_scores": "slot"}, "unknown_dataset_scores", "'slot'"),
        ("clip-adapter", {"residual": 1.0}, "residual_out_of_range", "[0, 1), not 1"),
        # An option without effect is a mistake of the caller.
        ("mean", {"instance_scores": False}, "unused_score_options", "'mean'"),
        ("mean", {"dataset_scores": "slots"}, "unused_score_options", "'mean'"),
        ("mean", {"average_softmaxes": True}, "unused_score_options", "'mean'"),
        ("chunk", {"linear": False}, "no_adaptive_layer", "'chunk'"),
        ("adam", {"linear": False, "residual": 0.5}, "unused_residual", ""),
    ],
)
def test_invalid_options_are_refused(kind: Any, options: dict[str, Any], code: str, value: str) -> None:
    with raises_code(AdapterError, code, value):
        NetworkConfig(kind, **options)


@pytest.mark.parametrize("kind", ["adam", "mean", "max", "clip-adapter", "chunk"])
def test_styles_are_pooled_separately_and_concatenated(kind: Any) -> None:
    vectors, mask, directions = random_views()
    network = randomize(AdapterNetwork(NetworkConfig(kind), 2, D, V))
    views = torch.stack([vectors, vectors.flip(2)], dim=1)
    pooled, weights = network(views, mask, directions)
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(B))
    for s, pooling in enumerate(network.styles):
        vector, own = pooling(views[:, s], mask, directions)
        torch.testing.assert_close(pooled[:, s * D : (s + 1) * D] * 2**0.5, vector)
        torch.testing.assert_close(weights[:, s], own)
