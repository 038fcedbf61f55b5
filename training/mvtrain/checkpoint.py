"""Where a tuning stands, in one safetensors file: weights, their running mean, the optimiser's moments, and the step.

There is no state of random numbers in it: what a step shows follows from the seed and the number of the step.
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


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Replace the checkpoint in `folder`, all of it or nothing.

    Raises:
        TrainingError: the folder cannot be written.
    """
    part = folder / f"{FILE}.part"
    try:
        plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        save_file(plain, part, metadata={"record": json.dumps(record)})
        part.replace(folder / FILE)
    except (OSError, SafetensorError) as error:
        raise TrainingError(f"no checkpoint can be written to {folder}: {error}") from error


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of the checkpoint in `folder`, without its tensors; None where there is none.

    Raises:
        TrainingError: it is damaged.
    """
    found = _opened(folder, lambda file: {})
    return None if found is None else found[1]


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and record of the checkpoint in `folder`; None where there is none.

    Raises:
        TrainingError: it is damaged.
    """
    return _opened(folder, lambda file: {name: file.get_tensor(name) for name in file.keys()})


def _opened(
    folder: Path, tensors: Callable[[Any], dict[str, Tensor]]
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return tensors(file), json.loads((file.metadata() or {})["record"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(f"{path} is damaged ({error}): remove it, or give --overwrite, to begin anew") from error


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments of every parameter, by its position."""
    state = optimiser.state_dict()["state"]
    return {f"optimiser.{i}.{name}": torch.as_tensor(value) for i, own in state.items() for name, value in own.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Back from `optimiser_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimiser":
            position, _, part = rest.partition(".")
            state.setdefault(int(position), {})[part] = value
    plain = optimiser.state_dict()
    optimiser.load_state_dict({**plain, "state": state})
