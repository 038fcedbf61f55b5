"""An encoder made ready for tuning: which of its weights may change, and the module that a step runs."""

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
    """Refuse what the encoder's network has no parts for, before anything is rendered or changed.

    Raises:
        TrainingError: the network has no such parts, or the loss needs words that it does not read.
    """
    architecture = _extended(encoder, config)
    if config.loss == "text" and not encoder.has_text:
        raise TrainingError(f"{encoder.id} reads no words, which the text loss compares with: take another --loss")
    try:
        blocks = len(residual_blocks(encoder.network))
        if config.method == "lora":
            attention_weights(encoder.network)
        elif config.last_blocks > blocks:
            raise TrainingError(f"the network has {blocks} blocks; --last-blocks {config.last_blocks} is more")
        if architecture.cross_view and not has_cross_view(encoder.network):
            size = encoder.image_size
            check_cross_view(
                encoder.network, architecture.cross_view, encoder.pixels(np.zeros((2, size, size, 3), np.uint8))
            )
    except EncoderError as error:
        raise TrainingError(f"{encoder.id} cannot be tuned like that: {error}") from error


def make_tunable(encoder: NetworkEncoder, config: TuneConfig) -> None:
    """Add what the method adds to the encoder's network, and let gradients reach what it may change.

    The network stays in evaluation mode: batch norms keep their statistics (MobileNetV2's are folded into convolutions),
    and nothing is dropped out.

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
    chosen = _chosen(network, config)
    encoder.architecture = architecture
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in chosen)
    if isinstance(network, PooledMobileNet):
        learnt = [any(parameter.requires_grad for parameter in block.parameters()) for block in network.features]
        network.n_frozen = learnt.index(True) if any(learnt) else 0
    network.to(encoder.device)


def _extended(encoder: NetworkEncoder, config: TuneConfig) -> Architecture:
    base = encoder.architecture
    if base is None:
        raise TrainingError(f"{encoder.id} is not a network that this program built: it cannot be tuned")
    if config.cross_view and base.cross_view and config.cross_view != base.cross_view:
        raise TrainingError(
            f"{encoder.id} lets views attend to one another in its last {base.cross_view} blocks, and {config.cross_view} "
            "are asked for: leave --cross-view out, or start from its base"
        )
    if config.cross_view and not base.cross_view:
        return replace(base, cross_view=config.cross_view, bias=base.bias or config.bias)
    return replace(base, bias=base.bias or config.bias)


def _chosen(network: nn.Module, config: TuneConfig) -> set[str]:
    names = [name for name, _ in network.named_parameters()]
    chosen = {"tuned_bias"} if config.bias else set()
    if config.method == "lora":
        low_rank = [path for path, module in network.named_modules() if isinstance(module, LowRank)]
        return chosen | {f"{path}.{part}" for path in low_rank for part in ("down", "up")}
    parts = [name for name, _ in residual_blocks(network)[-config.last_blocks :]] + modules_after_blocks(network)
    return chosen | {name for name in names if any(name == part or name.startswith(f"{part}.") for part in parts)}


def checkpoint_activations(network: nn.Module) -> None:
    """Compute the activations of blocks again in the backward pass instead of keeping them."""
    for module in (network, getattr(network, "visual", None)):
        switch = getattr(module, "set_grad_checkpointing", None)
        if callable(switch):
            switch(True)
            return
    for _, block in residual_blocks(network):
        block.forward = _again(block.forward)


def _again(forward: Any) -> Any:
    from torch.utils.checkpoint import checkpoint

    def run(x: Tensor) -> Tensor:
        out: Tensor = checkpoint(forward, x, use_reentrant=False) if torch.is_grad_enabled() else forward(x)
        return out

    return run


class TuningModule(nn.Module):
    """Pictures of objects to object vectors: the encoder's network and the view weighting behind it."""

    def __init__(self, network: nn.Module, pooling: AdapterNetwork, precision: Precision) -> None:
        """Put them together.

        Args:
            network: (N, 3, size, size) to (N, K).
            pooling: (B, S, V, K) to (B, S * K).
            precision: of activations.
        """
        super().__init__()
        self.network, self.pooling, self.precision = network, pooling, precision

    def forward(self, pixels: Tensor, mask: Tensor, directions: Tensor) -> Tensor:
        """Object vectors.

        Args:
            pixels: (B * S * V, 3, size, size), preprocessed.
            mask: (B, V) bool.
            directions: (B, V, 3).

        Returns:
            (B, S * K) unit norm.
        """
        b, v = mask.shape
        half = torch.autocast(pixels.device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext()
        # Not only for the forward pass: activations may be computed again in the backward pass.
        set_views_per_object(self.network, v)
        with half:
            vectors = self.network(pixels)
        views = nn.functional.normalize(vectors.float(), dim=1).reshape(b, -1, v, vectors.shape[1])
        pooled: Tensor = self.pooling(views, mask, directions)[0]
        return pooled

    def learnt(self) -> dict[str, nn.Parameter]:
        """Everything that is trained, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
