"""The interface of all poolings: view vectors of one style -> object vector and view weights."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from mvretrieval.errors import ShapeError


class ViewPooling(Protocol):
    """Pools the views of one style into an object vector, with one weight per view. Masked views are ignored."""

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
    """Check the shapes of a pooling's input.

    Raises:
        ShapeError: shapes disagree (`mask_shape`, `directions_shape`), or an object has no view (`no_view`).
    """
    if view_vectors.ndim != 3 or view_mask.shape != view_vectors.shape[:2]:
        raise ShapeError(
            f"view vectors must be (B, V, D) and the mask (B, V); got {tuple(view_vectors.shape)} and "
            f"{tuple(view_mask.shape)}",
            code="mask_shape",
        )
    if directions is not None and directions.shape != (*view_mask.shape, 3):
        raise ShapeError(
            f"directions must be (B, V, 3) = {(*view_mask.shape, 3)}; got {tuple(directions.shape)}",
            code="directions_shape",
        )
    if not bool(view_mask.any(dim=1).all()):
        raise ShapeError("an object has no view: each row of the mask needs at least one True", code="no_view")


def keep_rendered(view_vectors: Tensor, view_mask: Tensor) -> Tensor:
    """Set masked views (B, V, D) to zero. By selection, not by multiplication: a masked view may hold NaN."""
    return torch.where(view_mask[..., None], view_vectors, 0)


def mean_of_views(view_vectors: Tensor, view_mask: Tensor, directions: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Average the rendered views.

    Returns:
        Mean (B, D), not normalized, and uniform weights (B, V).
    """
    check_shapes(view_vectors, view_mask, directions)
    weights = view_mask.to(view_vectors.dtype)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return (weights[..., None] * keep_rendered(view_vectors, view_mask)).sum(dim=1), weights
