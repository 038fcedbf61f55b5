"""The trained part of an adapter: one pooling module for each style, their vectors behind one another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mvretrieval.errors import AdapterError, did_you_mean
from mvretrieval.weighting.adam import AdamConfig, AdamPooling, DatasetScores
from mvretrieval.weighting.baselines import ChunkPooling, ClipAdapterPooling
from mvretrieval.weighting.pooling import MaxPooling, MeanPooling

PoolingKind = Literal["adam", "mean", "max", "clip-adapter", "chunk"]


@dataclass(frozen=True)
class NetworkConfig:
    """Which module weighs the views, and its parts.

    Attributes:
        kind: adam (CLIP-AdaM), or one of its rivals: mean, max, clip-adapter (bottleneck behind the mean), chunk
            (convolution over neighbouring views).
        instance_scores: adam: view scores from each view's content.
        dataset_scores: adam: view scores by camera direction, by slot, or none.
        linear: the linear layer behind the pooled vector, of adam, mean and max.
        residual: r, how much of what the layer says is added to the pooled vector; of clip-adapter, the share that takes
            the pooled vector's place, below 1. 1 by default, and 0.2 for clip-adapter.
        average_softmaxes: adam: the mean of two softmaxes instead of one over the sum of both scores.
    """

    kind: PoolingKind = "adam"
    instance_scores: bool = True
    dataset_scores: DatasetScores = "directions"
    linear: bool = True
    residual: float | None = None
    average_softmaxes: bool = False

    def __post_init__(self) -> None:
        kinds = get_args(PoolingKind)
        if self.kind not in kinds:
            raise AdapterError(
                f"unknown pooling '{self.kind}': {did_you_mean(self.kind, kinds)}known are {', '.join(kinds)}"
            )
        if self.dataset_scores not in get_args(DatasetScores):
            raise AdapterError(
                f"dataset_scores is one of {', '.join(get_args(DatasetScores))}, not {self.dataset_scores}"
            )
        self._refuse_parts_of_others()
        if self.residual is None:
            object.__setattr__(self, "residual", 0.2 if self.kind == "clip-adapter" else 1.0)
        elif self.kind == "clip-adapter" and not 0 <= self.residual < 1:
            # At 1 nothing is left of the views: the bottleneck starts at zero, and so would every vector.
            raise AdapterError(
                f"the residual of clip-adapter is a share in [0, 1), not {self.residual:g}; the usual is 0.2"
            )

    def _refuse_parts_of_others(self) -> None:
        scores = not self.instance_scores or self.dataset_scores != "directions" or self.average_softmaxes
        if self.kind != "adam" and scores:
            raise AdapterError(
                f"view scores are parts of adam; '{self.kind}' has none to switch: leave these options out"
            )
        if self.kind in ("clip-adapter", "chunk") and not self.linear:
            raise AdapterError(f"'{self.kind}' has no linear layer that could be left out; 'mean' and 'max' have")
        if self.residual is not None and not self.linear and self.residual != 1:
            raise AdapterError(
                "the residual is of the linear layer, which is switched off: leave one of the two options out"
            )

    @property
    def by_slot(self) -> bool:
        """Whether the module is tied to the number and the order of the views that it was trained on."""
        return self.kind == "adam" and self.dataset_scores == "slots"


class AdapterNetwork(nn.Module):
    """Views of several styles -> one object vector. Untrained equal to mean (or max) pooling of each style."""

    def __init__(self, config: NetworkConfig, n_styles: int, dim: int, n_views: int) -> None:
        """Make one module for each style.

        Args:
            config: which modules.
            n_styles: S.
            dim: K of the view vectors.
            n_views: V, for slot scores.
        """
        super().__init__()
        self.styles = nn.ModuleList(_pooling(config, dim, n_views) for _ in range(n_styles))

    def forward(self, views: Tensor, mask: Tensor, directions: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pool a batch.

        Args:
            views: (B, S, V, K).
            mask: (B, V) bool.
            directions: (B, V, 3), or None where they are unknown.

        Returns:
            (B, S * K) unit norm, each style with the same share, and weights (B, S, V).

        Raises:
            ShapeError: an object has no view, or slot scores meet another number of views.
        """
        pooled, weights = zip(*(pool(views[:, s], mask, directions) for s, pool in enumerate(self.styles)), strict=True)
        return torch.cat(pooled, dim=1) / len(pooled) ** 0.5, torch.stack(weights, dim=1)


class _Linear(nn.Module):
    """Mean or max pooling with AdaM's linear layer behind it."""

    def __init__(self, pooling: nn.Module, dim: int, residual: float) -> None:
        super().__init__()
        self.pooling, self.residual = pooling, residual
        self.adapter = nn.Linear(dim, dim, bias=False)
        nn.init.zeros_(self.adapter.weight)

    def forward(self, views: Tensor, mask: Tensor, directions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        pooled, weights = self.pooling(views, mask, directions)
        return nn.functional.normalize(pooled + self.residual * self.adapter(pooled), dim=1), weights


def _pooling(config: NetworkConfig, dim: int, n_views: int) -> nn.Module:
    assert config.residual is not None
    if config.kind == "adam":
        return AdamPooling(
            AdamConfig(
                dim,
                instance_scores=config.instance_scores,
                dataset_scores=config.dataset_scores,
                n_slots=n_views if config.by_slot else 0,
                adapter=config.linear,
                residual=config.residual,
                average_softmaxes=config.average_softmaxes,
            )
        )
    if config.kind == "clip-adapter":
        return ClipAdapterPooling(dim, config.residual)
    if config.kind == "chunk":
        return ChunkPooling(dim, config.residual)
    plain = MeanPooling() if config.kind == "mean" else MaxPooling()
    return _Linear(plain, dim, config.residual) if config.linear else plain
