"""MobileNetV2 inference on the CPU with fused layers: convolution and ReLU6, or convolution and residual addition, in one call.

torch runs them one after another, and one pass over the large early maps costs as much as the arithmetic. oneDNN fuses them.
torch has these calls for its compiler, which needs a C++ compiler and compile time; here they are called directly. If they
are missing (see `available`), the network runs unfused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mvretrieval.encoders.mobilenet import InvertedResidual, SamePaddedConv2d

# The maps of the first blocks are large: small batches fit the cache, which is 10 % faster. The later maps are small: larger
# batches share the reading of the weights. Speed is the same for 4 to 8 early blocks, batches of 1 to 4 and of 12 to 48.
_EARLY_BLOCKS, _EARLY_BATCH, _BATCH = 5, 2, 24


@dataclass(frozen=True)
class _Layer:
    """A convolution with folded batch norm.

    Attributes:
        weight: (out, in / groups, k, k).
        bias: (out,).
        stride: in both directions.
        groups: number of channels for a depthwise convolution, else 1.
        packed: cache of the weight in oneDNN's layout, by the shape of the input maps.
    """

    weight: Tensor
    bias: Tensor | None
    stride: int = 1
    groups: int = 1
    packed: dict[torch.Size, Tensor] = field(default_factory=dict, init=False, repr=False)

    def with_norm(self, norm: nn.BatchNorm2d) -> _Layer:
        """Fold the batch norm that follows."""
        assert norm.running_mean is not None and norm.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            self.weight, self.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        return replace(self, weight=weight, bias=bias)

    def rotated(self) -> _Layer:
        """The layer for images that are rotated by 180 degrees."""
        return replace(self, weight=self.weight.flip(2, 3)) if self.weight.shape[2] > 1 else self

    def __call__(self, maps: Tensor, clip: bool, plus: Tensor | None = None) -> Tensor:
        """Convolve maps (N, C, H, W), then clip to 0..6 (`clip`) or add maps of the output's shape (`plus`)."""
        padding = self.weight.shape[2] // 2
        geometry = [padding, padding], [self.stride, self.stride], [1, 1], self.groups
        onednn = torch.ops.mkldnn
        if maps.shape not in self.packed:
            packed = onednn._reorder_convolution_weight(self.weight, *geometry, list(maps.shape))
            self.packed[maps.shape] = packed
        weight = self.packed[maps.shape]
        if plus is not None:
            out = onednn._convolution_pointwise.binary(
                maps, plus, weight, self.bias, *geometry, "add", 1.0, None, [], ""
            )
        else:
            activation = ("hardtanh", [0.0, 6.0]) if clip else ("none", [])
            out = onednn._convolution_pointwise(maps, weight, self.bias, *geometry, *activation, "")
        assert isinstance(out, Tensor)
        return out


@cache
def available(kind: torch.dtype) -> bool:
    """Whether the fused calls work here. Not every CPU has them, and they are not part of torch's public interface."""
    maps = torch.ones(1, 8, 4, 4, dtype=kind)
    layer = _Layer(torch.ones(8, 8, 1, 1, dtype=kind), torch.ones(8, dtype=kind))
    try:
        clipped, added = layer(maps, clip=True), layer(maps, clip=False, plus=maps)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((clipped == 6).all() and (added == 10).all())


def global_avg_pool(features: nn.Sequential, images: Tensor) -> Tensor:
    """Run the blocks of MobileNetV2 and global average pooling: (N, 3, size, size) to (N, D).

    The layers are built in each call, which takes a millisecond, so that a change of the weights needs no notification.
    """
    layers = [_layers(block) for block in features]
    # TensorFlow's SAME padding adds a row below and a column to the right. oneDNN pads both sides equally, so this would copy
    # every map. For an image that is rotated by 180 degrees it is a row above and a column to the left, which equal padding
    # gives too: with stride 2 the padding of the other sides is never read.
    rotated = any(isinstance(module, SamePaddedConv2d) for module in features.modules())
    if rotated:
        layers = [[layer.rotated() for layer in of_block] for of_block in layers]
    blocks = list(zip(features, layers, strict=True))
    means = []
    for batch in torch.split(images, _BATCH):
        early = [
            _forward(blocks[:_EARLY_BLOCKS], part.flip(2, 3) if rotated else part)
            for part in torch.split(batch, _EARLY_BATCH)
        ]
        means.append(_forward(blocks[_EARLY_BLOCKS:], torch.cat(early)).mean(dim=(2, 3)))
    return torch.cat(means)


def _layers(block: nn.Module) -> list[_Layer]:
    layers: list[_Layer] = []
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            layers.append(_Layer(module.weight, module.bias, module.stride[0], module.groups))
        elif isinstance(module, nn.BatchNorm2d):
            layers[-1] = layers[-1].with_norm(module)
    return layers


def _forward(blocks: Iterable[tuple[nn.Module, list[_Layer]]], maps: Tensor) -> Tensor:
    for block, layers in blocks:
        residual = isinstance(block, InvertedResidual)  # its last layer is linear; that of the stem is not
        out = maps
        for layer in layers[:-1]:
            out = layer(out, clip=True)
        maps = layers[-1](out, clip=not residual, plus=maps if residual and block.adds else None)
    return maps
