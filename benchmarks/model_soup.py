"""Arithmetic with adapters: means over seeds (model soups, Wortsman et al. 2022), and carrying over what training changed.

An adapter's weights are small and start at the same place, so those of several runs lie in one basin. RE-AdaptIR
(Fleshman and Van Durme 2024) adds the difference that supervised tuning made in one domain to weights that were tuned
without labels in another.
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


def average(adapters: Sequence[Adapter], shares: Sequence[float] | None = None) -> Adapter:
    """Weighted mean of adapters' weights.

    Args:
        adapters: trained on the same views with the same statistics.
        shares: of each; equal by default. They should sum to 1.

    Raises:
        AdapterError: they are of different kinds, or look through different statistics.
    """
    _check_alike(adapters)
    shares = shares or [1 / len(adapters)] * len(adapters)
    states = [adapter.network.state_dict() for adapter in adapters]
    mixed = {
        name: torch.stack([share * state[name] for share, state in zip(shares, states, strict=True)]).sum(dim=0)
        for name in states[0]
    }
    return _with_weights(adapters, mixed)


def carry(onto: Adapter, tuned: Adapter, before: Adapter, strength: float = 1.0) -> Adapter:
    """Add what tuning changed to another adapter: onto + strength * (tuned - before).

    Args:
        onto: trained in the new domain, without labels.
        tuned: trained with labels in another domain.
        before: where `tuned` started.
        strength: how much of the difference.

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
                "adapters of different kinds have no weights in common: train them with the same options"
            )
        first.config.check_fits(other.config.views)
        if not _same(first.whitening, other.whitening):
            raise AdapterError(
                "the adapters whiten views differently, so their weights mean different things: train them with --start "
                "from one adapter, or on the same objects"
            )


def _same(a: Whitening | None, b: Whitening | None) -> bool:
    if a is None or b is None:
        return a is b
    transforms = (a.transform is None) == (b.transform is None) and (
        a.transform is None or b.transform is None or np.array_equal(a.transform, b.transform)
    )
    return transforms and np.array_equal(a.mean, b.mean)


def _with_weights(parts: Sequence[Adapter], weights: dict[str, Tensor]) -> Adapter:
    """All classes were seen; a map to words was learnt for other vectors and is left behind, as are metrics."""
    first = parts[0]
    classes = tuple(sorted({name for part in parts for name in part.config.classes}))
    text = "adapted" if first.config.text == "named" else first.config.text
    config = replace(first.config, metrics={}, training={}, classes=classes, text=text)
    made = Adapter.untrained(config, first.whitening)
    made.network.load_state_dict(weights)
    return made
