"""Training losses. Each takes object vectors (B, D), unit norm, and class ids (B,), and returns a scalar."""

from __future__ import annotations

from pytorch_metric_learning.losses import MultiSimilarityLoss, NormalizedSoftmaxLoss, SupConLoss
from torch import Tensor, nn

from mvretrieval.errors import TrainingError
from mvtrain.config import TrainConfig


class TextLoss(nn.Module):
    """Cross-entropy against frozen text vectors of the class names, the loss of CLIP-AdaM."""

    def __init__(self, text_vectors: Tensor, temperature: float) -> None:
        """Store the text vectors.

        Args:
            text_vectors: (C, D) unit norm, row c for class c.
            temperature: divides the cosine similarities.
        """
        super().__init__()
        self.text_vectors: Tensor
        self.register_buffer("text_vectors", text_vectors)
        self.temperature = temperature

    def forward(self, vectors: Tensor, classes: Tensor) -> Tensor:
        """Mean cross-entropy of (B, D) vectors with class ids (B,)."""
        return nn.functional.cross_entropy(vectors @ self.text_vectors.T / self.temperature, classes)


def make_loss(config: TrainConfig, n_classes: int, dim: int, text_vectors: Tensor | None) -> nn.Module:
    """Build the loss named by `config`.

    Supervised contrastive: Khosla et al. 2020. Multi-similarity: Wang et al. 2019, with the paper's alpha 2, beta 50 and
    base 0.5. Prototypes: Zhai and Wu 2019, normalized softmax.

    Raises:
        TrainingError: the text loss is chosen, but `text_vectors` is None.
    """
    made: nn.Module
    if config.loss == "supcon":
        made = SupConLoss(temperature=config.temperature)
    elif config.loss == "multi-similarity":
        made = MultiSimilarityLoss(alpha=2, beta=50, base=0.5)
    elif config.loss == "prototypes":
        made = NormalizedSoftmaxLoss(n_classes, dim, temperature=config.temperature)
    else:
        made = _text_loss(config, text_vectors)
    return made


def _text_loss(config: TrainConfig, text_vectors: Tensor | None) -> TextLoss:
    if text_vectors is None:
        raise TrainingError(
            "the text loss needs an encoder with a text tower: use another --loss, or a CLIP encoder",
            code="no_text_tower",
        )
    return TextLoss(nn.functional.normalize(text_vectors, dim=1), config.temperature)
