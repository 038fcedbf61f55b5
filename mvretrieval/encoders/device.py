"""Device and precision of a network, memory allocator settings, and a fingerprint of weights."""

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
    """Return the device of that name; `auto` is the GPU if there is one.

    Raises:
        EncoderError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = parse_device(name)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise EncoderError(
            f"device '{name}' is not available: torch {torch.__version__} finds {count} GPUs. Give --device cpu or auto",
            code="device_unavailable",
        )
    return device


def parse_device(name: str) -> torch.device:
    """Parse the name of a device, which need not be there.

    Raises:
        EncoderError: no device has such a name.
    """
    try:
        return torch.device(name)
    except RuntimeError:
        raise EncoderError(
            f"unknown device '{name}': give auto, cpu, cuda, cuda:1, ...", code="unknown_device"
        ) from None


def choose_precision(device: torch.device, requested: PrecisionChoice = "auto") -> tuple[Precision, str]:
    """Choose the precision of a transformer on `device`, and give the reason."""
    if requested != "auto":
        return requested, "requested"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported():
            return "bfloat16", f"{torch.cuda.get_device_name(device)} supports it in hardware"
        return "float32", f"{torch.cuda.get_device_name(device)} does not support bfloat16"
    instructions = cpu_bfloat16()
    if instructions:
        return "bfloat16", f"{instructions} found"
    return "float32", "this CPU has neither AMX nor AVX512-BF16"


def cpu_bfloat16() -> str | None:
    """Return the name of the CPU's bfloat16 instructions, or None. Detected on Linux only."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return None
    flags = next((line for line in info.read_text().splitlines() if line.startswith("flags")), "").split()
    if "amx_bf16" in flags:
        return "AMX"
    return "AVX512-BF16" if "avx512_bf16" in flags else None


def tune_malloc() -> None:
    """Make glibc keep large freed blocks instead of returning them to the system after each layer.

    The activations of a batch take tens of megabytes, and each new allocation costs a page fault per 4 kB. Measured with
    MobileNetV2 and batches of 48: 80 -> 145 images/s. The process then keeps its peak memory, which the batch size bounds. No
    effect without glibc.
    """
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    # Older versions allow 32 MB at most. Setting only the second would fix the first at its small initial value.
    if mallopt(mmap_threshold, 1 << 30) or mallopt(mmap_threshold, 32 << 20):
        mallopt(trim_threshold, (1 << 31) - 1)


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """Hash names, shapes, sums and a thousand values of each tensor to 16 hex digits.

    Hashing every byte of a large model takes seconds at each start, and training changes all values anyway. The sums are over
    the bits as integers, since a sum of floats depends on the number of threads.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous().flatten()
        sample = tensor[:: max(1, tensor.numel() // 1000)].contiguous()
        bits = tensor.view(_INTEGERS[tensor.element_size()]) if tensor.numel() else tensor
        digest.update(f"{name}{tuple(weights[name].shape)}{tensor.dtype}{int(bits.sum(dtype=torch.int64))}".encode())
        digest.update(sample.view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()[:16]
