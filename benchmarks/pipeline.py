"""Benchmarks of the group `speed`: indexing as a whole, a mesh query from file to hits, and start-up."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import torch

from benchmarks import data
from benchmarks.benchmark import Benchmark, Skipped
from benchmarks.commands import MVR, fresh, mvr, script, seconds_of
from benchmarks.copies import collection_of
from mvrender.loading import load
from mvretrieval.api import Collection

HERE = Path(__file__).parent
_PAIRS = 3
_MESHES = 200


def _index(encoder: str, folder: Path) -> tuple[float, float]:
    """Seconds of `mvr index`, with and without its start-up."""
    started = time.monotonic()
    report = mvr("index", fresh("speed-index"), folder, "--encoder", encoder)
    return time.monotonic() - started, report["seconds"]


def over_plain_loop(network: str, encoder: str) -> dict[str, float]:
    """Ratio of the rates of `mvr index` and the plain loop on 200 meshes, including start-up: median of alternating pairs.

    Args:
        network: name in `plain_loop.py`.
        encoder: id of the same network with its weights, for `mvr index`.
    """
    folder = data.fixed_psb(_MESHES)
    found = [_over_plain_loop(network, encoder, _index(encoder, folder)[0]) for _ in range(_PAIRS)]
    return sorted(found, key=lambda values: values["ratio"])[_PAIRS // 2]


def _over_plain_loop(network: str, encoder: str, ours: float) -> dict[str, float]:
    """Run the plain loop, and compare with `ours`, the seconds of `mvr index`."""
    loop = (sys.executable, HERE / "plain_loop.py", data.fixed_psb(_MESHES), network, encoder.partition("@")[2])
    try:
        plain = seconds_of(*loop)
    except subprocess.CalledProcessError:
        raise Skipped("the plain loop needs pyrender and OpenGL: make setup, apt-get install libegl1") from None
    print(f"  mvr index {ours:.1f} s, plain loop {plain:.1f} s", file=sys.stderr)
    return {"ratio": plain / ours, "ours meshes/s": _MESHES / ours, "plain loop meshes/s": _MESHES / plain}


@cache
def _index_with_clip() -> tuple[float, float]:
    """See `_index`. Takes a minute, so the benchmarks that need it share one run."""
    return _index(data.clip(), data.fixed_psb(_MESHES))


def pipeline_total() -> dict[str, float]:
    """Ratio to the plain loop with ViT-B/32; one pair takes four minutes."""
    return _over_plain_loop("vit", data.clip(), _index_with_clip()[0])


def pipeline_efficiency() -> dict[str, float]:
    """Core-seconds of the separate stages over those of `mvr index`, with and without start-up."""
    folder, encoder, cores = data.fixed_psb(_MESHES), data.clip(), os.cpu_count() or 1
    stages = script("stages", folder, encoder)
    needed = stages["render"] + stages["encode"] + stages["write"]
    whole, running = (cores * seconds for seconds in _index_with_clip())
    return {
        "ratio": needed / whole,
        "ratio without the start": needed / running,
        "load and render core-s": stages["render"],
        "encode core-s": stages["encode"],
        "write core-s": stages["write"],
        "mvr index core-s": whole,
    }


def pipeline_growth() -> dict[str, float]:
    """Time per object added to 100,000 objects over that for 1,000, `builtin:`: median of alternating pairs."""
    meshes = sorted(data.meshes("psb").rglob("*.off"))[::18][:100]
    folders = {count: collection_of(count, f"speed-of-{count}", "builtin:") for count in (1_000, 100_000)}
    pairs = []
    for pair in range(_PAIRS):
        ms = {count: 1000 * _seconds_to_add(folder, meshes, pair) / len(meshes) for count, folder in folders.items()}
        print(f"  an object: {', '.join(f'{value:.1f} ms at {count}' for count, value in ms.items())}", file=sys.stderr)
        pairs.append((ms[100_000] / ms[1_000], ms[1_000], ms[100_000]))
    ratio, small, large = sorted(pairs)[len(pairs) // 2]
    return {"ratio": ratio, "ms at 1k": small, "ms at 100k": large}


def _seconds_to_add(folder: Path, meshes: list[Path], salt: int) -> float:
    """Wall time of adding new files, including saving the index, excluding start-up."""
    with tempfile.TemporaryDirectory(dir=data.WORK) as place:
        for file in meshes:  # extra line ends make the content new
            (Path(place) / file.name).write_bytes(file.read_bytes() + b"\n" * (salt + 1))
        with Collection.open(folder, write=True) as collection:
            collection.session.render_pool().warm_up()
            collection.session.check_encoder()
            collection.session.index.get()
            started = time.monotonic()
            report = collection.add_folder(place)
        seconds = time.monotonic() - started
    if report.added != len(meshes):
        raise RuntimeError(f"{report.added} of {len(meshes)} meshes were added")
    return seconds


def mesh_query() -> dict[str, float]:
    """From a mesh file with about 5,000 faces to ten hits: 12 views, MobileNetV2, 200 objects."""
    folder, meshes = fresh("speed-mesh-query"), data.fixed_psb(_MESHES)
    mvr("index", folder, meshes, "--encoder", data.mobilenet())
    mesh = min(meshes.iterdir(), key=lambda file: abs(len(load(file).mesh.faces) - 5_000))
    return script("query_by_mesh", folder, mesh)


def start() -> dict[str, float]:
    """Seconds of whole processes with a warm page cache, median of five; Python itself takes a few hundredths."""
    folder, meshes = fresh("speed-start"), data.fixed_psb(_MESHES)
    mvr("index", folder, meshes, "--encoder", "builtin:")
    mesh = next(iter(sorted(meshes.iterdir())))
    commands: dict[str, tuple[str | Path, ...]] = {
        "import": (sys.executable, "-c", "import mvretrieval"),
        "help": (*MVR, "--help"),
        "search": (*MVR, "search", folder, "--mesh", mesh),
    }
    return {name: statistics.median(seconds_of(*command) for _ in range(5)) for name, command in commands.items()}


def pipeline_gpu() -> dict[str, float]:
    """Meshes per second of `mvr index`, ViT-B/32, 12 views, all cores and the GPU, without start-up; PSB without duplicates."""
    if not torch.cuda.is_available():
        raise Skipped("no GPU")
    report = mvr("index", fresh("speed-gpu"), data.meshes("psb"), "--encoder", data.clip(), "--device", "cuda")
    return {"meshes/s": report["added"] / report["seconds"]}


BENCHMARKS = (
    Benchmark(
        "pipeline-efficiency", "speed", "core-seconds of stages over those of mvr index", {"ratio": 0.9}, pipeline_efficiency,
    ),
    Benchmark("pipeline-total", "speed", "mvr index over a plain loop, ViT-B/32, 200 PSB meshes", {"ratio": 4.0}, pipeline_total),
    Benchmark("pipeline-gpu", "fidelity", "mvr index, ViT-B/32, 12 views", {"meshes/s": 200}, pipeline_gpu, device="cuda"),
    Benchmark(
        "pipeline-growth", "speed", "time per object at 100k objects over that at 1k", {"ratio": 1.2}, pipeline_growth,
        at_most=True, full=True,
    ),
    Benchmark("mesh-query", "speed", "mesh file to hits, 12 views, MobileNetV2, 5k faces", {"ms": 150}, mesh_query, at_most=True),
    Benchmark(
        "start", "speed", "seconds to import, to --help, to a first search with builtin:",
        {"import": 0.3, "help": 0.5, "search": 3.0}, start, at_most=True,
    ),
)  # fmt: skip
