"""CLIP-AdaM's pooling (SIGIR 2025): view weighting, then the adaptive layer.

    g = sum_v a_v f_v                 view weighting: a = softmax(s + d), see `view_weighting`
    h = normalize(g + r W g)          adaptive layer, see `adaptive_layer`

The paper leaves layer sizes, loss and schedule open; those here are our choice. Last layers start at zero: an untrained
module is exactly mean pooling.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mvretrieval.weighting.adaptive_layer import AdaptiveLayer
from mvretrieval.weighting.view_weighting import ViewWeighting, ViewWeightingConfig


@dataclass(frozen=True)
class AdamConfig(ViewWeightingConfig):
    """Parts of AdaM; each can be switched off for ablation.

    Attributes:
        adapter: use the adaptive layer W.
        residual: r.
    """

    adapter: bool = True
    residual: float = 1.0


class AdamPooling(ViewWeighting):
    """`ViewPooling` by view weighting and adaptive layer."""

    # A subclass rather than a pair of submodules: files of trained adapters name the parameters `instance`, `dataset` and
    # `adapter`.

    config: AdamConfig

    def __init__(self, config: AdamConfig) -> None:
        """Create an untrained module, equal to mean pooling.

        Args:
            config: parts and sizes.
        """
        super().__init__(config)
        if config.adapter:
            self.adapter = AdaptiveLayer(config.dim, config.residual)

    def forward(
        self, view_vectors: Tensor, view_mask: Tensor, directions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """See `ViewPooling`."""
        pooled, weights = self.weighted_sum(view_vectors, view_mask, directions)
        if self.config.adapter:
            pooled = self.adapter(pooled)
        return nn.functional.normalize(pooled, dim=1), weights
