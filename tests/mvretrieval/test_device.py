"""Hashes of weights."""

from __future__ import annotations

import torch

from mvretrieval.encoders.device import weights_hash


def test_the_hash_depends_on_every_value_and_not_on_the_number_of_threads() -> None:
    weights = {"a": torch.randn(700, 900), "b": torch.randn(33).bfloat16(), "c": torch.arange(5), "d": torch.empty(0)}
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = weights_hash(weights)
        torch.set_num_threads(4)
        assert weights_hash(weights) == one
    finally:
        torch.set_num_threads(threads)
    weights["a"].view(-1)[12_345] += 1e-3  # not in the sample of values that is hashed
    assert weights_hash(weights) != one
