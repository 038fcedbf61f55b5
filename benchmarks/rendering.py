"""Benchmarks of rendering, group `speed`."""

from __future__ import annotations

import sys

from benchmarks import data
from benchmarks.benchmark import Benchmark, Skipped
from benchmarks.commands import script
from mvrender.backends.selection import has_gpu

_PAIRS = 2
_SOFTWARE = {"LIBGL_ALWAYS_SOFTWARE": "1", "GALLIUM_DRIVER": "llvmpipe"}
_NEEDED = "pip install 'mvretrieval[dev]', apt-get install libegl1 libgl1 libgl1-mesa-dri"


def _run(name: str, *arguments: object, software: bool = True) -> dict[str, float]:
    """Run a measurement in its own process, because drivers are loaded once per process."""
    try:
        return script(name, *arguments, env=_SOFTWARE if software else None)
    except RuntimeError as error:
        raise Skipped(f"{str(error).splitlines()[-1][:200]} ({arguments[0]}): {_NEEDED}") from error


def _speed_over_pyrender(backend: str, rounds: int, software: bool) -> dict[str, float]:
    """Views per second of all cores over those of plain pyrender: minimum of alternating pairs.

    Clay-like, 224 pixels, 200 fixed PSB meshes, without loading. `rounds`: renderings per mesh with our backend.
    """
    folder = data.fixed_psb(200)
    pairs = []
    for _ in range(_PAIRS):
        plain = _run("render_rate", "plain", folder, 1, software=software)["views_per_second"]
        ours = _run("render_rate", backend, folder, rounds, software=software)["views_per_second"]
        print(f"  {backend} {ours:.0f} views/s, pyrender {plain:.0f}", file=sys.stderr)
        pairs.append((ours / plain, ours, plain))
    ratio, ours, plain = min(pairs)
    return {"ratio": ratio, "ours views/s": ours, "pyrender views/s": plain}


def render_cpu() -> dict[str, float]:
    """The renderer that needs no GPU against pyrender on llvmpipe, which has its own threads."""
    return _speed_over_pyrender("raster", rounds=1, software=True)


def render_gpu() -> dict[str, float]:
    """Our OpenGL against pyrender's, on the same GPU. Ours renders more rounds, because one round is too short to measure."""
    if not has_gpu():
        raise Skipped("no NVIDIA GPU with an EGL driver (in a container: NVIDIA_DRIVER_CAPABILITIES=all)")
    return _speed_over_pyrender("gl", rounds=20, software=False)


def render_quality() -> dict[str, float]:
    """SSIM of each renderer to its own supersampled reference: one view of each of 100 PSB meshes."""
    values = _run("render_quality", data.fixed_psb(200), 2)
    return {
        "advantage": values["ours"] - values["pyrender"],
        "ours SSIM": values["ours"],
        "pyrender SSIM": values["pyrender"],
    }


BENCHMARKS = (
    Benchmark("render-cpu", "speed", "views/s over pyrender's on llvmpipe, 224 px, 200 PSB meshes", {"ratio": 5.0}, render_cpu),
    Benchmark(
        "render-quality", "speed", "SSIM of each renderer to its own reference with 64 and more samples: ours minus pyrender's",
        {"advantage": 0.0}, render_quality,
    ),
    Benchmark(
        "render-gpu", "fidelity", "views/s of all cores over pyrender's on the same GPU", {"ratio": 4.0}, render_gpu,
        device="cuda",
    ),
)  # fmt: skip
