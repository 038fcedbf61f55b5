"""Prepare an encoder for tuning: select its trainable weights, and the module of a training step."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mvretrieval.encoders.blocks import PooledMobileNet, modules_after_blocks, residual_blocks
from mvretrieval.encoders.cross_view import check_cross_view, has_cross_view, set_views_per_object
from mvretrieval.encoders.encoder import Precision
from mvretrieval.encoders.network import Architecture, NetworkEncoder
from mvretrieval.encoders.tuned import extend
from mvretrieval.errors import EncoderError, TrainingError
from mvretrieval.weighting.network import AdapterNetwork
from mvtrain.lora import LowRank, attach, attention_weights
from mvtrain.tune_config import TuneConfig


def check_tunable(encoder: NetworkEncoder, config: TuneConfig) -> None:
    """Check that the encoder supports the options, without changing it.

    Raises:
        TrainingError: the network lacks the needed layers, or the text loss needs a text tower.
    """
    architecture = _extended(encoder, config)
    if config.loss == "text" and not encoder.has_text:
        raise TrainingError(
            f"{encoder.id} has no text tower, which the text loss needs: use another --loss", code="no_text_tower"
        )
    try:
        n_blocks = len(residual_blocks(encoder.network))
        if config.method == "lora":
            attention_weights(encoder.network)
        elif config.last_blocks > n_blocks:
            raise TrainingError(
                f"--last-blocks {config.last_blocks} is more than the {n_blocks} blocks of {encoder.id}",
                code="too_many_blocks",
            )
        if architecture.cross_view and not has_cross_view(encoder.network):
            size = encoder.image_size
            pixels = encoder.pixels(np.zeros((2, size, size, 3), np.uint8))
            check_cross_view(encoder.network, architecture.cross_view, pixels)
    except EncoderError as error:
        raise TrainingError(f"{encoder.id} does not support these options: {error}", code=error.code) from error


def make_tunable(encoder: NetworkEncoder, config: TuneConfig) -> None:
    """Add the layers of the method to the network, and enable gradients for the trainable weights.

    The network stays in evaluation mode: batch norms keep their statistics (those of MobileNetV2 are folded into
    convolutions), and dropout is off.

    Raises:
        TrainingError: see `check_tunable`.
    """
    check_tunable(encoder, config)
    network = encoder.network
    architecture = _extended(encoder, config)
    extend(network, encoder.dim, architecture)
    network.requires_grad_(False)
    if config.method == "lora":
        attach(network, config.rank, config.alpha)
    trainable = _trainable_names(network, config)
    encoder.architecture = architecture
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trainable)
    if isinstance(network, PooledMobileNet):
        trained = [any(parameter.requires_grad for parameter in block.parameters()) for block in network.features]
        network.n_frozen = trained.index(True) if any(trained) else 0
    network.to(encoder.device)


def _extended(encoder: NetworkEncoder, config: TuneConfig) -> Architecture:
    base = encoder.architecture
    if base is None:
        raise TrainingError(
            f"{encoder.id} does not state its architecture and cannot be tuned: use an open_clip, image_only or tuned encoder",
            code="not_tunable",
        )
    if config.cross_view and base.cross_view and config.cross_view != base.cross_view:
        raise TrainingError(
            f"{encoder.id} has cross-view attention in its last {base.cross_view} blocks, not {config.cross_view}: leave "
            "--cross-view out, or tune its base encoder",
            code="other_cross_view",
        )
    if config.cross_view and not base.cross_view:
        return replace(base, cross_view=config.cross_view, bias=base.bias or config.bias)
    return replace(base, bias=base.bias or config.bias)


def _trainable_names(network: nn.Module, config: TuneConfig) -> set[str]:
    names = [name for name, _ in network.named_parameters()]
    trainable = {"tuned_bias"} if config.bias else set()
    if config.method == "lora":
        low_rank = [path for path, module in network.named_modules() if isinstance(module, LowRank)]
        return trainable | {f"{path}.{part}" for path in low_rank for part in ("down", "up")}
    parts = [name for name, _ in residual_blocks(network)[-config.last_blocks :]] + modules_after_blocks(network)
    return trainable | {name for name in names if any(name == part or name.startswith(f"{part}.") for part in parts)}


def checkpoint_activations(network: nn.Module) -> None:
    """Recompute the activations of each block in the backward pass instead of storing them."""
    for module in (network, getattr(network, "visual", None)):
        switch = getattr(module, "set_grad_checkpointing", None)
        if callable(switch):
            switch(True)
            return
    for _, block in residual_blocks(network):
        block.forward = _checkpointed(block.forward)


def _checkpointed(forward: Any) -> Any:
    from torch.utils.checkpoint import checkpoint

    def run(x: Tensor) -> Tensor:
        out: Tensor = checkpoint(forward, x, use_reentrant=False) if torch.is_grad_enabled() else forward(x)
        return out

    return run


class TuningModule(nn.Module):
    """Images of objects to object vectors: the network of the encoder, followed by the view weighting."""

    def __init__(self, network: nn.Module, pooling: AdapterNetwork, precision: Precision) -> None:
        """Combine both.

        Args:
            network: (N, 3, size, size) to (N, D).
            pooling: (B, S, V, D) to (B, S * D).
            precision: of activations.
        """
        super().__init__()
        self.network, self.pooling, self.precision = network, pooling, precision

    def forward(self, pixels: Tensor, mask: Tensor, directions: Tensor) -> Tensor:
        """Compute object vectors.

        Args:
            pixels: (B * S * V, 3, size, size), preprocessed.
            mask: (B, V) bool.
            directions: (B, V, 3).

        Returns:
            (B, S * D) unit norm.
        """
        b, v = mask.shape
        half = torch.autocast(pixels.device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext()
        # Stays set after the forward pass: checkpointed activations are recomputed in the backward pass.
        set_views_per_object(self.network, v)
        with half:
            vectors = self.network(pixels)
        views = nn.functional.normalize(vectors.float(), dim=1).reshape(b, -1, v, vectors.shape[1])
        pooled: Tensor = self.pooling(views, mask, directions)[0]
        return pooled

    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
