"""Random view vectors, and modules with random weights."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

B, V, D = 3, 6, 16
_Module = TypeVar("_Module", bound=nn.Module)


def random_views(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """View vectors (B, V, D), mask (B, V) with masked views, and directions (B, V, 3)."""
    torch.manual_seed(seed)
    vectors = nn.functional.normalize(torch.randn(B, V, D), dim=2)
    mask = torch.ones(B, V, dtype=torch.bool)
    mask[0, 1] = mask[1, :3] = False
    directions = nn.functional.normalize(torch.randn(B, V, 3), dim=2)
    return vectors, mask, directions


def randomize(module: _Module) -> _Module:
    """Draw every parameter from a normal distribution."""
    torch.manual_seed(7)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.7)
    return module.eval()
