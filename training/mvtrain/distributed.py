"""Data-parallel tuning in several processes, as started by `torchrun`.

Each process encodes its shard of a batch; the loss is computed over the whole batch, because contrastive losses compare
all objects. The gradients equal those of one process with the whole batch.
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
_TIMEOUT = timedelta(hours=12)  # the other processes wait while the first one renders and validates


@dataclass(frozen=True)
class World:
    """This process among all processes of a run.

    Attributes:
        rank: of this process.
        size: number of processes.
        device: of this process.
    """

    rank: int
    size: int
    device: str

    @property
    def is_first(self) -> bool:
        """Whether this process renders, writes files and prints."""
        return self.rank == 0

    def shard(self, rows: Tensor) -> Tensor:
        """This process's shard of (B, ...) rows.

        Raises:
            TrainingError: B is not a multiple of the number of processes.
        """
        if len(rows) % self.size:
            raise TrainingError(
                f"a batch of {len(rows)} objects cannot be divided among {self.size} processes: change "
                "--classes-per-batch or --objects-per-class",
                code="uneven_batch",
            )
        return rows.chunk(self.size)[self.rank]

    def gather(self, vectors: Tensor) -> Tensor:
        """Concatenate (B / size, D) of all processes to (B, D), differentiably."""
        if self.size == 1:
            return vectors
        gathered: Tensor = _Gather.apply(vectors)
        return gathered

    def run_on_first(self, action: Callable[[], T]) -> T | None:
        """Run `action` in the first process while the others wait; they return None.

        Raises:
            TrainingError: in the other processes, if it failed in the first one, which raises the original error.
        """
        result, failure = None, None
        if self.is_first:
            try:
                result = action()
            except BaseException as error:
                failure = error
        if self.size > 1:
            failed = torch.tensor([int(failure is not None)], device=self.device)
            dist.broadcast(failed, 0)
            if failed and not self.is_first:
                raise TrainingError(
                    f"process {self.rank + 1} of {self.size} stopped because the first one failed; see its message",
                    code="first_process_failed",
                )
        if failure is not None:
            raise failure
        return result


class _Gather(torch.autograd.Function):
    """All-gather. Backward sums the gradients of all processes: each has the whole loss, and DDP averages afterwards."""

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
def join_world(device: str) -> Iterator[World]:
    """Join the process group that `torchrun` started; without it, a group of one.

    Args:
        device: `cuda` becomes the GPU of the local rank.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(0, 1, device)
        return
    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=_TIMEOUT)
    try:
        yield World(dist.get_rank(), size, device)
    finally:
        dist.destroy_process_group()
