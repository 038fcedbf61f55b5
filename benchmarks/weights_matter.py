"""Where do view weights matter? Gain over equal weights on unseen classes, by setting and weighting: `weights-matter-SETTING`.

Each weighting is trained together with AdaM's adaptive layer behind it, on the same objects, with the same steps and seeds, and
compared with equal weights and the same layer. Values are differences of mAP on PSB's unseen classes, means over five seeds:

    learned      AdaM: scores of content and of camera direction
    content      AdaM without scores of direction
    slots        AdaM with scores by slot, in the setting `styles`: one score per style and direction
    central      cosine with the mean view, times a learned factor
    confident    negative entropy over prototypes of the seen classes, times a learned factor
    attention    scores from attention over the object's views
    query        weights from the query: softmax of its cosines with the object's views, trained with equal weights
    chosen       learned or equal weights, whichever is better on a third of the seen classes that was held out
    untrained central, untrained confident    whitened views, factor 5, no layer; against the mean of whitened views
    concatenated    in the setting `styles`: each style pooled separately, as `mvr index --styles` does
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.benchmark import Benchmark
from benchmarks.psb import SEEDS, Psb, mean_ap_of_scores, spread
from benchmarks.view_weightings import Central, Confident, SetAttention
from benchmarks.weighted_views import SETTINGS, weighted_views
from mvrender.plugins import register
from mvretrieval.evaluation.metrics import leave_one_out
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.network import NetworkConfig
from mvretrieval.weighting.whitening import Whitening, whiten_and_normalize
from mvtrain.config import TrainConfig
from mvtrain.features import Features
from mvtrain.train import train

_EQUAL, _LEARNED = NetworkConfig(kind="mean"), NetworkConfig()
_QUERY_FACTOR = 10.0
_STYLES = "styles"
Rows = NDArray[np.int64]


def weights_matter(setting: str) -> dict[str, float]:
    """Differences of unseen mAP for each weighting, and the unseen mAP of equal weights."""
    study = _Study(setting)
    return spread([study.of_seed(seed) for seed in SEEDS])


class _Study:
    """All weightings in one setting."""

    def __init__(self, setting: str) -> None:
        self.setting = setting
        self.apart = weighted_views(setting)  # styles apart
        self.train_rows, self.unseen_rows = np.flatnonzero(self.apart.train), np.flatnonzero(self.apart.unseen)
        whitening = self.apart.features.take(self.train_rows).whitening(TrainConfig().whiten)
        # With several styles, each is whitened by itself, and then they are views of one style.
        self.whitening = None if setting == _STYLES else whitening
        self.p = _styles_as_views(self.apart, whitening) if setting == _STYLES else self.apart
        self.prototypes = _prototypes(self.p.features.take(self.train_rows), self.whitening)

    def of_seed(self, seed: int) -> dict[str, float]:
        """Values of one seed."""
        equal = self._learn(_EQUAL, seed, self.train_rows)
        mean_ap = self._mean_ap(equal, self.unseen_rows)
        learned = self._mean_ap(self._learn(_LEARNED, seed, self.train_rows), self.unseen_rows) - mean_ap
        plain = self._mean_ap(self._untrained(replace(_EQUAL, linear=False)), self.unseen_rows)
        found = {
            "equal": mean_ap,
            "learned": learned,
            "chosen": learned if self._held_out_gain(seed) > 0 else 0.0,
            "query": self._by_query(equal) - mean_ap,
            "untrained": plain,
        }
        for name, network in self._others(learned=True).items():
            found[name] = self._mean_ap(self._learn(network, seed, self.train_rows), self.unseen_rows) - mean_ap
        for name, network in self._others(learned=False).items():
            found[f"untrained {name}"] = self._mean_ap(self._untrained(network), self.unseen_rows) - plain
        if self.setting == _STYLES:
            config = TrainConfig(folds=0, max_steps=_steps(), seed=seed, network=_EQUAL)
            concatenated = self.apart.vectors(self.apart.learn(config))
            found["concatenated"] = self.apart.mean_ap(concatenated)["unseen"] - mean_ap
        return found

    def _others(self, learned: bool) -> dict[str, NetworkConfig]:
        """Weightings besides AdaM's, as registered plug-ins."""
        made: dict[str, Callable[[int], nn.Module]] = {
            "central": lambda dim: Central(learned=learned),
            "confident": lambda dim: Confident(self.prototypes, learned=learned),
        }
        if learned:
            made["attention"] = SetAttention
        for name, make in made.items():
            register("weightings", f"study-{name}-{learned}", lambda dim, n_views, make=make: make(dim))
        networks = {name: NetworkConfig(kind=f"study-{name}-{learned}", linear=learned) for name in made}
        if learned:
            networks["content"] = NetworkConfig(dataset_scores="none")
            if self.setting == _STYLES:
                networks["slots"] = NetworkConfig(dataset_scores="slots")
        return networks

    def _untrained(self, network: NetworkConfig) -> Adapter:
        dim = self.p.features.views.shape[3] if self.whitening is None else self.whitening.dim
        return Adapter.untrained(replace(self.p.config, network=network, dim=dim), self.whitening)

    def _learn(self, network: NetworkConfig, seed: int, rows: Rows) -> Adapter:
        """Train on some objects. The whitening is that of all training objects: fitting it takes longer than training."""
        torch.manual_seed(seed)
        config = TrainConfig(folds=0, max_steps=_steps(), seed=seed, network=network, whiten=0)
        trained = train(self.p.features.take(rows), config, init_from=self._untrained(network))
        return self.p.adapter(trained, config)

    def _mean_ap(self, adapter: Adapter, rows: Rows) -> float:
        some = self.p.features.take(rows)
        vectors = adapter.pool(some.views.astype(np.float32), some.mask, some.directions)[0]
        return float(leave_one_out(vectors, some.labels).means()["mAP"])

    def _held_out_gain(self, seed: int) -> float:
        """Gain of learned weights on a third of the seen classes, after training on the others."""
        labels = np.array(self.p.features.labels)[self.train_rows]
        held_out = np.random.default_rng(seed).permutation(np.unique(labels))[::3]
        kept = self.train_rows[~np.isin(labels, held_out)]
        tested = self.train_rows[np.isin(labels, held_out)]
        learned, equal = (self._mean_ap(self._learn(network, seed, kept), tested) for network in (_LEARNED, _EQUAL))
        return learned - equal

    def _by_query(self, adapter: Adapter) -> float:
        """MAP of scores in which a query weights the views of each object by its cosines with them."""
        some = self.p.features.take(self.unseen_rows)
        views = adapter.adapt_views(some.views.astype(np.float32))[:, 0]  # (N, V, K)
        vectors = adapter.pool(some.views.astype(np.float32), some.mask, some.directions)[0]
        rows = []
        for vector in vectors:
            cosines = np.where(some.mask, views @ vector, -np.inf)
            weights = np.exp(_QUERY_FACTOR * (cosines - cosines.max(axis=1, keepdims=True)))
            rows.append((weights * np.where(some.mask, cosines, 0)).sum(axis=1) / weights.sum(axis=1))
        scores = np.stack(rows).astype(np.float32)
        return mean_ap_of_scores(scores + scores.T, some.labels)


@cache
def _steps() -> int:
    """Number of steps that `mvr train` chooses on the ring, used in all settings."""
    p = weighted_views("ring")
    return train(p.features.take(np.flatnonzero(p.train)), TrainConfig()).steps


def _styles_as_views(p: Psb, whitening: Whitening | None) -> Psb:
    """The views of all styles, whitened, as views of one style."""
    features = p.features
    n, s, v, _ = features.views.shape
    white = np.concatenate(
        [
            whiten_and_normalize(features.views[i : i + 256].astype(np.float32), whitening).astype(np.float16)
            for i in range(0, n, 256)
        ]
    )
    joined: Features = replace(
        features,
        views=white.reshape(n, 1, s * v, -1),
        mask=np.tile(features.mask, (1, s)),
        directions=np.tile(features.directions, (s, 1)),
    )
    return replace(p, features=joined, config=replace(p.config, styles=("texture",), n_views=s * v))


def _prototypes(features: Features, whitening: Whitening | None) -> Tensor:
    """(C, K) unit vectors: the mean of each class's whitened views."""
    white = whiten_and_normalize(features.views.astype(np.float32), whitening)[:, 0]
    means = np.where(features.mask[..., None], white, 0).sum(axis=1)
    labels = np.array(features.labels)
    classes = np.stack([means[labels == name].mean(axis=0) for name in features.classes])
    return nn.functional.normalize(torch.from_numpy(classes.astype(np.float32)), dim=1)


BENCHMARKS: Sequence[Benchmark] = tuple(
    Benchmark(
        f"weights-matter-{setting}",
        "fidelity",
        f"gain of view weights over equal ones, unseen mAP, {setting}",
        {},
        partial(weights_matter, setting),
    )
    for setting in SETTINGS
)
