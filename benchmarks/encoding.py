"""Benchmarks of encoding, group `speed`."""

from __future__ import annotations

import importlib.util
import statistics
import sys

import torch

from benchmarks import data
from benchmarks.benchmark import Benchmark, Skipped
from benchmarks.commands import script

_PAIRS = 3
_CLIP_PAIRS = 2  # a pair takes most of a minute


def _against_plain(architecture: str, device: str, pairs: int) -> dict[str, float]:
    """Median over alternating pairs of the ratio to open_clip's loop, and of the fraction of the matrix peak."""
    encoder, found = data.clip(architecture), []
    peak = script("encode_rate", "peak", device)
    for _ in range(pairs):
        plain, ours = (
            script("encode_rate", "plain", architecture, device),
            script("encode_rate", "ours", encoder, device),
        )
        rate = ours["images_per_second"]
        found.append(
            {
                "ratio": rate / plain["images_per_second"],
                "share": rate * ours["gflop"] / peak["gflops"],
                # Upper bound: matrix products only, at peak rate.
                "ratio at peak": peak["gflops"] / ours["gflop"] / plain["images_per_second"],
                "ours images/s": rate,
                "open_clip images/s": plain["images_per_second"],
                "bfloat16 peak GFLOP/s": peak["gflops"],
            }
        )
        print(f"  {architecture}: " + ", ".join(f"{k} {v:.4g}" for k, v in found[-1].items()), file=sys.stderr)
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def encode_vit() -> dict[str, float]:
    """ViT-B/32 in the automatic precision, against open_clip's float32 loop."""
    return _against_plain("ViT-B-32", "cpu", _CLIP_PAIRS)


def encode_mobilenet() -> dict[str, float]:
    """MobileNetV2 in float32 from bytes to vectors, over ONNX Runtime from normalized pixels: median of alternating pairs."""
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise Skipped(f"pip install {' '.join(missing)}")
    found = []
    for _ in range(_PAIRS):
        baseline, ours = (
            script("encode_rate", "onnx", data.mobilenet()),
            script("encode_rate", "ours", data.mobilenet()),
        )
        values = {
            "ratio": ours["images_per_second"] / baseline["images_per_second"],
            "cosine": baseline["cosine"],
            "ours images/s": ours["images_per_second"],
            "ONNX Runtime images/s": baseline["images_per_second"],
        }
        print("  MobileNetV2: " + ", ".join(f"{k} {v:.6g}" for k, v in values.items()), file=sys.stderr)
        found.append(values)
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def encode_gpu() -> dict[str, float]:
    """ViT-B/32 and ViT-L/14 against open_clip's bfloat16 loop on the same GPU."""
    if not torch.cuda.is_available():
        raise Skipped("no GPU")
    values: dict[str, float] = {}
    for architecture, short in (("ViT-B-32", "B/32"), ("ViT-L-14", "L/14")):
        values |= {f"{short} {name}": value for name, value in _against_plain(architecture, "cuda", 1).items()}
    return values


BENCHMARKS = (
    Benchmark(
        "encode-vit", "speed", "ViT-B/32 images/s over open_clip's float32 loop; share of the bfloat16 matrix peak",
        {"ratio": 4.0, "share": 0.6}, encode_vit,
    ),
    Benchmark(
        "encode-mobilenet", "speed", "MobileNetV2 images/s over ONNX Runtime's; cosine with its vectors",
        {"ratio": 1.0, "cosine": 0.9999}, encode_mobilenet,
    ),
    Benchmark(
        "encode-gpu", "fidelity", "ViT-B/32 and ViT-L/14 images/s over open_clip's bfloat16 loop on the same GPU",
        {"B/32 ratio": 2.0, "L/14 ratio": 2.0}, encode_gpu, device="cuda",
    ),
)  # fmt: skip
