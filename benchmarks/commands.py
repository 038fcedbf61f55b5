"""Run commands and scripts in processes of their own, and measure them."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from benchmarks import data

MVR = [sys.executable, "-m", "mvretrieval"]


def mvr(*arguments: str | Path) -> dict[str, Any]:
    """Run a command with --json and return its object; notices go to stderr."""
    done = subprocess.run([*MVR, *map(str, arguments), "--json"], check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def script(name: str, *arguments: object, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a script of this package, and return the JSON object on its last output line.

    Raises:
        RuntimeError: it failed; the message has the end of its stderr.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent, env=os.environ | dict(env or {}),
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"benchmarks.{name} failed: {done.stderr.strip()[-2000:] or 'no output'}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def seconds_of(*command: str | Path) -> float:
    """Wall time of a whole process including its start; output is discarded.

    Raises:
        CalledProcessError: it failed.
    """
    started = time.monotonic()
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - started


def milliseconds(times: int, *steps: Callable[[int], object]) -> list[float]:
    """Median time of each step, called in turn with 0, 1, ... after one warm-up call."""
    taken: list[list[float]] = [[] for _ in steps]
    for i in range(-1, times):
        for own, step in zip(taken, steps, strict=True):
            started = time.perf_counter()
            step(max(i, 0))
            if i >= 0:
                own.append(1000 * (time.perf_counter() - started))
    return [statistics.median(own) for own in taken]


def mvr_with_memory(*arguments: str | Path) -> tuple[dict[str, Any], float]:
    """Run a command; returns its object, and the peak of the proportional memory of it and its children in bytes."""
    process = subprocess.Popen([*MVR, *map(str, arguments), "--json"], stdout=subprocess.PIPE, text=True)
    peak = 0.0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        root = psutil.Process(process.pid)
        while not done.wait(0.2):
            total = 0
            try:
                for one in [root, *root.children(recursive=True)]:
                    total += one.memory_full_info().pss
            except psutil.Error:
                continue
            peak = max(peak, float(total))

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = process.communicate()
    done.set()
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"{arguments[0]} failed with {process.returncode}")
    return json.loads(out), peak


def fresh(name: str) -> Path:
    """An empty path of that name under benchmarks/work; an existing folder is deleted."""
    folder = data.WORK / name
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder
