"""Where a network's residual blocks are, and what comes after them, by name: what tuning may change."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvretrieval.encoders import fused
from mvretrieval.errors import EncoderError

# open_clip's own towers, timm's towers in open_clip, timm's by themselves, MobileNetV2.
_LISTS = ("visual.transformer.resblocks", "visual.trunk.blocks", "blocks", "features")
_AFTER = ("ln_post", "proj", "attn_pool", "attn_pool_contrastive", "norm", "fc_norm", "head")
_AT_ONCE = 8  # pictures in the blocks of MobileNetV2 that are not learnt


class PooledMobileNet(nn.Module):
    """MobileNetV2's blocks, and the mean of the last one's maps.

    Attributes:
        still: so many of the first blocks are not learnt, where gradients are asked for.
    """

    def __init__(self, features: nn.Sequential) -> None:
        """Put them together."""
        super().__init__()
        self.features = features
        self.n_frozen = 0

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, size, size) to (N, D)."""
        if not torch.is_grad_enabled() and images.device.type == "cpu" and fused.available(images.dtype):
            return fused.global_avg_pool(self.features, images)
        maps, still = images, self.n_frozen if torch.is_grad_enabled() else 0
        if still:
            # A few pictures at a time: the large early maps then fit the cache, which takes half the time.
            with torch.no_grad():
                maps = torch.cat([self.features[:still](some) for some in torch.split(images, _AT_ONCE)])
        out: Tensor = self.features[still:](maps).mean(dim=(2, 3))
        return out


def residual_blocks(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """(name, block) from the first to the last. MobileNetV2's are its inverted residuals.

    Raises:
        EncoderError: the network is of a kind that is not known here.
    """
    name, blocks = _list_of(network)
    if name == "features":  # the first is a stem, the last a convolution
        return blocks[1:-1]
    return blocks


def modules_after_blocks(network: nn.Module) -> list[str]:
    """Names of modules and parameters behind the last block: the last norm, projections, MobileNetV2's last convolution.

    Raises:
        EncoderError: see `residual_blocks`.
    """
    name, blocks = _list_of(network)
    if name == "features":
        return [blocks[-1][0]]
    # A trunk's own head, and that of the tower around it.
    levels = {name.rpartition(".")[0], "visual" if name.startswith("visual.") else ""}
    if name.startswith("visual.transformer."):
        levels = {"visual"}
    wanted = {f"{level}.{part}".lstrip(".") for level in levels for part in _AFTER}
    there = {path for path, _ in network.named_parameters()} | {path for path, _ in network.named_modules()}
    return sorted(wanted & there)


def _list_of(network: nn.Module) -> tuple[str, list[tuple[str, nn.Module]]]:
    for name in _LISTS:
        try:
            found = network.get_submodule(name)
        except AttributeError:
            continue
        if name == "features" and not isinstance(network, PooledMobileNet):
            continue  # as convolutional networks of other kinds call their layers
        if isinstance(found, nn.ModuleList | nn.Sequential):
            return name, [(f"{name}.{key}", block) for key, block in found.named_children()]
    raise EncoderError(
        f"the blocks of this network ({type(network).__name__}) are not known: vision transformers of open_clip and timm and "
        "MobileNetV2 can be tuned"
    )
