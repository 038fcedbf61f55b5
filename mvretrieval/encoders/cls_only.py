"""Forward pass of open_clip's vision transformers that computes only the CLS token in the last block.

The image vector is read from the CLS token, so the other tokens need no output in the last block. With twelve blocks this
saves 7 % of all multiplications.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

_REQUIRED = ("_embeds", "_pool", "transformer", "proj")


def supports_cls_only(visual: nn.Module) -> bool:
    """Whether `visual` is a plain vision transformer whose output depends on the CLS token alone."""
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    if type(visual) is not VisionTransformer or not all(hasattr(visual, name) for name in _REQUIRED):
        return False
    tower: Any = visual
    transformer, last = tower.transformer, tower.transformer.resblocks[-1]
    return (
        tower.pool_type == "tok"
        and tower.attn_pool is None
        and getattr(transformer, "batch_first", False)
        and type(last) is ResidualAttentionBlock
        and not hasattr(last.attn, "cross_view_state")  # cross-view attention needs all tokens of all views
        and last.attn.in_proj_bias is not None
    )


def encode_cls_only(visual: Any, images: Tensor) -> Tensor:
    """(N, 3, size, size) to (N, D), the same output as that of `visual`."""
    *blocks, last = visual.transformer.resblocks
    tokens = visual._embeds(images)
    for block in blocks:
        tokens = block(tokens)
    cls = tokens[:, :1] + last.ls_1(_cls_attention(last.attn, last.ln_1(tokens)))
    cls = cls + last.ls_2(last.mlp(last.ln_2(cls)))
    vectors, _ = visual._pool(cls)
    out: Tensor = vectors if visual.proj is None else vectors @ visual.proj
    return out


def _cls_attention(attention: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    """Self-attention output of the first of L tokens: (N, L, C) to (N, 1, C)."""
    width, weight, bias = attention.embed_dim, attention.in_proj_weight, attention.in_proj_bias
    query = F.linear(tokens[:, :1], weight[:width], bias[:width])
    key, value = F.linear(tokens, weight[width:], bias[width:]).chunk(2, dim=2)
    heads = [part.reshape(*part.shape[:2], attention.num_heads, -1).transpose(1, 2) for part in (query, key, value)]
    attended = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])
    out: Tensor = attention.out_proj(attended.transpose(1, 2).flatten(2))
    return out
