"""Cross-view attention: the views of an object attend to one another in the last blocks of a vision transformer.

This follows Duoduo CLIP (Lee et al., "Duoduo CLIP: efficient 3D understanding with multi-view images", ICLR 2025): the
self-attention of the last blocks runs over the concatenated tokens of all views of an object. It adds no weights, and the
vector of a single image does not change.

The caller of `NetworkEncoder.encode_views` passes as `groups` which images belong together: the views of one mesh in one
style, or the photos of one query. Without `groups` each image is encoded by itself, as for late interaction between photos and
views. An empty view takes part in the attention; pooling masks it afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from mvretrieval.encoders.blocks import residual_blocks
from mvretrieval.errors import EncoderError


@dataclass
class CrossViewState:
    """State that all cross-view attentions of a network share.

    Attributes:
        n_views: number V of consecutive images of a batch that show one object.
    """

    n_views: int = 1

    def join(self, tokens: Tensor) -> Tensor:
        """(B * V, L, C) to (B, V * L, C)."""
        return tokens.reshape(-1, self.n_views * tokens.shape[1], tokens.shape[2])

    def split(self, tokens: Tensor) -> Tensor:
        """(B, V * L, C) to (B * V, L, C)."""
        return tokens.reshape(-1, tokens.shape[1] // self.n_views, tokens.shape[2])


def enable_cross_view(network: nn.Module, n_blocks: int) -> None:
    """Turn the self-attention of the last `n_blocks` blocks into cross-view attention. Weights keep their names.

    Raises:
        EncoderError: see `cross_view_attentions`.
    """
    attentions = cross_view_attentions(network, n_blocks)
    state = CrossViewState()
    network.cross_view_state = state  # type: ignore[assignment]
    for attention in attentions:
        attention.cross_view_state = state
        attention.__class__ = _cross_view_class(type(attention))


def has_cross_view(network: nn.Module) -> bool:
    """Whether cross-view attention is enabled."""
    return _state_of(network) is not None


def check_cross_view(network: nn.Module, n_blocks: int, images: Tensor) -> None:
    """Encode two images (2, 3, size, size) with cross-view attention once, and leave the network unchanged.

    Raises:
        EncoderError: the network has no such blocks, or their attention does not accept the tokens of several images.
    """
    kinds = {attention: type(attention) for attention in cross_view_attentions(network, n_blocks)}
    enable_cross_view(network, n_blocks)
    try:
        with views_grouped(network, 2), torch.inference_mode():
            network(images)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise EncoderError(
            f"cross-view attention is not possible: the attention of this network takes the tokens of one image only ({error})",
            code="no_cross_view",
        ) from error
    finally:
        for attention, kind in kinds.items():
            attention.__class__ = kind
            del attention.cross_view_state
        del network.cross_view_state


def cross_view_attentions(network: nn.Module, n_blocks: int) -> list[Any]:
    """List the self-attention modules of the last `n_blocks` blocks.

    Raises:
        EncoderError: the network has fewer blocks, or their attention cannot span views.
    """
    blocks = [block for _, block in residual_blocks(network)]
    attentions = [attention for block in blocks[-n_blocks:] if (attention := getattr(block, "attn", None)) is not None]
    if not 1 <= n_blocks <= len(blocks):
        raise EncoderError(
            f"cross-view attention in {n_blocks} blocks is not possible: give 1 to {len(blocks)} for this network",
            code="bad_cross_view",
        )
    if len(attentions) < n_blocks:
        raise EncoderError(
            "cross-view attention needs a vision transformer: the blocks of this network have no self-attention",
            code="no_cross_view",
        )
    if any("rope" in signature(attention.forward).parameters for attention in attentions):
        raise EncoderError(
            "cross-view attention does not support the rotary position embeddings of this network", code="no_cross_view"
        )
    return attentions


@contextmanager
def views_grouped(network: nn.Module, n_views: int) -> Iterator[None]:
    """Within the context, `n_views` consecutive images of a batch show one object."""
    set_views_per_object(network, n_views)
    try:
        yield
    finally:
        set_views_per_object(network, 1)


def set_views_per_object(network: nn.Module, n_views: int) -> None:
    """Declare that `n_views` consecutive images of a batch show one object. No effect without cross-view attention."""
    state = _state_of(network)
    if state is not None:
        state.n_views = n_views


def _state_of(network: nn.Module) -> CrossViewState | None:
    state = getattr(network, "cross_view_state", None)
    return state if isinstance(state, CrossViewState) else None


def _cross_view_class(kind: type[Any]) -> type[Any]:
    """Subclass of an attention class that runs over the joined tokens. As a subclass it keeps the names of the weights."""
    if issubclass(kind, nn.MultiheadAttention):

        def forward_qkv(
            self: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
        ) -> tuple[Tensor, Any]:
            joined = self.cross_view_state.join(query)
            out, weights = kind.forward(self, joined, joined, joined, *args, **kwargs)
            return self.cross_view_state.split(out), weights

        return type(f"CrossView{kind.__name__}", (kind,), {"forward": forward_qkv})

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = self.cross_view_state.split(kind.forward(self, self.cross_view_state.join(x), *args, **kwargs))
        return out

    return type(f"CrossView{kind.__name__}", (kind,), {"forward": forward})
