"""Several processes that train one model: `torchrun` starts them, and this says who is who.

Each process looks at its share of a batch; the loss sees all of it, since contrastive losses compare every object with
every other. Gradients are what one process with the whole batch would find.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from mvretrieval.errors import TrainingError

T = TypeVar("T")
_PATIENCE = timedelta(hours=12)  # the others wait while the first one renders and validates


@dataclass(frozen=True)
class Ranks:
    """This process among all of them.

    Attributes:
        rank: its number.
        count: of processes.
        device: where it computes.
    """

    rank: int
    count: int
    device: str

    @property
    def first(self) -> bool:
        """Whether this is the one that renders, writes and talks."""
        return self.rank == 0

    def part(self, rows: Tensor) -> Tensor:
        """This process's share of (B, ...) rows.

        Raises:
            TrainingError: they cannot be shared evenly.
        """
        if len(rows) % self.count:
            raise TrainingError(
                f"a batch of {len(rows)} objects cannot be shared among {self.count} processes: choose --classes-per-batch "
                "and --objects-per-class so that it can"
            )
        return rows.chunk(self.count)[self.rank]

    def gather(self, vectors: Tensor) -> Tensor:
        """(B / count, D) of this process to (B, D) of all, in their order, with gradients back to each."""
        if self.count == 1:
            return vectors
        gathered: Tensor = _Gather.apply(vectors)
        return gathered

    def lead(self, action: Callable[[], T]) -> T | None:
        """Let the first process do something while the others wait; theirs is None.

        Raises:
            TrainingError: in the others, where it failed in the first, which raises what went wrong.
        """
        result, failure = None, None
        if self.first:
            try:
                result = action()
            except BaseException as error:
                failure = error
        if self.count > 1:
            failed = torch.tensor([int(failure is not None)], device=self.device)
            dist.broadcast(failed, 0)
            if failed and not self.first:
                raise TrainingError(f"process {self.rank + 1} of {self.count} ends with the first one, which says why")
        if failure is not None:
            raise failure
        return result


class _Gather(torch.autograd.Function):
    """DDP takes the mean of the processes' gradients; each holds the whole loss, so the sum of theirs goes back."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        parts = [torch.empty_like(vectors) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, vectors.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


@contextmanager
def join_ranks(device: str) -> Iterator[Ranks]:
    """Meet the other processes that `torchrun` started; alone without it.

    Args:
        device: of one process; `cuda` becomes each one's own.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks(0, 1, device)
        return
    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=_PATIENCE)
    try:
        yield Ranks(dist.get_rank(), count, device)
    finally:
        dist.destroy_process_group()
