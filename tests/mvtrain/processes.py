"""Functions that tests run in processes of their own, forked from a server that has imported torch once."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from synthetic_views import open_network, synthetic_views, write_clip

from mvretrieval.cli.main import run_command
from mvtrain.distributed import join_world
from mvtrain.tune import tune
from mvtrain.tune_config import TuneConfig


def context() -> ForkServerContext:
    """The start method: importing torch and open_clip takes seconds, so it is done once for all processes."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["processes", "open_clip", "mvtrain.tune_run"])
    return found


def start(function: Callable[..., None], *arguments: Any, **environment: str) -> ForkServerProcess:
    """Start `function(*arguments)` in a process with these environment variables."""
    process = context().Process(target=_call, args=(function, arguments, environment))
    process.start()
    return process


def world_environment() -> list[dict[str, str]]:
    """Environment variables of two ranks, as `torchrun` sets them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in (0, 1)]


def _call(function: Callable[..., None], arguments: tuple[Any, ...], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    function(*arguments)


def run_tuning(folder: Path, out: Path, options: dict[str, Any], dies_after: int | None = None) -> None:
    """Tune on the synthetic views in `folder`, and write the weights of each rank; SIGKILL after a step, if given."""

    def log(entry: dict[str, Any]) -> None:
        if entry["step"] == dies_after:
            os.kill(os.getpid(), signal.SIGKILL)

    out.mkdir(exist_ok=True)
    with join_world("cpu") as world:
        world.run_on_first(lambda: synthetic_views(folder))
        encoder = open_network(write_clip(folder))
        tuned = tune(encoder, synthetic_views(folder), TuneConfig(**options), out, log=log, world=world)
        tensors = weights_of(encoder, tuned)
        save_file({n: t.contiguous() for n, t in tensors.items()}, out / f"weights-{world.rank}.safetensors")


def weights_of(encoder: Any, tuned: Any) -> dict[str, Any]:
    """Weights of a tuned encoder and of its view weighting, by name."""
    pooling = {f"pooling.{name}": tensor for name, tensor in tuned.pooling.state_dict().items()}
    return dict(encoder.network.state_dict()) | pooling


def run_mvr(command: str, arguments: list[str], result: Path) -> None:
    """Run `mvr COMMAND`, and write its exit code and stderr to a JSON file."""
    with (result.with_suffix(".err")).open("w+") as err, contextlib.redirect_stderr(err):
        code = run_command(command, arguments)
        sys.stderr.flush()
        err.seek(0)
        result.write_text(json.dumps({"code": code, "stderr": err.read()}))
