"""Low-rank tuning of attention: W + alpha / rank * B A, of which A and B are learnt (Hu et al., "LoRA", 2021).

By torch's parametrisation of weights, on the packed projection of queries, keys and values and on the output projection,
of `nn.MultiheadAttention` (open_clip) and of timm's attention alike; forward code reads the weights and never notices.

Why not `peft`, which the tests compare with: as of 0.21 its layer for `nn.MultiheadAttention` adds the product to the
frozen weights before each forward pass and subtracts it afterwards, so that they drift by a rounding error at every step
and a stopped training cannot be resumed to the same weights; it replaces parameters under DDP's hands; and it counts the
output projection's product twice (the weights with 2 B A give its vectors to 1e-6, those with B A do not).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mvretrieval.encoders.blocks import residual_blocks
from mvretrieval.errors import TrainingError


class LowRank(nn.Module):
    """Parametrisation of a weight: untrained, it is the weight itself to the last bit."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        """Begin at zero.

        Args:
            weight: (out, in), for its shape, device and type.
            rank: r.
            alpha: the product counts alpha / r.
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
    """Make the attention of all blocks low-rank tunable; returns the names of the weights.

    Raises:
        TrainingError: the network has no attention.
    """
    found = attention_weights(network)
    for _, owner, weight in found:
        parametrize.register_parametrization(owner, weight, LowRank(getattr(owner, weight), rank, alpha))
    return [name for name, _, _ in found]


def attention_weights(network: nn.Module) -> list[tuple[str, nn.Module, str]]:
    """What low-rank tuning changes: name of a module, who owns the weight, and the weight's name there.

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
            "this network has no attention that low-rank tuning could change: take --method last-blocks"
        )
    return found


def _weights(module: nn.Module) -> list[tuple[nn.Module, str]]:
    """Weights of an attention module: q, k, v, mostly packed, and the output projection."""
    if isinstance(getattr(module, "in_proj_weight", None), nn.Parameter):  # torch's, and open_clip's own
        return [(module, "in_proj_weight"), (module.get_submodule("out_proj"), "weight")]
    qkv, proj = getattr(module, "qkv", None), getattr(module, "proj", None)
    if isinstance(qkv, nn.Linear) and isinstance(proj, nn.Linear):  # timm's
        return [(qkv, "weight"), (proj, "weight")]
    apart = [getattr(module, name, None) for name in ("q_proj", "k_proj", "v_proj", "proj")]
    if all(isinstance(part, nn.Linear) for part in apart):  # EVA's
        return [(part, "weight") for part in apart if part is not None]
    return []


def low_rank_tensors(network: nn.Module) -> dict[str, Tensor]:
    """A and B of every tuned weight, by its name: `visual.transformer.resblocks.0.attn.in_proj_weight.down`, ..."""
    found = {}
    for path, module in network.named_modules():
        if isinstance(module, LowRank):
            name = path.replace(".parametrizations.", ".").rpartition(".")[0]
            found[f"{name}.down"] = module.down.detach().cpu().contiguous().clone()
            found[f"{name}.up"] = module.up.detach().cpu().contiguous().clone()
    return found


def merge(network: nn.Module) -> None:
    """Put the products into the weights and take the parametrisation off. Names are what they were before."""
    for module in list(network.modules()):
        for name in list(getattr(module, "parametrizations", {})):
            if parametrize.is_parametrized(module, name):
                with torch.no_grad():
                    parametrize.remove_parametrizations(module, name, leave_parametrized=True)
