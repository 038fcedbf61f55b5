"""CLIP-AdaM's view weighting and linear adapter (SIGIR 2025), with the sizes that its paper leaves open.

    s_v = MLP(sqrt(D) f_v)            instance score, D -> D/8 -> 1
    d_v = one number per slot, or c . Y(direction of camera v)        data-set score
    a   = softmax(s + d)              masked views: -inf before the softmax
    g   = sum_v a_v f_v
    h   = normalise(g + r W g)        r: residual ratio

Scores are added before one softmax, so that a worthless view can fall to zero; the average of two softmaxes would keep
it at 1/(2V) while the other set is flat (`average_softmaxes`, for comparison). Last layers start at zero: an untrained
module is exactly mean pooling. The root of D gives the entries of a unit vector the size that a linear layer's starting
weights are made for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mvretrieval.errors import ShapeError
from mvretrieval.weighting.pooling import check_shapes
from mvretrieval.weighting.spherical_harmonics import N_HARMONICS, harmonics

DatasetScores = Literal["directions", "slots", "none"]


@dataclass(frozen=True)
class AdamConfig:
    """Which parts of AdaM are on.

    Attributes:
        dim: D of the view vectors.
        instance_scores: s_v from each view's content.
        dataset_scores: d_v by camera direction, by slot (view order and count then matter), or none.
        n_slots: V, for `slots`.
        adapter: the linear layer W.
        residual: r.
        average_softmaxes: the mean of two softmaxes instead of one over the sum.
    """

    dim: int
    instance_scores: bool = True
    dataset_scores: DatasetScores = "directions"
    n_slots: int = 0
    adapter: bool = True
    residual: float = 1.0
    average_softmaxes: bool = False

    def __post_init__(self) -> None:
        if self.dataset_scores == "slots" and self.n_slots < 1:
            raise ShapeError("slot scores need n_slots, the number of views that they are tied to")


class AdamPooling(nn.Module):
    """`ViewPooling` with learned weights."""

    def __init__(self, config: AdamConfig) -> None:
        """Untrained: equal to mean pooling.

        Args:
            config: parts and sizes.
        """
        super().__init__()
        self.config = config
        hidden = max(1, config.dim // 8)
        if config.instance_scores:
            last = nn.Linear(hidden, 1)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.instance = nn.Sequential(nn.Linear(config.dim, hidden), nn.GELU(), last)
        if config.dataset_scores == "slots":
            self.dataset = nn.Parameter(torch.zeros(config.n_slots))
        elif config.dataset_scores == "directions":
            self.dataset = nn.Parameter(torch.zeros(N_HARMONICS))
        if config.adapter:
            self.adapter = nn.Linear(config.dim, config.dim, bias=False)
            nn.init.zeros_(self.adapter.weight)

    def forward(
        self, view_vectors: Tensor, view_mask: Tensor, directions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `ViewPooling`."""
        check_shapes(view_vectors, view_mask, directions)
        kept = torch.where(view_mask[..., None], view_vectors, 0)
        weights = self._weights(kept, view_mask, directions)
        pooled = (weights[..., None] * kept).sum(dim=1)
        if self.config.adapter:
            pooled = pooled + self.config.residual * self.adapter(pooled)
        return nn.functional.normalize(pooled, dim=1), weights

    def _weights(self, kept: Tensor, mask: Tensor, directions: Tensor | None) -> Tensor:
        zero = torch.zeros_like(kept[..., 0])
        instance = self.instance(kept * self.config.dim**0.5)[..., 0] if self.config.instance_scores else zero
        dataset = self._dataset_scores(zero, directions)
        if self.config.average_softmaxes:
            return (_softmax(instance, mask) + _softmax(dataset, mask)) / 2
        return _softmax(instance + dataset, mask)

    def _dataset_scores(self, zero: Tensor, directions: Tensor | None) -> Tensor:
        if self.config.dataset_scores == "none" or directions is None:
            return zero
        if self.config.dataset_scores == "slots":
            if zero.shape[1] != self.config.n_slots:
                raise ShapeError(f"slot scores were made for {self.config.n_slots} views, not {zero.shape[1]}")
            return zero + self.dataset
        # A photo's direction is unknown (NaN): it goes by its instance score alone.
        known = torch.isfinite(directions).all(dim=-1)
        scores = harmonics(torch.where(known[..., None], directions, 0).to(zero.dtype)) @ self.dataset
        return torch.where(known, scores, 0)


def _softmax(scores: Tensor, mask: Tensor) -> Tensor:
    return torch.softmax(torch.where(mask, scores, -torch.inf), dim=1)
