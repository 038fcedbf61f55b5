"""All views of an object attend to one another in the last blocks of a vision transformer, before they are pooled.

As Duoduo CLIP does (Lee et al., "Duoduo CLIP: efficient 3D understanding with multi-view images", ICLR 2025): the tokens
of an object's views stand behind one another in the self-attention of the last blocks. No weight is added, and a picture
by itself is seen as before.

Which pictures belong together is said where they are encoded (`NetworkEncoder.encode_views`, `groups`): the views of one
mesh in one style, the photos of one question. Without it, each picture is by itself, as where photos are matched with
views one by one. A view that shows nothing takes part here; the pooling behind leaves it out.
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
    """How many consecutive pictures of a batch show one object."""

    views: int = 1

    def join(self, tokens: Tensor) -> Tensor:
        """(B * V, L, C) -> (B, V * L, C)."""
        return tokens.reshape(-1, self.views * tokens.shape[1], tokens.shape[2])

    def part(self, tokens: Tensor) -> Tensor:
        """The way back."""
        return tokens.reshape(-1, tokens.shape[1] // self.views, tokens.shape[2])


def enable_cross_view(network: nn.Module, last: int) -> None:
    """Let the last blocks of a network see all views of an object at once. Names of weights stay as they are.

    Raises:
        EncoderError: see `cross_view_attentions`.
    """
    attentions = cross_view_attentions(network, last)
    shared = CrossViewState()
    network.together = shared  # type: ignore[assignment]
    for attention in attentions:
        attention.together = shared
        attention.__class__ = _cross_view_class(type(attention))


def has_cross_view(network: nn.Module) -> bool:
    """Whether views have been joined in it."""
    return getattr(network, "together", None) is not None


def check_cross_view(network: nn.Module, last: int, pictures: Tensor) -> None:
    """Let two pictures (2, 3, size, size) attend to one another once; the network is afterwards what it was.

    Raises:
        EncoderError: it has no such blocks, or their attention is made for the tokens of one picture.
    """
    kinds = {attention: type(attention) for attention in cross_view_attentions(network, last)}
    enable_cross_view(network, last)
    try:
        with views_grouped(network, 2), torch.inference_mode():
            network(pictures)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise EncoderError(
            f"cross-view attention takes tokens of several pictures, and this network's only those of one ({error})"
        ) from error
    finally:
        for attention, kind in kinds.items():
            attention.__class__ = kind
            del attention.together
        del network.together


def cross_view_attentions(network: nn.Module, last: int) -> list[Any]:
    """The self-attention of the last blocks.

    Raises:
        EncoderError: the network has fewer blocks, or some whose attention cannot look across views.
    """
    blocks = [block for _, block in residual_blocks(network)]
    attentions = [attention for block in blocks[-last:] if (attention := getattr(block, "attn", None)) is not None]
    if not 1 <= last <= len(blocks):
        raise EncoderError(f"cross-view attention takes 1 to {len(blocks)} of this network's blocks, not {last}")
    if len(attentions) < last:
        raise EncoderError(
            "cross-view attention needs a vision transformer: this network's blocks have no self-attention"
        )
    if any("rope" in signature(attention.forward).parameters for attention in attentions):
        raise EncoderError("cross-view attention is not made for rotary positions, which this network's attention has")
    return attentions


@contextmanager
def views_grouped(network: nn.Module, views: int) -> Iterator[None]:
    """Inside, `views` consecutive pictures of every batch show one object."""
    set_views_per_object(network, views)
    try:
        yield
    finally:
        set_views_per_object(network, 1)


def set_views_per_object(network: nn.Module, views: int) -> None:
    """From now on, `views` consecutive pictures of every batch show one object; no effect on networks that see one by one."""
    shared = getattr(network, "together", None)
    if shared is not None:
        shared.views = views


def _cross_view_class(kind: type[Any]) -> type[Any]:
    """The same kind of attention on joined tokens: a subclass, so that weights keep their names and places."""
    if issubclass(kind, nn.MultiheadAttention):

        def of_three(
            self: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
        ) -> tuple[Tensor, Any]:
            joined = self.together.join(query)
            out, weights = kind.forward(self, joined, joined, joined, *args, **kwargs)
            return self.together.part(out), weights

        return type(f"CrossView{kind.__name__}", (kind,), {"forward": of_three})

    def of_one(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        out: Tensor = self.together.part(kind.forward(self, self.together.join(x), *args, **kwargs))
        return out

    return type(f"CrossView{kind.__name__}", (kind,), {"forward": of_one})
