"""Readers of mesh files, group `files`: the cases of faults, the rate of loading, and damaged files.

The cases are inputs made after public bug reports, each beside the same object in a form that was drawn right before. They are not
part of this repository: the folder MVR_CASES, or shared/cases/files beside the checkout.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import data, twin_files
from benchmarks.benchmark import Benchmark, Skipped
from mvrender.assemble import assemble
from mvrender.backends.raster import RasterRenderer
from mvrender.cameras import parse_rig
from mvrender.errors import MeshError
from mvrender.formats import FORMATS
from mvrender.jobs import Failed, RenderJob, RenderSpec
from mvrender.loading import load
from mvrender.mesh import Limits, normalize
from mvrender.pool import RenderPool
from mvrender.readers import gltf, off, with_trimesh
from mvrender.readers.parts import Reading
from mvrender.references import FolderReferences
from mvretrieval.encoders.registry import open_encoder
from mvretrieval.normalize import l2_normalize

_SAME = 1.0  # mean difference of 255 below which two images are the same
_MUTANTS = 50_000
_AT_ONCE = 2000
_SETS = ("psb", "base-meshes", "quaternius")
_DEATHS = ("renderer_crash", "timeout", "out_of_memory")


def _cases() -> Path:
    folder = Path(os.environ.get("MVR_CASES", data.HERE.parent.parent / "shared" / "cases" / "files"))
    if not (folder / "pairs.txt").is_file():
        raise Skipped(f"no cases at {folder}; set MVR_CASES")
    return folder


def cases() -> dict[str, float]:
    """Pairs whose images are the same from 20 sides."""
    folder = _cases()
    renderer, rig = RasterRenderer(), parse_rig("dodecahedron")

    def images(path: Path) -> NDArray[np.float64] | None:
        try:
            return renderer.render(normalize(load(path).mesh), rig, ("texture",), 128).images.astype(float)
        except MeshError:
            return None

    same = total = 0
    for line in (folder / "pairs.txt").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        _, wrong, right = line.split()[:3]
        one, other = images(folder / "in" / wrong), images(folder / "in" / right)
        same += one is not None and other is not None and bool(np.abs(one - other).mean() < _SAME)
        total += 1
    return {"same": float(same), "pairs": float(total)}


def twins() -> dict[str, float]:
    """Cosine of each file with the GLB of the same object, by MobileNetV2: the worst of each format."""
    encoder, renderer, rig = open_encoder(data.mobilenet(), "cpu"), RasterRenderer(), parse_rig("ring:12@30")

    def vector(path: Path) -> NDArray[np.float32]:
        loaded = load(path)
        if loaded.mesh.notes:
            raise RuntimeError(f"{path.suffix}: {loaded.mesh.notes}")
        images = renderer.render(normalize(loaded.mesh), rig, ("texture",), encoder.image_size).images[0]
        return l2_normalize(encoder.encode_views(images).mean(axis=0))

    worst: dict[str, float] = {}
    for twin in twin_files.twins():
        with tempfile.TemporaryDirectory() as place:
            glb, *others = twin_files.files(twin, Path(place))
            expected = vector(glb)
            for path in others:
                name = path.suffix[1:]
                worst[name] = min(worst.get(name, 1.0), float(vector(path) @ expected))
    return {"cosine": min(worst.values()), **worst}


def load_rate() -> dict[str, float]:
    """Seconds of trimesh's readers over those of ours, for each set; both load every file, one after the other."""
    values: dict[str, float] = {}
    ratios: list[float] = []
    for name in _SETS:
        files = sorted(path for path in data.meshes(name).rglob("*") if path.suffix in (".off", ".glb"))
        seconds = [0.0, 0.0]
        for path in files:
            content = path.read_bytes()
            own = gltf.read if path.suffix == ".glb" else off.read
            for i in (0, 1):
                reading = Reading(path.suffix, FolderReferences(path.parent, path.parent), Limits())
                started = time.perf_counter()
                if i:
                    assemble(own(content, reading), reading)
                else:
                    assemble(with_trimesh.read(content, reading), reading)
                seconds[i] += time.perf_counter() - started
        ratios.append(seconds[0] / seconds[1])
        values |= {f"trimesh, {name} s": seconds[0], f"ours, {name} s": seconds[1]}
    return {"ratio": min(ratios), **values}


def fuzz() -> dict[str, float]:
    """Mutated files in render workers: how often one died, hung or ran out of memory."""
    folder = _cases() / "in"
    by_suffix: dict[str, list[bytes]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in FORMATS:
            by_suffix.setdefault(path.suffix, []).append(path.read_bytes())
    suffixes = sorted(by_suffix)
    rng = np.random.default_rng(0)
    spec = RenderSpec(rig=parse_rig("ring:1@20"), size=64, limits=Limits(seconds=20.0, memory_bytes=2 << 30))
    counts: Counter[str] = Counter()
    with RenderPool(spec) as pool:
        for start in range(0, _MUTANTS, _AT_ONCE):
            with tempfile.TemporaryDirectory() as place:
                paths = []
                for i in range(start, min(_MUTANTS, start + _AT_ONCE)):
                    suffix = suffixes[i % len(suffixes)]
                    path = Path(place) / f"{i}{suffix}"
                    path.write_bytes(_mutated(by_suffix[suffix], rng))
                    paths.append(path)
                for result in pool.run(RenderJob(path) for path in paths):
                    counts[result.code if isinstance(result, Failed) else "rendered"] += 1
    return {
        "deaths and hangs": float(sum(counts[code] for code in _DEATHS)),
        "rendered": float(counts["rendered"]),
        "refused": float(sum(n for code, n in counts.items() if code not in (*_DEATHS, "rendered"))),
        **{code: float(counts[code]) for code in _DEATHS},
    }


def _mutated(sources: list[bytes], rng: np.random.Generator) -> bytes:
    """One of some files with a few random changes."""
    content = bytearray(sources[rng.integers(len(sources))])
    for _ in range(int(rng.integers(1, 5))):
        content = _changed(content, sources, rng)
    return bytes(content)


def _changed(content: bytearray, sources: list[bytes], rng: np.random.Generator) -> bytearray:
    n = max(1, len(content))
    at, length = int(rng.integers(n)), int(rng.integers(1, 1 + min(64, n)))
    kind = rng.integers(7)
    if kind == 0:  # other bytes
        content[at : at + length] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
    elif kind == 1:  # cut off
        del content[at:]
    elif kind == 2:  # a piece lost
        del content[at : at + length]
    elif kind == 3:  # a piece twice
        content[at:at] = content[at : at + length]
    elif kind == 4:  # an extreme number
        number = rng.choice([0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
        content[at : at + 4] = int(number).to_bytes(4, "little")
    elif kind == 5:  # another number in text
        digits = [i for i, byte in enumerate(content) if 48 <= byte <= 57]
        if digits:
            place = digits[int(rng.integers(len(digits)))]
            content[place : place + 1] = [b"-1", b"999999999", b"1e308", b"nan", b"0"][int(rng.integers(5))]
    else:  # the rest of another file
        other = sources[rng.integers(len(sources))]
        content[at:] = other[min(at, len(other)) :]
    return content


BENCHMARKS = (
    Benchmark("cases", "files", "pairs of a faulty input and the same object that look the same, of 57", {"same": 57}, cases),
    Benchmark("twins", "files", "worst cosine of a file with the GLB of the same object, by MobileNetV2", {"cosine": 0.98}, twins),
    Benchmark("load-rate", "files", "time of trimesh (triangles) over ours, the slowest set of three", {"ratio": 1.0}, load_rate),
    Benchmark(
        "fuzz", "files", "50,000 mutated files: deaths of workers, hangs and out of memory", {"deaths and hangs": 0}, fuzz, True
    ),
)  # fmt: skip
