"""Class-balanced batches and view dropout."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from mvtrain.sampling import balanced_batches, drop_views


@pytest.mark.parametrize(("sizes", "p", "k"), [((50, 5, 4, 9), 3, 4), ((7, 1, 2), 24, 4), ((1,) * 10, 4, 2)])
def test_a_batch_has_p_classes_with_k_objects_each(sizes: tuple[int, ...], p: int, k: int) -> None:
    class_ids = torch.tensor([c for c, n in enumerate(sizes) for _ in range(n)])
    np.random.seed(0)  # noqa: NPY002  (pytorch-metric-learning's sampler draws from it)
    seen: Counter[int] = Counter()
    for rows in islice(balanced_batches(class_ids, p, k), 200):
        counts = Counter(class_ids[rows].tolist())
        assert len(counts) == min(p, len(sizes)) and set(counts.values()) == {k}
        for class_id in counts:
            own = rows[class_ids[rows] == class_id].tolist()
            assert len(set(own)) == k or sizes[class_id] < k, "objects repeat only in classes with fewer than k"
        seen.update(counts)
    # Small classes are drawn as often as large ones.
    assert max(seen.values()) < 1.4 * min(seen.values()), seen


@pytest.mark.parametrize("random_start", [True, False])
@pytest.mark.parametrize("at_least", [1, 3, 5])
def test_view_dropout_keeps_at_least_one_rendered_view(random_start: bool, at_least: int) -> None:
    generator = torch.Generator().manual_seed(0)
    full = torch.ones(4000, 12, dtype=torch.bool)
    shown = drop_views(full, at_least, random_start, generator)
    counts = shown.sum(dim=1)
    strides = {tuple((torch.arange(12) - start) % stride == 0) for stride in range(1, 5) for start in range(12)}
    regular = torch.tensor([tuple(row) in strides for row in shown])
    assert counts[~regular].min() >= at_least and counts.min() >= min(at_least, 12 // max(1, min(4, 12 // at_least)))
    assert (shown.float().mean(dim=0) > 0.2).all(), "every view is kept at times"
    assert counts.max() == 12 and len(set(counts.tolist())) > 12 - at_least - 2
    mask = torch.rand(4000, 12, generator=generator) < 0.3
    mask[:, 5] |= ~mask.any(dim=1)
    kept = drop_views(mask, at_least, random_start, generator)
    assert not (kept & ~mask).any() and kept.any(dim=1).all()


def test_strides_start_at_slot_0_without_random_start() -> None:
    full = torch.ones(2000, 12, dtype=torch.bool)
    for random_start in (False, True):
        shown = drop_views(full, 1, random_start, torch.Generator().manual_seed(1))
        thinned = [row for row in shown.tolist() if row.count(True) == 3]
        every_fourth = Counter(row.index(True) for row in thinned if row[row.index(True) :: 4] == [True] * 3)
        # A random subset is a stride of 4 by chance, about once in hundreds of draws.
        others = sum(n for start, n in every_fourth.items() if start)
        assert every_fourth[0] > 20 and (others > 50 if random_start else others < 10), every_fourth


def test_view_dropout_can_be_disabled() -> None:
    mask = torch.tensor([[True, False, True]])
    generator = torch.Generator().manual_seed(0)
    for at_least in (0, 3, 9):
        assert torch.equal(drop_views(mask, at_least, True, generator), mask)
