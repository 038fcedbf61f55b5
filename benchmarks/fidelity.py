"""Benchmarks of the parts that the project is named after, group `fidelity`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from benchmarks.benchmark import Benchmark, Skipped
from benchmarks.commands import script
from mvrender.cameras import parse_rig
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.adaptive_layer import AdaptiveLayer

_FIXTURES = Path(__file__).parents[1] / "tests" / "fixtures" / "v1"


def pyrender_agrees() -> dict[str, float]:
    """The worst view of forty meshes, of both other backends against pyrender: twelve views, all styles, 224 px."""
    values: dict[str, float] = {}
    for backend in ("raster", "gl"):
        try:
            found = script("render_fidelity", backend, 224)
        except RuntimeError as error:
            raise Skipped(str(error).splitlines()[-1][:200]) from error
        values |= {
            f"{backend} 1 - IoU": 1 - found["iou"],
            f"{backend} difference of 255": found["difference"],
            f"{backend} depth error in radii": found["depth"],
            f"{backend} SSIM": found["ssim"],
        }
    return values


def adaptive_equal() -> dict[str, float]:
    """Adapters that version 0.1 wrote, pooled by the present code: largest difference from the vectors of version 0.1.

    `fixtures`: the adapters of tests/fixtures/v1. `commutes`: adapting each view and then averaging, which is how version 0.1
    applied the layer, against the present order, over 1,000 random objects.
    """
    expected = np.load(_FIXTURES / "expected.npz")
    views, mask = expected["random/views"].astype(np.float32), expected["random/mask"]
    directions = parse_rig("ring:3@30").directions.astype(np.float32)
    found = 0.0
    for name in ("adapter", "adapter-names"):
        adapter = Adapter.load(_FIXTURES / name)
        for vectors, key in (
            (adapter.pool(views, mask, directions)[0], "vectors"),
            (adapter.pool(views, mask, None)[0], "photo-vectors"),
            (adapter.adapt_views(views), "single-views"),
        ):
            found = max(found, float(np.abs(vectors - expected[f"{name}/{key}"]).max()))
    return {"fixtures": found, "commutes": _commutes()}


def _commutes() -> float:
    torch.manual_seed(0)
    views = torch.nn.functional.normalize(torch.randn(1000, 12, 512), dim=2)
    layer = AdaptiveLayer(512)
    torch.nn.init.normal_(layer.weight, std=0.02)
    weights = torch.softmax(torch.randn(1000, 12, 1), dim=1)
    with torch.no_grad():
        after = layer((weights * views).sum(dim=1))
        before = (weights * layer(views)).sum(dim=1)
    normalize = torch.nn.functional.normalize
    return float((normalize(after, dim=1) - normalize(before, dim=1)).abs().max())


_TARGETS = {f"{backend} {name}": at_most for backend in ("raster", "gl")
            for name, at_most in (("1 - IoU", 0.02), ("difference of 255", 2.0))}  # fmt: skip

BENCHMARKS = (
    Benchmark("pyrender-agrees", "fidelity", "worst view of 40 meshes against pyrender, all styles", _TARGETS,
              pyrender_agrees, at_most=True),
    Benchmark("adaptive-equal", "fidelity", "adapters of version 0.1: largest difference of a vector",
              {"fixtures": 1e-6, "commutes": 1e-6}, adaptive_equal, at_most=True),
)  # fmt: skip
