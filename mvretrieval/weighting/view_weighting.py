"""View weighting: two sets of scores, one softmax, one weighted sum.

    s_v = MLP(sqrt(D) f_v)                                            instance score, D -> D/8 -> 1
    d_v = one number per slot, or c . Y(direction of camera v)        data-set score
    a   = softmax(s + d)                                              masked views: -inf before the softmax
    g   = sum_v a_v f_v

Both sets of scores are added before one softmax, so that the weight of a useless view can approach zero. The average of two
softmaxes would keep it at 1/(2V) while the other set is flat (`average_softmaxes`, for comparison). The factor sqrt(D)
scales the entries of a unit vector to the size that the initial weights of a linear layer expect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mvretrieval.errors import ShapeError
from mvretrieval.weighting.pooling import check_shapes, keep_rendered
from mvretrieval.weighting.spherical_harmonics import N_HARMONICS, harmonics

DatasetScores = Literal["directions", "slots", "none"]


@dataclass(frozen=True)
class ViewWeightingConfig:
    """Parts of the view weighting.

    Attributes:
        dim: D of the view vectors.
        instance_scores: use s_v, computed from each view's content.
        dataset_scores: d_v by camera direction, by slot (tied to the number and order of the views), or none.
        n_slots: V, for `slots`.
        average_softmaxes: average two softmaxes instead of taking one over the sum.
    """

    dim: int
    instance_scores: bool = True
    dataset_scores: DatasetScores = "directions"
    n_slots: int = 0
    average_softmaxes: bool = False

    def __post_init__(self) -> None:
        if self.dataset_scores == "slots" and self.n_slots < 1:
            raise ShapeError("slot scores need n_slots, the number of views they are trained on", code="no_slots")


class ViewWeighting(nn.Module):
    """A `ViewPooling` with learned view weights. The scores start at zero: untrained, it is mean pooling."""

    def __init__(self, config: ViewWeightingConfig) -> None:
        """Create an untrained module.

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

    def forward(
        self, view_vectors: Tensor, view_mask: Tensor, directions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `ViewPooling`."""
        pooled, weights = self.weighted_sum(view_vectors, view_mask, directions)
        return nn.functional.normalize(pooled, dim=1), weights

    def weighted_sum(
        self, view_vectors: Tensor, view_mask: Tensor, directions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sum (B, D) of the weighted views, not normalized, and weights (B, V).

        Raises:
            ShapeError: shapes disagree, an object has no view, or slot scores get another number of views.
        """
        check_shapes(view_vectors, view_mask, directions)
        rendered = keep_rendered(view_vectors, view_mask)
        weights = self._weights(rendered, view_mask, directions)
        return (weights[..., None] * rendered).sum(dim=1), weights

    def _weights(self, rendered: Tensor, mask: Tensor, directions: Tensor | None) -> Tensor:
        zero = torch.zeros_like(rendered[..., 0])
        instance = self.instance(rendered * self.config.dim**0.5)[..., 0] if self.config.instance_scores else zero
        dataset = self._dataset_scores(zero, directions)
        if self.config.average_softmaxes:
            return (masked_softmax(instance, mask) + masked_softmax(dataset, mask)) / 2
        return masked_softmax(instance + dataset, mask)

    def _dataset_scores(self, zero: Tensor, directions: Tensor | None) -> Tensor:
        if self.config.dataset_scores == "none" or directions is None:
            return zero
        if self.config.dataset_scores == "slots":
            if zero.shape[1] != self.config.n_slots:
                raise ShapeError(
                    f"slot scores were trained on {self.config.n_slots} views; got {zero.shape[1]}",
                    code="slot_count",
                )
            return zero + self.dataset
        # The direction of a photo is unknown (NaN): its data-set score is 0.
        known = torch.isfinite(directions).all(dim=-1)
        scores = harmonics(torch.where(known[..., None], directions, 0).to(zero.dtype)) @ self.dataset
        return torch.where(known, scores, 0)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the views (B, V) in the mask; 0 elsewhere."""
    return torch.softmax(torch.where(mask, scores, -torch.inf), dim=1)
