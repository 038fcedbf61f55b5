"""Baselines of CLIP-AdaM: mean, max, CLIP-Adapter and chunk pooling."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvretrieval.weighting.adaptive_layer import AdaptiveLayer
from mvretrieval.weighting.pooling import check_shapes, keep_rendered, mean_of_views


class MeanPooling(nn.Module):
    """Uniform weights."""

    def forward(
        self, view_vectors: Tensor, view_mask: Tensor, directions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `ViewPooling`."""
        pooled, weights = mean_of_views(view_vectors, view_mask, directions)
        return nn.functional.normalize(pooled, dim=1), weights


class MaxPooling(nn.Module):
    """Maximum of each dimension over the views (MVCNN); a view's weight is its fraction of the maxima."""

    def forward(
        self, view_vectors: Tensor, view_mask: Tensor, directions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `ViewPooling`."""
        check_shapes(view_vectors, view_mask, directions)
        rendered = torch.where(view_mask[..., None], view_vectors, -torch.inf)
        largest, winner = rendered.max(dim=1)
        counts = torch.zeros_like(view_mask, dtype=view_vectors.dtype)
        counts.scatter_add_(1, winner, torch.ones_like(largest))
        return nn.functional.normalize(largest, dim=1), counts / largest.shape[1]


class AdaptedPooling(nn.Module):
    """Any pooling with AdaM's adaptive layer after it."""

    def __init__(self, pooling: nn.Module, dim: int, residual: float) -> None:
        """Create an untrained layer.

        Args:
            pooling: a `ViewPooling`.
            dim: D of the view vectors.
            residual: r of the layer.
        """
        super().__init__()
        self.pooling = pooling
        self.adapter = AdaptiveLayer(dim, residual)

    def forward(
        self, view_vectors: Tensor, view_mask: Tensor, directions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `ViewPooling`."""
        pooled, weights = self.pooling(view_vectors, view_mask, directions)
        return nn.functional.normalize(self.adapter(pooled), dim=1), weights


class ClipAdapterPooling(nn.Module):
    """CLIP-Adapter (Gao et al. 2021, arXiv 2110.04544) on the mean of the views: a residual bottleneck.

        g = mean of the views
        h = normalize((1 - r) g + r MLP(g))        MLP: D -> D/4 -> D

    Untrained, it equals mean pooling.
    """

    def __init__(self, dim: int, residual: float = 0.2) -> None:
        """Create an untrained bottleneck.

        Args:
            dim: D of the view vectors.
            residual: r, the bottleneck's share; the default is the paper's best value on most data sets.
        """
        super().__init__()
        self.residual = residual
        last = nn.Linear(max(1, dim // 4), dim, bias=False)
        nn.init.zeros_(last.weight)
        self.bottleneck = nn.Sequential(nn.Linear(dim, max(1, dim // 4), bias=False), nn.GELU(), last)

    def forward(
        self, view_vectors: Tensor, view_mask: Tensor, directions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `ViewPooling`."""
        pooled, weights = mean_of_views(view_vectors, view_mask, directions)
        scaled = pooled * view_vectors.shape[-1] ** 0.5
        adapted = self.bottleneck(scaled) / view_vectors.shape[-1] ** 0.5
        return nn.functional.normalize((1 - self.residual) * pooled + self.residual * adapted, dim=1), weights


class ChunkPooling(nn.Module):
    """Chunk-and-adapt: a convolution over three neighbouring views, averaged and added to the mean of the views.

        c = mean over v of conv(f_{v-1}, f_v, f_{v+1})        circular, as the rig's ring is
        h = normalize(g + r c)

    It depends on the order of the views. Untrained, it equals mean pooling.
    """

    def __init__(self, dim: int, residual: float = 1.0) -> None:
        """Create an untrained convolution.

        Args:
            dim: D of the view vectors.
            residual: r, the weight of the convolution.
        """
        super().__init__()
        self.residual = residual
        self.convolution = nn.Conv1d(dim, dim, kernel_size=3, bias=False)
        nn.init.zeros_(self.convolution.weight)

    def forward(
        self, view_vectors: Tensor, view_mask: Tensor, directions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `ViewPooling`."""
        pooled, weights = mean_of_views(view_vectors, view_mask, directions)
        rendered = keep_rendered(view_vectors, view_mask).transpose(1, 2)
        closed = torch.cat([rendered[..., -1:], rendered, rendered[..., :1]], dim=2)
        chunks = self.convolution(closed).transpose(1, 2)  # (B, V, D)
        pooled = pooled + self.residual * (weights[..., None] * chunks).sum(dim=1)
        return nn.functional.normalize(pooled, dim=1), weights
