"""Images per second of one way of encoding: `python -m benchmarks.encode_rate ours|plain|onnx|peak [...]` prints JSON.

ours ENCODER [DEVICE]         our encoder, from bytes to unit vectors
plain ARCHITECTURE [DEVICE]   open_clip as in its examples: float32 on the CPU, bfloat16 on a GPU
onnx ENCODER                  ONNX Runtime on the encoder's network, from normalized pixels
peak DEVICE                   GFLOP/s of the fastest bfloat16 product of two matrices

Each is the best of several rounds and batch sizes, because other load slows them down by different amounts.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mvretrieval.encoders.network import NetworkEncoder
from mvretrieval.encoders.registry import open_encoder

_SIZE = 224
_ROUNDS, _GPU_ROUNDS = 4, 6
_SECONDS = 3.0  # minimum, or one disturbance covers all rounds
_MATRICES = ((1024, 1024, 1024), (2048, 2048, 2048), (2400, 768, 3072), (4096, 4096, 4096), (8192, 8192, 8192))


def random_images(device: str) -> NDArray[np.uint8]:
    """Enough random images for a second or two."""
    count = 64 if device == "cpu" else 4096
    return np.random.default_rng(0).integers(0, 256, (count, _SIZE, _SIZE, 3), np.uint8)


def best(run: Callable[[], object], rounds: int = _ROUNDS) -> float:
    """Seconds of the fastest of several rounds, after a warm-up round."""
    run()
    seconds: list[float] = []
    while len(seconds) < rounds or sum(seconds) < _SECONDS:
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def ours(encoder_id: str, device: str = "cpu") -> dict[str, float]:
    """Rate of the encoder in its own batches."""
    encoder = open_encoder(encoder_id, device)
    images = random_images(device)
    seconds = best(lambda: encoder.encode_views(images), _ROUNDS if device == "cpu" else _GPU_ROUNDS)
    return {"images_per_second": len(images) / seconds, "gflop": _gflop(encoder)}


def plain(architecture: str, device: str = "cpu") -> dict[str, float]:
    """Rate of a loop over batches of the open_clip model."""
    import open_clip

    precision = "fp32" if device == "cpu" else "bf16"
    model = open_clip.create_model(architecture, precision=precision, device=device).eval()
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (model.visual.image_mean, model.visual.image_std))
    kind = model.visual.conv1.weight.dtype  # in bfloat16, embeddings and layer norms stay in float32
    images = random_images(device)

    def loop(size: int) -> None:
        with torch.inference_mode():
            for start in range(0, len(images), size):
                pixels = torch.from_numpy(images[start : start + size]).permute(0, 3, 1, 2).float() / 255
                vectors = model.encode_image(((pixels - mean) / std).to(device, kind))
                nn.functional.normalize(vectors.float(), dim=1).cpu().numpy()

    sizes = (12, 32) if device == "cpu" else (64, 256)
    return {"images_per_second": len(images) / min(best(lambda size=size: loop(size), 2) for size in sizes)}  # type: ignore[misc]


def onnx(encoder_id: str) -> dict[str, float]:
    """Rate of ONNX Runtime with all optimizations and as many threads as torch; excludes normalization, which ours includes."""
    import onnxruntime

    encoder = open_encoder(encoder_id, "cpu", "float32")
    assert isinstance(encoder, NetworkEncoder)
    network = nn.Sequential(encoder.network.get_submodule("features"), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    pixels = encoder.pixels(random_images("cpu")).contiguous()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = str(Path(folder) / "network.onnx")
        names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "n"}, "y": {0: "n"}}}
        torch.onnx.export(network, (pixels[:2],), path, dynamo=False, **names)  # type: ignore[arg-type]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    theirs = torch.from_numpy(session.run(None, {"x": pixels[:12].numpy()})[0])
    found = torch.from_numpy(encoder.encode_views(random_images("cpu")[:12]))
    cosine = float(nn.functional.cosine_similarity(theirs, found).min())
    seconds = min(
        best(lambda size=size: [session.run(None, {"x": some.numpy()}) for some in torch.split(pixels, size)])  # type: ignore[misc]
        for size in (1, 4, 12, 24)
    )
    return {"images_per_second": len(pixels) / seconds, "cosine": cosine}


def peak(device: str = "cpu") -> dict[str, float]:
    """GFLOP/s of plain matrix products, an upper bound for a network."""
    rates = []
    with torch.inference_mode():
        for rows, inner, columns in _MATRICES[: 3 if device == "cpu" else 5]:
            a = torch.randn(rows, inner, device=device).to(torch.bfloat16)
            b = torch.randn(columns, inner, device=device).to(torch.bfloat16)

            def run(a: torch.Tensor = a, b: torch.Tensor = b) -> None:
                for _ in range(4 if device == "cpu" else 100):
                    nn.functional.linear(a, b)
                if device != "cpu":
                    torch.cuda.synchronize()

            rates.append((4 if device == "cpu" else 100) * 2e-9 * rows * inner * columns / best(run))
    return {"gflops": max(rates)}


def _gflop(encoder: object) -> float:
    """GFLOP of one image; fused convolutions are not counted."""
    from torch.utils.flop_counter import FlopCounterMode

    assert isinstance(encoder, NetworkEncoder)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its operations are not counted
    try:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            encoder.network(encoder.pixels(random_images("cpu")[:1]))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return float(counter.get_total_flops()) / 1e9


def main() -> None:
    """Run one measurement."""
    ways: dict[str, Callable[..., dict[str, float]]] = {"ours": ours, "plain": plain, "onnx": onnx, "peak": peak}
    print(json.dumps(ways[sys.argv[1]](*sys.argv[2:])))


if __name__ == "__main__":
    main()
