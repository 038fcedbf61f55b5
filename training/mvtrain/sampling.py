"""Batch sampling: class-balanced objects, and view dropout."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pytorch_metric_learning.samplers import MPerClassSampler
from torch import Tensor


def balanced_batches(class_ids: Tensor, classes: int, per_class: int) -> Iterator[Tensor]:
    """Yield batches of P classes with K objects each, without end. Classes with fewer than K objects repeat them.

    Args:
        class_ids: (N,) class of each object.
        classes: P; all classes, if there are fewer.
        per_class: K.

    Yields:
        (P * K,) indices.
    """
    size = min(classes, len(torch.unique(class_ids))) * per_class
    # The sampler yields whole batches: a pass has as many rows as objects, but at least one batch.
    sampler = MPerClassSampler(class_ids, per_class, size, length_before_new_iter=max(size, len(class_ids)))
    while True:
        order = torch.tensor(list(sampler))
        yield from torch.split(order, size)


def drop_views(mask: Tensor, at_least: int, random_start: bool, generator: torch.Generator) -> Tensor:
    """View dropout, for robustness to fewer or other views than in training.

    Half of the objects keep a random subset. The other half keep every second, third or fourth view, as on a smaller
    rig.

    Args:
        mask: (B, V) bool, True where a view was rendered.
        at_least: minimum number of views; 0 drops none.
        random_start: draw the first kept view of a stride at random; False starts at slot 0, for scores by slot.
        generator: source of randomness.

    Returns:
        (B, V) bool: a subset of `mask` with at least one view per object.
    """
    b, v = mask.shape
    if at_least == 0 or at_least >= v:
        return mask
    kept = torch.randint(at_least, v + 1, (b, 1), generator=generator)
    subset = torch.rand(b, v, generator=generator).argsort(dim=1).argsort(dim=1) < kept
    stride = torch.randint(1, max(2, min(4, v // at_least) + 1), (b, 1), generator=generator)
    start = torch.randint(0, v, (b, 1), generator=generator) if random_start else torch.zeros(b, 1, dtype=torch.long)
    strided = (torch.arange(v) - start) % stride == 0
    chosen = torch.where(torch.rand(b, 1, generator=generator) < 0.5, subset, strided) & mask
    return torch.where(chosen.any(dim=1, keepdim=True), chosen, mask)
