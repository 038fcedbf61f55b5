"""Where and in which precision a network runs, and a fingerprint of its weights."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from mvretrieval.encoders.encoder import Precision, PrecisionChoice
from mvretrieval.errors import EncoderError

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def choose_device(name: str = "auto") -> torch.device:
    """Device of that name; a GPU if there is one by default.

    Raises:
        EncoderError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise EncoderError(f"no device '{name}': it is cpu, cuda, cuda:1 and so on, or auto") from None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise EncoderError(
            f"device '{name}': torch {torch.__version__} finds {count} GPUs here; give --device cpu, or auto"
        )
    return device


def choose_precision(device: torch.device, requested: PrecisionChoice = "auto") -> tuple[Precision, str]:
    """Precision for a transformer on `device`, and why."""
    if requested != "auto":
        return requested, "requested"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported():
            return "bfloat16", f"{torch.cuda.get_device_name(device)} multiplies it in hardware"
        return "float32", f"{torch.cuda.get_device_name(device)} has no bfloat16"
    found = cpu_bfloat16()
    if found:
        return "bfloat16", f"{found} found"
    return "float32", "this CPU has neither AMX nor AVX512-BF16"


def cpu_bfloat16() -> str | None:
    """Name of the CPU's bfloat16 instructions, or None. Known on Linux only."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return None
    flags = next((line for line in info.read_text().splitlines() if line.startswith("flags")), "").split()
    if "amx_bf16" in flags:
        return "AMX"
    return "AVX512-BF16" if "avx512_bf16" in flags else None


def tune_malloc() -> None:
    """Tell glibc to keep large freed blocks instead of returning them to the system after each layer.

    Activations of a batch are tens of megabytes; fetching them anew costs a page fault for every 4 kB. Measured on
    MobileNetV2, batches of 48: 80 -> 145 images/s. Memory then stays at its peak, which a batch bounds. No effect
    outside of glibc.
    """
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    # Older versions allow 32 MB at most; setting the second alone would freeze the first at its small start.
    if mallopt(mmap_threshold, 1 << 30) or mallopt(mmap_threshold, 32 << 20):
        mallopt(trim_threshold, (1 << 31) - 1)


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """16 hex digits over names, shapes, sums and a thousand values of each tensor.

    Reading every byte of a large model takes seconds at each start; training moves all values, and these show it. The
    sums are over the bits as integers: a sum of floats depends on how many threads share the work.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous().flatten()
        some = tensor[:: max(1, tensor.numel() // 1000)].contiguous()
        bits = tensor.view(_INTEGERS[tensor.element_size()]) if tensor.numel() else tensor
        digest.update(f"{name}{tuple(weights[name].shape)}{tensor.dtype}{int(bits.sum(dtype=torch.int64))}".encode())
        digest.update(some.view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()[:16]
