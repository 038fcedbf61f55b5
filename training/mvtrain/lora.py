"""Low-rank tuning of attention: W + alpha / rank * B A with learned A and B (Hu et al., "LoRA", 2021).

Implemented with torch's weight parametrization on the packed query-key-value projection and the output projection of
`nn.MultiheadAttention` (open_clip) and of timm's attention. Forward code is unchanged.

Why not `peft`, which the tests compare with: as of 0.21 its layer for `nn.MultiheadAttention` adds the product to the
frozen weights before each forward pass and subtracts it afterwards. The weights drift by a rounding error per step, so an
interrupted run cannot be resumed to the same weights. It also replaces parameters that DDP has registered, and counts the
product of the output projection twice (weights with 2 B A reproduce its vectors to 1e-6, those with B A do not).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mvretrieval.encoders.blocks import residual_blocks
from mvretrieval.errors import TrainingError


class LowRank(nn.Module):
    """Low-rank parametrization of a weight; untrained, it returns the weight unchanged to the last bit."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        """Initialize B with zeros, so that the product is zero.

        Args:
            weight: (out, in); gives shape, device and type.
            rank: r.
            alpha: the product is scaled by alpha / r.
        """
        super().__init__()
        self.down = nn.Parameter(weight.new_empty(rank, weight.shape[1]))  # A
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))  # B
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.scale = alpha / rank

    def forward(self, weight: Tensor) -> Tensor:
        """(out, in) -> (out, in)."""
        return weight + self.scale * (self.up @ self.down)


def attach(network: nn.Module, rank: int, alpha: float) -> list[str]:
    """Attach low-rank parametrizations to the attention of all blocks; returns the names of the weights.

    Raises:
        TrainingError: the network has no attention.
    """
    found = attention_weights(network)
    for _, owner, weight in found:
        parametrize.register_parametrization(owner, weight, LowRank(getattr(owner, weight), rank, alpha))
    return [name for name, _, _ in found]


def attention_weights(network: nn.Module) -> list[tuple[str, nn.Module, str]]:
    """Attention weights of all blocks: module name, the module, and the name of the weight in it.

    Raises:
        TrainingError: the network has no attention.
    """
    found = [
        (f"{block_name}.{name}", owner, weight)
        for block_name, block in residual_blocks(network)
        for name, module in block.named_modules()
        for owner, weight in _weights(module)
    ]
    if not found:
        raise TrainingError(
            "this network has no attention layers for low-rank tuning: use --method last-blocks", code="no_attention"
        )
    return found


def _weights(module: nn.Module) -> list[tuple[nn.Module, str]]:
    """Weights of an attention module: query, key, value (usually packed) and output projection."""
    if isinstance(getattr(module, "in_proj_weight", None), nn.Parameter):  # torch, open_clip
        return [(module, "in_proj_weight"), (module.get_submodule("out_proj"), "weight")]
    qkv, proj = getattr(module, "qkv", None), getattr(module, "proj", None)
    if isinstance(qkv, nn.Linear) and isinstance(proj, nn.Linear):  # timm
        return [(qkv, "weight"), (proj, "weight")]
    apart = [getattr(module, name, None) for name in ("q_proj", "k_proj", "v_proj", "proj")]
    if all(isinstance(part, nn.Linear) for part in apart):  # EVA
        return [(part, "weight") for part in apart if part is not None]
    return []


def low_rank_tensors(network: nn.Module) -> dict[str, Tensor]:
    """A and B of every tuned weight by name: `visual.transformer.resblocks.0.attn.in_proj_weight.down`, ..."""
    found = {}
    for path, module in network.named_modules():
        if isinstance(module, LowRank):
            name = path.replace(".parametrizations.", ".").rpartition(".")[0]
            found[f"{name}.down"] = module.down.detach().cpu().contiguous().clone()
            found[f"{name}.up"] = module.up.detach().cpu().contiguous().clone()
    return found


def merge(network: nn.Module) -> None:
    """Add the products to the weights and remove the parametrizations; parameter names become the original ones."""
    for module in list(network.modules()):
        for name in list(getattr(module, "parametrizations", {})):
            if parametrize.is_parametrized(module, name):
                with torch.no_grad():
                    parametrize.remove_parametrizations(module, name, leave_parametrized=True)
