"""Weighing the views of an object into one vector."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from mvretrieval.errors import ShapeError


class ViewPooling(Protocol):
    """Views of one style -> object vector and what each view weighed. Masked views count as absent."""

    def __call__(
        self,
        view_vectors: Tensor,  # (B, V, D), unit norm, or centred and whitened
        view_mask: Tensor,  # (B, V) bool, True where a view was rendered
        directions: Tensor | None = None,  # (B, V, 3) unit, object to camera; NaN rows where unknown
    ) -> tuple[Tensor, Tensor]:  # (B, D) unit norm, (B, V) rows sum to 1
        """Pool a batch of objects.

        Raises:
            ShapeError: shapes disagree, or an object has no view.
        """
        ...


def check_shapes(view_vectors: Tensor, view_mask: Tensor, directions: Tensor | None = None) -> None:
    """Refuse arrays that do not belong together.

    Raises:
        ShapeError: shapes disagree, or an object has no view.
    """
    if view_vectors.ndim != 3 or view_mask.shape != view_vectors.shape[:2]:
        raise ShapeError(
            f"view vectors are (B, V, D) and the mask (B, V), not {tuple(view_vectors.shape)} and {tuple(view_mask.shape)}"
        )
    if directions is not None and directions.shape != (*view_mask.shape, 3):
        raise ShapeError(f"directions are (B, V, 3) = {(*view_mask.shape, 3)}, not {tuple(directions.shape)}")
    if not bool(view_mask.any(dim=1).all()):
        raise ShapeError("an object has no view: every row of the mask needs at least one True")


def mean_of_views(view_vectors: Tensor, view_mask: Tensor, directions: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean (B, D) of the views that were rendered, not normalised, and their equal weights (B, V)."""
    check_shapes(view_vectors, view_mask, directions)
    weights = view_mask.to(view_vectors.dtype)
    weights = weights / weights.sum(dim=1, keepdim=True)
    # where, not a multiplication: a masked view may hold anything, NaN too.
    kept = torch.where(view_mask[..., None], view_vectors, 0)
    return (weights[..., None] * kept).sum(dim=1), weights


class MeanPooling(nn.Module):
    """Every view weighs the same."""

    def forward(
        self, view_vectors: Tensor, view_mask: Tensor, directions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `ViewPooling`."""
        pooled, weights = mean_of_views(view_vectors, view_mask, directions)
        return nn.functional.normalize(pooled, dim=1), weights


class MaxPooling(nn.Module):
    """Largest value of each dimension over the views (MVCNN); a view's weight is its share of the maxima."""

    def forward(
        self, view_vectors: Tensor, view_mask: Tensor, directions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `ViewPooling`."""
        check_shapes(view_vectors, view_mask, directions)
        kept = torch.where(view_mask[..., None], view_vectors, -torch.inf)
        largest, winner = kept.max(dim=1)
        counts = torch.zeros_like(view_mask, dtype=view_vectors.dtype)
        counts.scatter_add_(1, winner, torch.ones_like(largest))
        return nn.functional.normalize(largest, dim=1), counts / largest.shape[1]
