"""Benchmarks of the parts that the project is named after, group `fidelity`."""

from __future__ import annotations

from benchmarks.benchmark import Benchmark, Skipped
from benchmarks.commands import script


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


_TARGETS = {f"{backend} {name}": at_most for backend in ("raster", "gl")
            for name, at_most in (("1 - IoU", 0.02), ("difference of 255", 2.0))}  # fmt: skip

BENCHMARKS = (
    Benchmark("pyrender-agrees", "fidelity", "worst view of 40 meshes against pyrender, all styles", _TARGETS,
              pyrender_agrees, at_most=True),
)  # fmt: skip
