"""The trained part of an adapter: one pooling module per style; the object vector concatenates their outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from mvrender import plugins
from mvretrieval.errors import AdapterError, did_you_mean
from mvretrieval.weighting.adam import AdamConfig, AdamPooling
from mvretrieval.weighting.baselines import AdaptedPooling, ChunkPooling, ClipAdapterPooling, MaxPooling, MeanPooling
from mvretrieval.weighting.plugin import fingerprint_of, make_weighting
from mvretrieval.weighting.view_weighting import DatasetScores

NamedPooling = Literal["adam", "mean", "max", "clip-adapter", "chunk"]
PoolingKind: TypeAlias = str
"""A `NamedPooling`, or the name of a plug-in (see `plugin`)."""


@dataclass(frozen=True)
class NetworkConfig:
    """Which pooling module, and which of its parts.

    Attributes:
        kind: adam (CLIP-AdaM), or one of its baselines: mean, max, clip-adapter (a residual bottleneck on the mean), chunk
            (a convolution over neighbouring views); or the name of a plug-in.
        instance_scores: adam: score views by their content.
        dataset_scores: adam: score views by camera direction, by slot, or not.
        linear: the adaptive layer on the pooled vector, for adam, mean, max and plug-ins.
        residual: r, the factor of the adaptive layer's output; for clip-adapter, the bottleneck's share, below 1. The default
            is 1, and 0.2 for clip-adapter.
        average_softmaxes: adam: average two softmaxes instead of taking one over the sum of both scores.
    """

    kind: PoolingKind = "adam"
    instance_scores: bool = True
    dataset_scores: DatasetScores = "directions"
    linear: bool = True
    residual: float | None = None
    average_softmaxes: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(NamedPooling) and plugins.find("weightings", self.kind) is None:
            kinds = [*get_args(NamedPooling), *plugins.names("weightings")]
            raise AdapterError(
                f"unknown pooling '{self.kind}': {did_you_mean(self.kind, kinds)}choose one of {', '.join(kinds)}, or "
                "install the package that provides it",
                code="unknown_pooling",
            )
        if self.dataset_scores not in get_args(DatasetScores):
            raise AdapterError(
                f"dataset_scores must be one of {', '.join(get_args(DatasetScores))}, not '{self.dataset_scores}'",
                code="unknown_dataset_scores",
            )
        self._refuse_unused_options()
        if self.residual is None:
            object.__setattr__(self, "residual", 0.2 if self.kind == "clip-adapter" else 1.0)
        elif self.kind == "clip-adapter" and not 0 <= self.residual < 1:
            # With r = 1 the bottleneck alone remains. It starts at zero, and so would every vector.
            raise AdapterError(
                f"the residual of clip-adapter is a share in [0, 1), not {self.residual:g}; the default is 0.2",
                code="residual_out_of_range",
            )

    def _refuse_unused_options(self) -> None:
        changed_scores = not self.instance_scores or self.dataset_scores != "directions" or self.average_softmaxes
        if self.kind != "adam" and changed_scores:
            raise AdapterError(
                f"pooling '{self.kind}' has no view scores, only adam has: remove the options about scores",
                code="unused_score_options",
            )
        if self.kind in ("clip-adapter", "chunk") and not self.linear:
            raise AdapterError(
                f"pooling '{self.kind}' has no adaptive layer to switch off; adam, mean and max have one",
                code="no_adaptive_layer",
            )
        if self.residual is not None and not self.linear and self.residual != 1:
            raise AdapterError(
                "the residual belongs to the adaptive layer, which is switched off: remove one of the two options",
                code="unused_residual",
            )

    @property
    def is_named(self) -> bool:
        """Whether the pooling is built in, and not a plug-in."""
        return self.kind in get_args(NamedPooling)

    @property
    def by_slot(self) -> bool:
        """Whether the module is tied to the number and order of the views it was trained on."""
        return self.kind == "adam" and self.dataset_scores == "slots"


class AdapterNetwork(nn.Module):
    """Views of several styles -> one object vector. Untrained, it is mean (or max) pooling per style."""

    def __init__(self, config: NetworkConfig, n_styles: int, dim: int, n_views: int) -> None:
        """Create one untrained module per style.

        Args:
            config: which modules.
            n_styles: S.
            dim: K of the view vectors.
            n_views: V, for slot scores and plug-ins.

        Raises:
            AdapterError: a plug-in is missing, or does not keep the contract of `ViewPooling`.
        """
        super().__init__()
        self.styles = nn.ModuleList(_pooling(config, dim, n_views) for _ in range(n_styles))
        self.plugin_fingerprint = "" if config.is_named else fingerprint_of(_weighting_of(self.styles[0]))

    def forward(self, views: Tensor, mask: Tensor, directions: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pool a batch.

        Args:
            views: (B, S, V, K).
            mask: (B, V) bool.
            directions: (B, V, 3), or None where they are unknown.

        Returns:
            (B, S * K) unit norm, each style with norm 1 / sqrt(S), and weights (B, S, V).

        Raises:
            ShapeError: an object has no view, or slot scores get another number of views.
        """
        pooled, weights = zip(*(pool(views[:, s], mask, directions) for s, pool in enumerate(self.styles)), strict=True)
        return torch.cat(pooled, dim=1) / len(pooled) ** 0.5, torch.stack(weights, dim=1)


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
    plain: nn.Module
    if config.is_named:
        plain = MeanPooling() if config.kind == "mean" else MaxPooling()
    else:
        plain = make_weighting(config.kind, dim, n_views)
    return AdaptedPooling(plain, dim, config.residual) if config.linear else plain


def _weighting_of(pooling: nn.Module) -> nn.Module:
    return pooling.pooling if isinstance(pooling, AdaptedPooling) else pooling
