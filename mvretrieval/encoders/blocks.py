"""Residual blocks of the known networks, and the modules after the last block, by name. Tuning changes these."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvretrieval.encoders import fused
from mvretrieval.errors import EncoderError

# open_clip's towers, timm's towers in open_clip, timm's networks, MobileNetV2.
_LISTS = ("visual.transformer.resblocks", "visual.trunk.blocks", "blocks", "features")
_AFTER = ("ln_post", "proj", "attn_pool", "attn_pool_contrastive", "norm", "fc_norm", "head")
_FROZEN_BATCH = 8  # images per batch in the frozen blocks of MobileNetV2


class PooledMobileNet(nn.Module):
    """The blocks of MobileNetV2, followed by global average pooling.

    Attributes:
        n_frozen: number of first blocks that get no gradients in training.
    """

    def __init__(self, features: nn.Sequential) -> None:
        """Wrap the blocks of a `MobileNetV2`."""
        super().__init__()
        self.features = features
        self.n_frozen = 0

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, size, size) to (N, D)."""
        if not torch.is_grad_enabled() and images.device.type == "cpu" and fused.available(images.dtype):
            return fused.global_avg_pool(self.features, images)
        maps, n_frozen = images, self.n_frozen if torch.is_grad_enabled() else 0
        if n_frozen:
            # In small batches the large early maps fit the cache, which halves the time.
            with torch.no_grad():
                maps = torch.cat([self.features[:n_frozen](batch) for batch in torch.split(images, _FROZEN_BATCH)])
        out: Tensor = self.features[n_frozen:](maps).mean(dim=(2, 3))
        return out


def residual_blocks(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """List (name, block) from the first to the last block. Those of MobileNetV2 are its inverted residuals.

    Raises:
        EncoderError: the kind of network is unknown.
    """
    name, blocks = _list_of(network)
    if name == "features":  # the first is a stem, the last a convolution
        return blocks[1:-1]
    return blocks


def modules_after_blocks(network: nn.Module) -> list[str]:
    """List the modules and parameters after the last block: final norm, projections, MobileNetV2's last convolution.

    Raises:
        EncoderError: the kind of network is unknown.
    """
    name, blocks = _list_of(network)
    if name == "features":
        return [blocks[-1][0]]
    # The head of the trunk, and the head of the tower around it.
    levels = {name.rpartition(".")[0], "visual" if name.startswith("visual.") else ""}
    if name.startswith("visual.transformer."):
        levels = {"visual"}
    candidates = {f"{level}.{part}".lstrip(".") for level in levels for part in _AFTER}
    existing = {path for path, _ in network.named_parameters()} | {path for path, _ in network.named_modules()}
    return sorted(candidates & existing)


def _list_of(network: nn.Module) -> tuple[str, list[tuple[str, nn.Module]]]:
    for name in _LISTS:
        try:
            found = network.get_submodule(name)
        except AttributeError:
            continue
        if name == "features" and not isinstance(network, PooledMobileNet):
            continue  # other convolutional networks use this name too
        if isinstance(found, nn.ModuleList | nn.Sequential):
            return name, [(f"{name}.{key}", block) for key, block in found.named_children()]
    raise EncoderError(
        f"cannot tune a network of type {type(network).__name__}: supported are the vision transformers of open_clip and timm, "
        "and MobileNetV2",
        code="unknown_network",
    )
