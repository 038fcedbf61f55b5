"""open_clip's vision transformers without what is computed in vain.

A picture's vector is read off its first token, so the last block need not answer the others: they are looked at there and
go nowhere. Of twelve blocks that is 7 % of all multiplications.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

_USED = ("_embeds", "_pool", "transformer", "proj")


def supports_cls_only(visual: nn.Module) -> bool:
    """Whether it is a transformer of the plain kind, of which the first token alone is used."""
    from open_clip.transformer import ResidualAttentionBlock, VisionTransformer

    if type(visual) is not VisionTransformer or not all(hasattr(visual, name) for name in _USED):
        return False
    tower: Any = visual
    transformer, last = tower.transformer, tower.transformer.resblocks[-1]
    return (
        tower.pool_type == "tok"
        and tower.attn_pool is None
        and getattr(transformer, "batch_first", False)
        and type(last) is ResidualAttentionBlock
        and not hasattr(last.attn, "together")  # attention across views, which is another kind of attention
        and last.attn.in_proj_bias is not None
    )


def encode_cls_only(visual: Any, images: Tensor) -> Tensor:
    """(N, 3, size, size) to (N, D), as `visual` itself gives it."""
    *blocks, last = visual.transformer.resblocks
    tokens = visual._embeds(images)
    for block in blocks:
        tokens = block(tokens)
    first = tokens[:, :1] + last.ls_1(_attention_of_first(last.attn, last.ln_1(tokens)))
    first = first + last.ls_2(last.mlp(last.ln_2(first)))
    vectors, _ = visual._pool(first)
    out: Tensor = vectors if visual.proj is None else vectors @ visual.proj
    return out


def _attention_of_first(attention: nn.MultiheadAttention, tokens: Tensor) -> Tensor:
    """(N, L, C) to (N, 1, C)."""
    width, weight, bias = attention.embed_dim, attention.in_proj_weight, attention.in_proj_bias
    query = F.linear(tokens[:, :1], weight[:width], bias[:width])
    key, value = F.linear(tokens, weight[width:], bias[width:]).chunk(2, dim=2)
    heads = [part.reshape(*part.shape[:2], attention.num_heads, -1).transpose(1, 2) for part in (query, key, value)]
    seen = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])
    out: Tensor = attention.out_proj(seen.transpose(1, 2).flatten(2))
    return out
