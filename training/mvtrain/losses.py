"""Training losses. Each takes object vectors (B, D), unit norm, and class ids (B,), and returns a scalar.

A plug-in of the group `losses` is a function of the number of classes and the dimension. It returns a `torch.nn.Module` or a
function that does the same; parameters of a module are trained too.

    def make(n_classes: int, dim: int) -> nn.Module
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import TypeAlias, get_args

import torch
from pytorch_metric_learning.losses import MultiSimilarityLoss, NormalizedSoftmaxLoss, SupConLoss
from torch import Tensor, nn

from mvrender import plugins
from mvretrieval.errors import TrainingError
from mvtrain.config import NamedLoss, TrainConfig

Loss: TypeAlias = nn.Module | Callable[[Tensor, Tensor], Tensor]
"""Of (B, D) object vectors and (B,) class ids; returns a scalar."""


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
        TrainingError: the text loss is chosen, but `text_vectors` is None; or a plug-in returns no loss (`bad_plugin_loss`).
    """
    made: nn.Module
    if config.loss not in get_args(NamedLoss):
        return _plugin_loss(config.loss, n_classes, dim)
    if config.loss == "supcon":
        made = SupConLoss(temperature=config.temperature)
    elif config.loss == "multi-similarity":
        made = MultiSimilarityLoss(alpha=2, beta=50, base=0.5)
    elif config.loss == "prototypes":
        made = NormalizedSoftmaxLoss(n_classes, dim, temperature=config.temperature)
    else:
        made = _text_loss(config, text_vectors)
    return made


class _FunctionLoss(nn.Module):
    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, vectors: Tensor, classes: Tensor) -> Tensor:
        return self.function(vectors, classes)


def register_loss(loss: Loss) -> str:
    """Register a loss object for this process, and return its name. It is copied for each style and fold."""
    name = f"object:{getattr(loss, '__qualname__', type(loss).__qualname__)}"
    initial = deepcopy(loss)
    plugins.register("losses", name, lambda n_classes, dim: deepcopy(initial))
    return name


def _plugin_loss(name: str, n_classes: int, dim: int) -> nn.Module:
    """The loss of a plug-in, tried on a small batch."""
    make = plugins.find("losses", name)
    assert make is not None  # `TrainConfig` found it
    made = make(n_classes, dim)
    loss = made if isinstance(made, nn.Module) else _FunctionLoss(made)
    generator = torch.Generator().manual_seed(0)
    vectors = nn.functional.normalize(torch.randn(4, dim, generator=generator), dim=1).requires_grad_()
    try:
        value = loss(vectors, torch.tensor([0, 0, 1, 1]))
        if value.ndim or not bool(torch.isfinite(value)) or not value.requires_grad:
            raise ValueError(f"it returned {value}")
    except Exception as error:
        raise TrainingError(
            f"loss '{name}' does not return a finite scalar with a gradient for vectors (4, {dim}) of two classes "
            f"({type(error).__name__}: {error})",
            code="bad_plugin_loss",
        ) from error
    return loss


def _text_loss(config: TrainConfig, text_vectors: Tensor | None) -> TextLoss:
    if text_vectors is None:
        raise TrainingError(
            "the text loss needs an encoder with a text tower: use another --loss, or a CLIP encoder",
            code="no_text_tower",
        )
    return TextLoss(nn.functional.normalize(text_vectors, dim=1), config.temperature)
