"""Synthetic view vectors whose class information is in known dimensions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mvrender.cameras import parse_rig
from mvrender.shading import Style
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.config import AdapterConfig
from mvretrieval.weighting.network import NetworkConfig
from mvretrieval.weighting.whitening import Whitening, whiten_and_normalize
from mvtrain.features import Features
from mvtrain.train import Trained

DIM, VIEWS = 32, 6
INFORMATIVE = 8


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale rows to unit norm."""
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def synthetic_features(
    n_classes: int = 12, per_class: int = 6, styles: int = 1, seed: int = 0, nuisance: float = 1.5
) -> Features:
    """Classes differ in the first `INFORMATIVE` dimensions only; the other dimensions vary by object."""
    rng = np.random.default_rng(seed)
    n = n_classes * per_class
    class_means = np.zeros((n_classes, DIM))
    class_means[:, :INFORMATIVE] = rng.standard_normal((n_classes, INFORMATIVE))
    own = rng.standard_normal((n, DIM)) * np.where(np.arange(DIM) < INFORMATIVE, 0.3, nuisance)
    objects = np.repeat(class_means, per_class, axis=0) + own
    views = objects[:, None, None] + 0.2 * rng.standard_normal((n, styles, VIEWS, DIM))
    return Features(
        ids=tuple(f"object-{i}" for i in range(n)),
        labels=tuple(f"class-{i // per_class:02d}" for i in range(n)),
        views=unit(views).astype(np.float16),
        mask=np.ones((n, VIEWS), bool),
        directions=parse_rig(f"ring:{VIEWS}@30").directions.astype(np.float32),
    )


def with_noise(features: Features, noisy: NDArray[np.bool_], marked: bool = False, seed: int = 7) -> Features:
    """Replace the given views (N, V) with noise; `marked` makes them recognizable by their last dimension."""
    views = features.views.astype(np.float32)
    noise = np.random.default_rng(seed).standard_normal(views.shape)
    if marked:
        noise[..., -1] = 8
    views = np.where(noisy[:, None, :, None], unit(noise), views)
    return Features(features.ids, features.labels, views.astype(np.float16), features.mask, features.directions)


def adapter_of(
    features: Features, trained: Trained | None = None, network: NetworkConfig | None = None, whiten: int = 0
) -> Adapter:
    """A trained adapter, or an untrained one with its own whitening."""
    whitening = features.whitening(whiten) if trained is None else trained.whitening
    every: tuple[Style, ...] = ("texture", "clay", "depth")
    styles = every[: features.views.shape[1]]
    config = AdapterConfig(
        views="views=1 rig=ring styles=texture size=64 encoder=[synthetic]",
        encoder="builtin:",
        rig="ring:6@30",
        styles=styles,
        size=64,
        n_views=features.views.shape[2],
        dim=DIM if whitening is None else whitening.dim,
        network=network or NetworkConfig(),
    )
    if trained is None:
        return Adapter.untrained(config, whitening)
    return Adapter(config, trained.whitening, trained.network)


def pooled(features: Features, adapter: Adapter) -> NDArray[np.float32]:
    """Object vectors of an adapter."""
    return adapter.pool(features.views.astype(np.float32), features.mask, features.directions)[0]


def plain_mean(
    views: NDArray[np.floating], mask: NDArray[np.bool_], whitening: Whitening | None
) -> NDArray[np.float32]:
    """Mean of whitened and normalized views: slow, readable reference for an untrained adapter."""
    prepared = whiten_and_normalize(views.astype(np.float32), whitening)
    objects = [
        np.concatenate([unit(own[s, seen].mean(axis=0)) for s in range(len(own))]) / np.sqrt(len(own))
        for own, seen in zip(prepared, mask, strict=True)
    ]
    return np.stack(objects).astype(np.float32)
