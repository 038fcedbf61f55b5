"""Fingerprints of weights."""

from __future__ import annotations

import torch

from mvretrieval.encoders.device import weights_hash


def test_the_hash_does_not_depend_on_threads_but_on_every_value() -> None:
    weights = {"a": torch.randn(700, 900), "b": torch.randn(33).bfloat16(), "c": torch.arange(5), "d": torch.empty(0)}
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = weights_hash(weights)
        torch.set_num_threads(4)
        assert weights_hash(weights) == one
    finally:
        torch.set_num_threads(threads)
    weights["a"].view(-1)[12_345] += 1e-3  # not among the values that are hashed one by one
    assert weights_hash(weights) != one
