"""Arithmetic with adapter weights: averages (model soups, Wortsman et al. 2022) and differences (RE-AdaptIR).

Adapters are small and share their initialization, so the weights of several runs are in one basin. RE-AdaptIR (Fleshman
and Van Durme 2024) adds the weight change of supervised training in one domain to weights trained without labels in
another domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from mvretrieval.errors import AdapterError
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.whitening import Whitening


def average(adapters: Sequence[Adapter], coefficients: Sequence[float] | None = None) -> Adapter:
    """Weighted mean of adapters' weights.

    Args:
        adapters: trained on the same kind of views with the same whitening.
        coefficients: of each; equal by default. They should sum to 1.

    Raises:
        AdapterError: their networks or their whitening differ.
    """
    _check_alike(adapters)
    coefficients = coefficients or [1 / len(adapters)] * len(adapters)
    states = [adapter.network.state_dict() for adapter in adapters]
    mixed = {
        name: torch.stack([c * state[name] for c, state in zip(coefficients, states, strict=True)]).sum(dim=0)
        for name in states[0]
    }
    return _with_weights(adapters, mixed)


def add_difference(onto: Adapter, tuned: Adapter, before: Adapter, strength: float = 1.0) -> Adapter:
    """Add the weight change of a training to another adapter: onto + strength * (tuned - before).

    Args:
        onto: trained in the new domain, without labels.
        tuned: trained with labels in another domain.
        before: the initial weights of `tuned`.
        strength: factor of the difference.

    Raises:
        AdapterError: see `average`.
    """
    return average([onto, tuned, before], [1.0, strength, -strength])


def _check_alike(adapters: Sequence[Adapter]) -> None:
    first = adapters[0]
    for other in adapters[1:]:
        same_parts = first.config.network == other.config.network and first.config.dim == other.config.dim
        if not same_parts or first.config.styles != other.config.styles:
            raise AdapterError(
                "the adapters have different networks: train them with the same options", code="different_networks"
            )
        first.config.check_fits(other.config.views)
        if not _same(first.whitening, other.whitening):
            raise AdapterError(
                "the adapters have different whitening, so their weights are not comparable: train them with --init-from "
                "the same adapter, or on the same objects",
                code="different_whitening",
            )


def _same(a: Whitening | None, b: Whitening | None) -> bool:
    if a is None or b is None:
        return a is b
    transforms = (a.transform is None) == (b.transform is None) and (
        a.transform is None or b.transform is None or np.array_equal(a.transform, b.transform)
    )
    return transforms and np.array_equal(a.mean, b.mean)


def _with_weights(parts: Sequence[Adapter], weights: dict[str, Tensor]) -> Adapter:
    """An adapter with these weights that has seen all classes; text projection and metrics are dropped."""
    first = parts[0]
    classes = tuple(sorted({name for part in parts for name in part.config.classes}))
    text = "adapted" if first.config.text == "named" else first.config.text
    config = replace(first.config, metrics={}, training={}, classes=classes, text=text)
    adapter = Adapter.untrained(config, first.whitening)
    adapter.network.load_state_dict(weights)
    return adapter
