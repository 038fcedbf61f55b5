"""Checkpoints of a tuning run: one safetensors file with the weights, their running mean, the optimizer state and the step.

No random state is stored: the batch of a step follows from the seed and the step number.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mvretrieval.errors import TrainingError

FILE = "checkpoint.safetensors"
# Key prefix in the file; checkpoints of version 0.1 have it too.
_OPTIMIZER = "optimiser"


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Replace the checkpoint in `folder` atomically.

    Raises:
        TrainingError: the folder is not writable.
    """
    part = folder / f"{FILE}.part"
    try:
        plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file(plain, part, metadata={"record": json.dumps(record)})
        part.replace(folder / FILE)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"cannot write a checkpoint to {folder}: {error}; free some space or choose another --out",
            code="not_writable",
        ) from error


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read the record of the checkpoint in `folder` without its tensors; None if there is no checkpoint.

    Raises:
        TrainingError: the checkpoint is damaged.
    """
    found = _open(folder, lambda file: {})
    return None if found is None else found[1]


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read the tensors and the record of the checkpoint in `folder`; None if there is no checkpoint.

    Raises:
        TrainingError: the checkpoint is damaged.
    """
    return _open(folder, lambda file: {name: file.get_tensor(name) for name in file.keys()})


def check_identity(folder: Path | None, identity: dict[str, Any]) -> bool:
    """Whether `folder` has a checkpoint of the run with this identity.

    Args:
        folder: of the checkpoint; None has none.
        identity: all that decides the final weights: `base` (encoder fingerprint), `pictures` (fingerprint of the
            objects), `config`.

    Raises:
        TrainingError: the checkpoint is damaged, or belongs to another run.
    """
    record = None if folder is None else read_record(folder)
    if record is None:
        return False
    before = record["identity"]
    for name, what in (("base", "encoder"), ("pictures", "objects"), ("config", "options")):
        if before.get(name) != identity[name]:
            raise TrainingError(
                f"{folder} has a checkpoint of a run with a different value for {what}:\n"
                f"  {_difference(before.get(name), identity[name])}\n"
                "Choose another --out, or give --overwrite to start over",
                code="other_checkpoint",
            )
    return True


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments of every parameter, keyed by its position."""
    state = optimizer.state_dict()["state"]
    return {
        f"{_OPTIMIZER}.{i}.{name}": torch.as_tensor(value) for i, own in state.items() for name, value in own.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == _OPTIMIZER:
            position, _, part = rest.partition(".")
            state.setdefault(int(position), {})[part] = value
    plain = optimizer.state_dict()
    optimizer.load_state_dict({**plain, "state": state})


def _open(
    folder: Path, read_tensors: Callable[[Any], dict[str, Tensor]]
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return read_tensors(file), json.loads((file.metadata() or {})["record"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(
            f"{path} is damaged ({error}): delete it, or give --overwrite to start over", code="checkpoint_damaged"
        ) from error


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        changed = [name for name in now if before.get(name) != now[name]]
        return ", ".join(f"{name}: {before.get(name)} (checkpoint), {now[name]} (now)" for name in changed)
    return f"{before} (checkpoint), {now} (now)"
