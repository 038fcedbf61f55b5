"""Whether FAISS can search on a GPU of this machine, with the reason if not, and how much of its memory is free.

Importing this module loads neither FAISS nor torch. Builds of FAISS without GPU support (`faiss-cpu`) lack the GPU's names.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")  # Linux; Linux under Windows
_PROBE_SECONDS = 120.0  # a GPU that is newer than the build of FAISS compiles all of it at the first use
# FAISS ends the whole process where a driver is too old or the build has no code for the GPU: so this runs in another one.
_PROBE = """
import sys, faiss, numpy as np
number, count = int(sys.argv[1]), faiss.get_num_gpus()
if number >= count:
    raise SystemExit(f"FAISS finds {count} GPUs, and no cuda:{number}")
options = faiss.GpuClonerOptions()
options.useFloat16 = True
index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), number, faiss.IndexFlatIP(32), options)
vectors = np.random.default_rng(0).standard_normal((1000, 32), np.float32)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
index.add(vectors)
if index.search(vectors[:9], 4)[1][:, 0].tolist() != list(range(9)):
    raise SystemExit("FAISS computes wrong results on this GPU")
"""


def has_gpu_driver() -> bool:
    """Whether the driver of an NVIDIA GPU is loaded; takes no time, and imports nothing."""
    return any(Path(device).exists() for device in _DRIVERS)


def choose_gpu(device: str) -> tuple[int | None, str]:
    """Choose the GPU for vector search.

    Args:
        device: `auto`, `cpu`, `cuda`, `cuda:1`, ...; FAISS knows no others.

    Returns:
        The number of the GPU, or None and the reason. The reason is empty where no GPU was requested: for a device that is not
        `cuda`, and for `auto` on a machine without a GPU.
    """
    number = _number_of(device)
    if number is None or (device == "auto" and not has_gpu_driver()):
        return None, ""
    reason = why_no_gpu(number)
    return (None, reason) if reason else (number, "")


@cache
def why_no_gpu(number: int = 0) -> str:
    """Why FAISS cannot search on a GPU, by its number; empty if it can. Tried once per process, in another process."""
    faiss: Any = importlib.import_module("faiss")
    if not hasattr(faiss, "StandardGpuResources"):
        return (
            f"FAISS {faiss.__version__} is a build without GPU support: "
            "pip uninstall -y faiss-cpu; pip install --force-reinstall faiss-gpu (Linux x86-64)"
        )
    if not has_gpu_driver() and faiss.get_num_gpus() == 0:
        return "FAISS finds no GPU"
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, str(number)],
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"FAISS found nothing on cuda:{number} within {_PROBE_SECONDS:.0f} s"
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1] if lines[-1].startswith("FAISS ") else f"FAISS fails on cuda:{number}: {lines[-1][:200]}"


def has_cagra() -> bool:
    """Whether this build of FAISS has CAGRA, a graph on the GPU; it is in builds with cuVS."""
    return hasattr(importlib.import_module("faiss"), "GpuIndexCagra")


def free_bytes(number: int) -> int | None:
    """Free memory of a GPU in bytes; None where torch, a build without CUDA, does not tell."""
    import torch

    try:
        return int(torch.cuda.mem_get_info(number)[0])
    except (AssertionError, RuntimeError):
        return None


def _number_of(device: str) -> int | None:
    name, _, number = device.partition(":")
    if device in ("auto", "cuda"):
        return 0
    return int(number) if name == "cuda" and number.isdecimal() else None
