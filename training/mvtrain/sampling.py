"""What a batch shows: as many objects of small classes as of large ones, and each object with some of its views."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pytorch_metric_learning.samplers import MPerClassSampler
from torch import Tensor


def balanced_batches(codes: Tensor, classes: int, per_class: int) -> Iterator[Tensor]:
    """Batches of P classes with K objects each, for ever; a class with fewer than K repeats its own.

    Args:
        codes: (N,) class of each object.
        classes: P; all there are, if fewer.
        per_class: K.

    Yields:
        (P * K,) indices.
    """
    size = min(classes, len(torch.unique(codes))) * per_class
    # The sampler fills whole batches: a pass is as long as the objects, or one batch where there are fewer.
    sampler = MPerClassSampler(codes, per_class, size, length_before_new_iter=max(size, len(codes)))
    while True:
        order = torch.tensor(list(sampler))
        yield from torch.split(order, size)


def some_views(mask: Tensor, at_least: int, turn: bool, generator: torch.Generator) -> Tensor:
    """Hide views at random, so that an adapter works with fewer or other views than it saw.

    Half of the objects keep a random subset; the other half keep every second, third or fourth view, as a smaller rig
    would show them, from a start that varies.

    Args:
        mask: (B, V) bool, views that were rendered.
        at_least: fewest views that stay; 0 hides none.
        turn: whether the start varies; slot scores are tied to it and train without.
        generator: of the randomness.

    Returns:
        (B, V) bool. Rendered views alone, and never none.
    """
    b, v = mask.shape
    if at_least == 0 or at_least >= v:
        return mask
    kept = torch.randint(at_least, v + 1, (b, 1), generator=generator)
    subset = torch.rand(b, v, generator=generator).argsort(dim=1).argsort(dim=1) < kept
    stride = torch.randint(1, max(2, min(4, v // at_least) + 1), (b, 1), generator=generator)
    start = torch.randint(0, v, (b, 1), generator=generator) if turn else torch.zeros(b, 1, dtype=torch.long)
    strided = (torch.arange(v) - start) % stride == 0
    chosen = torch.where(torch.rand(b, 1, generator=generator) < 0.5, subset, strided) & mask
    return torch.where(chosen.any(dim=1, keepdim=True), chosen, mask)
