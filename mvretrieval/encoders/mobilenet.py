"""MobileNetV2 (Sandler et al., 2018) without its classifier, with the weight names of torchvision.

Importing torchvision's version takes 1.4 s, longer than all other steps of opening this encoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_STEM, _LAST = 32, 1280
# Expansion, channels, number of blocks, stride of the first block.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2(nn.Module):
    """Maps images to feature maps."""

    def __init__(self, same_padding: bool = False) -> None:
        """Build the network with random weights.

        Args:
            same_padding: stride-2 convolutions use TensorFlow's SAME padding; implemented for sizes that are multiples of 32.
        """
        super().__init__()
        blocks: list[nn.Module] = [_layer(3, _STEM, 3, 2)]
        channels = _STEM
        for expansion, out, count, stride in _STAGES:
            for number in range(count):
                blocks.append(InvertedResidual(channels, out, stride if number == 0 else 1, expansion))
                channels = out
        blocks.append(_layer(channels, _LAST, 1))
        self.features = nn.Sequential(*blocks)
        if same_padding:
            for module in self.modules():
                if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                    module.__class__ = SamePaddedConv2d

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, size, size) to (N, 1280, size / 32, size / 32)."""
        out: Tensor = self.features(images)
        return out


class InvertedResidual(nn.Module):
    """Inverted residual block: 1x1 expansion, depthwise 3x3, linear 1x1 projection.

    Attributes:
        adds: whether there is a skip connection.
    """

    def __init__(self, channels: int, out: int, stride: int, expansion: int) -> None:
        """Build the block with random weights."""
        super().__init__()
        wide = channels * expansion
        layers: list[nn.Module] = [_layer(channels, wide, 1)] if expansion != 1 else []
        layers += [_layer(wide, wide, 3, stride, wide), nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out)]
        self.conv = nn.Sequential(*layers)
        self.adds = stride == 1 and channels == out

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / stride, W / stride)."""
        out: Tensor = self.conv(maps)
        return maps + out if self.adds else out


class SamePaddedConv2d(nn.Conv2d):
    """Stride-2 convolution of even-sized maps with TensorFlow's padding: one column right, one row below."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H / 2, W / 2)."""
        padded = nn.functional.pad(input, (0, 1, 0, 1))
        return nn.functional.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def fold_batch_norms(network: nn.Module) -> None:
    """Fold batch norms into the convolutions before them, in place; the output stays the same.

    The five (of 52) after a `SamePaddedConv2d` are not folded: stored tuned encoders have their weight names.
    """
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for i in range(len(module) - 1):
            convolution, norm = module[i], module[i + 1]
            if type(convolution) is nn.Conv2d and isinstance(norm, nn.BatchNorm2d):
                with torch.no_grad():
                    module[i], module[i + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()


def _layer(channels: int, out: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, out, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU6(inplace=True))
