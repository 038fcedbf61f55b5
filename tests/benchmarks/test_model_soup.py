"""Arithmetic with adapter weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from error_codes import raises_code
from synthetic_features import adapter_of, pooled, synthetic_features

from benchmarks.model_soup import add_difference, average
from mvretrieval.errors import AdapterError
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.network import NetworkConfig

FEATURES = synthetic_features(4)


def _adapter(seed: int, whiten: int = 8) -> Adapter:
    adapter = adapter_of(FEATURES, whiten=whiten)
    torch.manual_seed(seed)
    for parameter in adapter.network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return adapter


def test_the_average_of_an_adapter_with_itself_is_the_adapter() -> None:
    adapter = _adapter(0)
    mean = average([adapter, _adapter(0), _adapter(0)])
    np.testing.assert_allclose(pooled(FEATURES, mean), pooled(FEATURES, adapter), atol=1e-6)
    assert average([adapter]).fingerprint == adapter.fingerprint
    a, b = _adapter(1), _adapter(2)
    mixed = average([a, b], [0.25, 0.75]).network.state_dict()
    for name, value in mixed.items():
        torch.testing.assert_close(value, 0.25 * a.network.state_dict()[name] + 0.75 * b.network.state_dict()[name])
    assert a.fingerprint == _adapter(1).fingerprint, "inputs are unchanged"


def test_adding_the_difference_to_the_initial_weights_is_the_tuned_adapter() -> None:
    before, tuned, onto = _adapter(0), _adapter(1), _adapter(2)
    np.testing.assert_allclose(
        pooled(FEATURES, add_difference(before, tuned, before)), pooled(FEATURES, tuned), atol=1e-5
    )
    np.testing.assert_allclose(
        pooled(FEATURES, add_difference(onto, before, before)), pooled(FEATURES, onto), atol=1e-5
    )
    np.testing.assert_allclose(
        pooled(FEATURES, add_difference(onto, tuned, before, 0)), pooled(FEATURES, onto), atol=1e-5
    )


def test_the_average_has_seen_the_classes_of_all() -> None:
    parts = [_adapter(seed) for seed in (0, 1)]
    for part, classes in zip(parts, (("a", "b"), ("b", "c")), strict=True):
        part.config = replace(part.config, classes=classes, text="named", metrics={"held_out_mAP": 1.0})
    mixed = average(parts)
    assert mixed.config.classes == ("a", "b", "c") and mixed.config.metrics == {}
    assert mixed.config.text == "adapted" and mixed.text_embeddings is None


def test_incompatible_adapters_are_refused() -> None:
    adapter = _adapter(0)
    other_views = synthetic_features(4, seed=3)
    other_whitening = Adapter(adapter.config, other_views.whitening(8), adapter.network)
    with raises_code(AdapterError, "different_whitening"):
        average([adapter, other_whitening])
    with raises_code(AdapterError, "different_whitening"):
        average(
            [
                _adapter(0, whiten=0),
                Adapter(_adapter(0, whiten=0).config, FEATURES.whitening(32), _adapter(0, 0).network),
            ]
        )
    with raises_code(AdapterError, "different_networks"):
        average([adapter, adapter_of(FEATURES, network=NetworkConfig("mean"), whiten=8)])
    # Without whitening, the fingerprint of the views identifies the encoder.
    raw = _adapter(0, whiten=0)
    foreign = Adapter(replace(raw.config, views=raw.config.views.replace("synthetic", "another")), None, raw.network)
    with pytest.raises(AdapterError, match="another"):
        average([raw, foreign])
