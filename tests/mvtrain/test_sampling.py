"""Batches and the views that they show."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch

from mvtrain.sampling import balanced_batches, some_views


@pytest.mark.parametrize(("sizes", "p", "k"), [((50, 5, 4, 9), 3, 4), ((7, 1, 2), 24, 4), ((1,) * 10, 4, 2)])
def test_a_batch_has_p_classes_with_k_objects_each(sizes: tuple[int, ...], p: int, k: int) -> None:
    codes = torch.tensor([c for c, n in enumerate(sizes) for _ in range(n)])
    np.random.seed(0)  # noqa: NPY002  (pytorch-metric-learning's sampler draws from it)
    seen: Counter[int] = Counter()
    for rows in islice(balanced_batches(codes, p, k), 200):
        counts = Counter(codes[rows].tolist())
        assert len(counts) == min(p, len(sizes)) and set(counts.values()) == {k}
        for code in counts:
            own = rows[codes[rows] == code].tolist()
            assert len(set(own)) == k or sizes[code] < k, "an object comes again only where there are too few"
        seen.update(counts)
    # Small classes are shown as often as large ones.
    assert max(seen.values()) < 1.4 * min(seen.values()), seen


@pytest.mark.parametrize("turn", [True, False])
@pytest.mark.parametrize("at_least", [1, 3, 5])
def test_some_views_are_rendered_ones_and_never_none(turn: bool, at_least: int) -> None:
    generator = torch.Generator().manual_seed(0)
    full = torch.ones(4000, 12, dtype=torch.bool)
    shown = some_views(full, at_least, turn, generator)
    counts = shown.sum(dim=1)
    strides = {tuple((torch.arange(12) - start) % stride == 0) for stride in range(1, 5) for start in range(12)}
    regular = torch.tensor([tuple(row) in strides for row in shown])
    assert counts[~regular].min() >= at_least and counts.min() >= min(at_least, 12 // max(1, min(4, 12 // at_least)))
    assert (shown.float().mean(dim=0) > 0.2).all(), "every view is shown at times"
    assert counts.max() == 12 and len(set(counts.tolist())) > 12 - at_least - 2
    mask = torch.rand(4000, 12, generator=generator) < 0.3
    mask[:, 5] |= ~mask.any(dim=1)
    hidden = some_views(mask, at_least, turn, generator)
    assert not (hidden & ~mask).any() and hidden.any(dim=1).all()


def test_strides_start_at_the_first_slot_where_slots_are_scored() -> None:
    full = torch.ones(2000, 12, dtype=torch.bool)
    for turn in (False, True):
        shown = some_views(full, 1, turn, torch.Generator().manual_seed(1))
        thinned = [row for row in shown.tolist() if row.count(True) == 3]
        every_fourth = Counter(row.index(True) for row in thinned if row[row.index(True) :: 4] == [True] * 3)
        # A random subset is every fourth view by chance once in hundreds.
        others = sum(n for start, n in every_fourth.items() if start)
        assert every_fourth[0] > 20 and (others > 50 if turn else others < 10), every_fourth


def test_hiding_can_be_switched_off() -> None:
    mask = torch.tensor([[True, False, True]])
    generator = torch.Generator().manual_seed(0)
    for at_least in (0, 3, 9):
        assert torch.equal(some_views(mask, at_least, True, generator), mask)
