"""A view weighting without parameters: views near the mean view weigh more, outliers weigh less."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CentralViews(nn.Module):
    """a = softmax(cos(f_v, mean of f) / temperature)."""

    fingerprint = "central-1"

    def __init__(self, dim: int, n_views: int, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, views: Tensor, mask: Tensor, directions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `ViewPooling`: views (B, V, D), mask (B, V) -> object vectors (B, D), weights (B, V)."""
        rendered = torch.where(mask[..., None], views, 0)
        mean = nn.functional.normalize(rendered.sum(dim=1), dim=1)
        cosines = (nn.functional.normalize(rendered, dim=2) @ mean[..., None])[..., 0]
        weights = torch.softmax(torch.where(mask, cosines / self.temperature, -torch.inf), dim=1)
        return nn.functional.normalize((weights[..., None] * rendered).sum(dim=1), dim=1), weights
