"""View weightings that `weights-matter` compares with AdaM's. Each is a `ViewPooling`, followed by AdaM's adaptive layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mvretrieval.weighting.pooling import keep_rendered
from mvretrieval.weighting.view_weighting import masked_softmax


class ScoredViews(nn.Module):
    """Softmax of scores (B, V), and the weighted sum of the views."""

    def scores(self, views: Tensor, mask: Tensor) -> Tensor:
        """(B, V) scores of views (B, V, D), of which masked ones are zero."""
        raise NotImplementedError

    def forward(self, views: Tensor, mask: Tensor, directions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `ViewPooling`."""
        rendered = keep_rendered(views, mask)
        weights = masked_softmax(self.scores(rendered, mask), mask)
        return nn.functional.normalize((weights[..., None] * rendered).sum(dim=1), dim=1), weights


class Central(ScoredViews):
    """Cosine with the mean view, times a factor: outliers weigh less. The factor is learned if `learned`."""

    fingerprint = "1"

    def __init__(self, factor: float = 5.0, learned: bool = True) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor), requires_grad=learned)

    def scores(self, views: Tensor, mask: Tensor) -> Tensor:
        """See `ScoredViews`."""
        mean = nn.functional.normalize(views.sum(dim=1), dim=1)
        return self.factor * (nn.functional.normalize(views, dim=2) @ mean[..., None])[..., 0]


class Confident(ScoredViews):
    """Negative entropy of a view over prototypes of the seen classes, times a factor (as MV-CLIP, which uses class names)."""

    fingerprint = "1"

    def __init__(self, prototypes: Tensor, factor: float = 5.0, learned: bool = True, temperature: float = 0.1) -> None:
        super().__init__()
        self.prototypes: Tensor
        self.register_buffer("prototypes", prototypes)
        self.factor = nn.Parameter(torch.tensor(factor), requires_grad=learned)
        self.temperature = temperature

    def scores(self, views: Tensor, mask: Tensor) -> Tensor:
        """See `ScoredViews`."""
        logits = nn.functional.normalize(views, dim=2) @ self.prototypes.T / self.temperature
        logs = torch.log_softmax(logits, dim=2)
        entropy = -(logs.exp() * logs).sum(dim=2) / math.log(len(self.prototypes))
        return -self.factor * entropy


class SetAttention(ScoredViews):
    """Scores of each view in the light of the others: one head of attention over the views, then a linear score."""

    fingerprint = "1"

    def __init__(self, dim: int, width: int = 64) -> None:
        super().__init__()
        self.scale = dim**0.5
        self.query, self.key, self.value = (nn.Linear(dim, width, bias=False) for _ in range(3))
        self.own = nn.Linear(dim, width)
        self.last = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.last.weight)

    def scores(self, views: Tensor, mask: Tensor) -> Tensor:
        """See `ScoredViews`."""
        scaled = views * self.scale
        similar = self.query(scaled) @ self.key(scaled).transpose(1, 2) / self.query.out_features**0.5
        attention = torch.softmax(torch.where(mask[:, None], similar, -torch.inf), dim=2)
        score: Tensor = self.last(nn.functional.gelu(self.own(scaled) + attention @ self.value(scaled)))[..., 0]
        return score
