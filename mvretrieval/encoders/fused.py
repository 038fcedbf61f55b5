"""MobileNetV2 on the CPU without gradients: a convolution with its ReLU6, or with the addition behind it, in one call.

Torch by itself runs them one after another, and one pass over the large early maps costs as much as the arithmetic. oneDNN
does them together; torch has these calls for its own compiler, which wants a C++ compiler at hand and time before the
first picture. Where they are missing, `available` says so, and the network runs as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mvretrieval.encoders.mobilenet import InvertedResidual, SamePaddedConv2d

# The maps of the first blocks are large: a few pictures at a time stay in the cache, a tenth faster than all at once. The
# later ones are small, and more pictures share the reading of the weights. 4 to 8 blocks, 1 to 4 and 12 to 48 are alike.
_EARLY_BLOCKS, _EARLY_AT_ONCE, _AT_ONCE = 5, 2, 24


@dataclass(frozen=True)
class _Layer:
    """A convolution with its batch norm folded.

    Attributes:
        weight: (out, in / groups, k, k).
        bias: (out,).
        stride: in both directions.
        groups: the number of channels where each is seen by itself, else 1.
        packed: the weight as oneDNN wants it for maps of a shape; or it would put it in order with each call.
    """

    weight: Tensor
    bias: Tensor | None
    stride: int = 1
    groups: int = 1
    packed: dict[torch.Size, Tensor] = field(default_factory=dict, init=False, repr=False)

    def normed(self, norm: nn.BatchNorm2d) -> _Layer:
        """With a batch norm behind it multiplied in."""
        assert norm.running_mean is not None and norm.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            self.weight, self.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        return replace(self, weight=weight, bias=bias)

    def turned(self) -> _Layer:
        """For pictures that are turned by half a turn."""
        return replace(self, weight=self.weight.flip(2, 3)) if self.weight.shape[2] > 1 else self

    def __call__(self, maps: Tensor, clip: bool, plus: Tensor | None = None) -> Tensor:
        """(N, C, H, W) to maps of the next layer: clipped to 0..6, or added to others of the same shape."""
        around = self.weight.shape[2] // 2
        where = [around, around], [self.stride, self.stride], [1, 1], self.groups
        onednn = torch.ops.mkldnn
        if maps.shape not in self.packed:
            packed = onednn._reorder_convolution_weight(self.weight, *where, list(maps.shape))
            self.packed[maps.shape] = packed
        weight = self.packed[maps.shape]
        if plus is not None:
            out = onednn._convolution_pointwise.binary(maps, plus, weight, self.bias, *where, "add", 1.0, None, [], "")
        else:
            how = ("hardtanh", [0.0, 6.0]) if clip else ("none", [])
            out = onednn._convolution_pointwise(maps, weight, self.bias, *where, *how, "")
        assert isinstance(out, Tensor)
        return out


@cache
def available(kind: torch.dtype) -> bool:
    """Whether oneDNN does it here: not on every processor, and the calls are not in torch's public interface."""
    maps = torch.ones(1, 8, 4, 4, dtype=kind)
    layer = _Layer(torch.ones(8, 8, 1, 1, dtype=kind), torch.ones(8, dtype=kind))
    try:
        clipped, added = layer(maps, clip=True), layer(maps, clip=False, plus=maps)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return bool((clipped == 6).all() and (added == 10).all())


def global_avg_pool(features: nn.Sequential, images: Tensor) -> Tensor:
    """What the blocks of MobileNetV2 and the mean over places give: (N, 3, size, size) to (N, D).

    The layers are put together anew each time, in a millisecond: nobody has to say when weights have changed.
    """
    layers = [_layers(block) for block in features]
    # Padding below and to the right is copying every map, for oneDNN pads both sides alike. Of a picture that is turned
    # by half a turn it is padding above and to the left, and one on each side is that: the last row is then never used.
    turned = any(isinstance(module, SamePaddedConv2d) for module in features.modules())
    if turned:
        layers = [[layer.turned() for layer in some] for some in layers]
    blocks = list(zip(features, layers, strict=True))
    means = []
    for some in torch.split(images, _AT_ONCE):
        few = torch.split(some, _EARLY_AT_ONCE)
        early = [_through(blocks[:_EARLY_BLOCKS], one.flip(2, 3) if turned else one) for one in few]
        means.append(_through(blocks[_EARLY_BLOCKS:], torch.cat(early)).mean(dim=(2, 3)))
    return torch.cat(means)


def _layers(block: nn.Module) -> list[_Layer]:
    layers: list[_Layer] = []
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            layers.append(_Layer(module.weight, module.bias, module.stride[0], module.groups))
        elif isinstance(module, nn.BatchNorm2d):
            layers[-1] = layers[-1].normed(module)
    return layers


def _through(blocks: Iterable[tuple[nn.Module, list[_Layer]]], maps: Tensor) -> Tensor:
    for block, layers in blocks:
        residual = isinstance(block, InvertedResidual)  # of which the last layer is linear; the stem's is not
        out = maps
        for layer in layers[:-1]:
            out = layer(out, clip=True)
        maps = layers[-1](out, clip=not residual, plus=maps if residual and block.adds else None)
    return maps
