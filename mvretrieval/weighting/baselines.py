"""CLIP-Adapter (Gao et al. 2021, arXiv 2110.04544) on the mean of the views: the usual rival of CLIP-AdaM.

g = mean of the views
h = normalise((1 - r) g + r MLP(g))        MLP: D -> D/4 -> D
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvretrieval.weighting.pooling import mean_of_views


class ClipAdapterPooling(nn.Module):
    """`ViewPooling` with uniform weights and a bottleneck behind them. Untrained equal to mean pooling."""

    def __init__(self, dim: int, residual: float = 0.2) -> None:
        """Make the bottleneck.

        Args:
            dim: D of the view vectors.
            residual: r, the bottleneck's share; the paper's best value on most data sets by default.
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
        moved = self.bottleneck(scaled) / view_vectors.shape[-1] ** 0.5
        return nn.functional.normalize((1 - self.residual) * pooled + self.residual * moved, dim=1), weights


class ChunkPooling(nn.Module):
    """Chunk-and-adapt: a convolution over three neighbouring views, averaged, mixed with the mean of the views.

        c = mean over v of conv(f_{v-1}, f_v, f_{v+1})        the rig's ring closed
        h = normalise(g + r c)

    The order of the views matters, as that of a ring does. Untrained equal to mean pooling.
    """

    def __init__(self, dim: int, residual: float = 1.0) -> None:
        """Make the convolution.

        Args:
            dim: D of the view vectors.
            residual: r, how much of the convolution is added.
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
        kept = torch.where(view_mask[..., None], view_vectors, 0).transpose(1, 2)
        closed = torch.cat([kept[..., -1:], kept, kept[..., :1]], dim=2)
        chunks = self.convolution(closed).transpose(1, 2)  # (B, V, D)
        return nn.functional.normalize(
            pooled + self.residual * (weights[..., None] * chunks).sum(dim=1), dim=1
        ), weights
