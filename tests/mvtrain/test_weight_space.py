"""Arithmetic with adapters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_features import adapter_of, made_features, pooled

from benchmarks.model_soup import average, carry
from mvretrieval.errors import AdapterError
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.network import NetworkConfig

FEATURES = made_features(4)


def _adapter(seed: int, whiten: int = 8) -> Adapter:
    adapter = adapter_of(FEATURES, whiten=whiten)
    torch.manual_seed(seed)
    for parameter in adapter.network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return adapter


def test_the_mean_of_one_adapter_with_itself_is_the_adapter() -> None:
    adapter = _adapter(0)
    mean = average([adapter, _adapter(0), _adapter(0)])
    np.testing.assert_allclose(pooled(FEATURES, mean), pooled(FEATURES, adapter), atol=1e-6)
    assert average([adapter]).fingerprint == adapter.fingerprint
    a, b = _adapter(1), _adapter(2)
    mixed = average([a, b], [0.25, 0.75]).network.state_dict()
    for name, value in mixed.items():
        torch.testing.assert_close(value, 0.25 * a.network.state_dict()[name] + 0.75 * b.network.state_dict()[name])
    assert a.fingerprint == _adapter(1).fingerprint, "what goes in is left alone"


def test_what_tuning_changed_carried_back_is_the_tuned_adapter() -> None:
    before, tuned, onto = _adapter(0), _adapter(1), _adapter(2)
    np.testing.assert_allclose(pooled(FEATURES, carry(before, tuned, before)), pooled(FEATURES, tuned), atol=1e-5)
    np.testing.assert_allclose(pooled(FEATURES, carry(onto, before, before)), pooled(FEATURES, onto), atol=1e-5)
    np.testing.assert_allclose(pooled(FEATURES, carry(onto, tuned, before, 0)), pooled(FEATURES, onto), atol=1e-5)


def test_who_saw_what_is_not_lost() -> None:
    parts = [_adapter(seed) for seed in (0, 1)]
    for part, classes in zip(parts, (("a", "b"), ("b", "c")), strict=True):
        part.config = replace(part.config, classes=classes, text="named", metrics={"held_out_mAP": 1.0})
    mixed = average(parts)
    assert mixed.config.classes == ("a", "b", "c") and mixed.config.metrics == {}
    assert mixed.config.text == "adapted" and mixed.text_embeddings is None


def test_adapters_that_mean_different_things_are_refused() -> None:
    adapter = _adapter(0)
    other_views = made_features(4, seed=3)
    looks_elsewhere = Adapter(adapter.config, other_views.whitening(8), adapter.network)
    with pytest.raises(AdapterError, match="whiten views differently"):
        average([adapter, looks_elsewhere])
    with pytest.raises(AdapterError, match="whiten views differently"):
        average(
            [
                _adapter(0, whiten=0),
                Adapter(_adapter(0, whiten=0).config, FEATURES.whitening(32), _adapter(0, 0).network),
            ]
        )
    with pytest.raises(AdapterError, match="different kinds"):
        average([adapter, adapter_of(FEATURES, network=NetworkConfig("mean"), whiten=8)])
    # Without statistics nothing but the views' fingerprint tells encoders apart.
    raw = _adapter(0, whiten=0)
    foreign = Adapter(replace(raw.config, views=raw.config.views.replace("made up", "another")), None, raw.network)
    with pytest.raises(AdapterError, match="another"):
        average([raw, foreign])
