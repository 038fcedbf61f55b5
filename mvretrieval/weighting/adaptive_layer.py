"""The adaptive layer of CLIP-AdaM: one linear map with a residual connection."""

from __future__ import annotations

from torch import Tensor, nn


class AdaptiveLayer(nn.Linear):
    """f + r W f, without normalization; W is (D, D) and has no bias.

    The layer is linear. For weights that sum to 1, adapting each view and then averaging equals averaging and then adapting:

        sum_v a_v (f_v + r W f_v) = g + r W g        with g = sum_v a_v f_v

    The pooling modules use the right side, which needs one product per object instead of one per view. W starts at zero: an
    untrained layer is the identity.
    """

    def __init__(self, dim: int, residual: float = 1.0) -> None:
        """Create the layer.

        Args:
            dim: D of view vectors and object vectors.
            residual: r.
        """
        super().__init__(dim, dim, bias=False)
        nn.init.zeros_(self.weight)
        self.residual = residual

    def forward(self, vectors: Tensor) -> Tensor:
        """Adapt view vectors or object vectors (..., D); normalize them afterwards."""
        return vectors + self.residual * super().forward(vectors)
