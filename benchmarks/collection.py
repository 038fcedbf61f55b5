"""Benchmarks of the group `collection`: retrieval on PSB, robustness, and cost of indexing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.benchmark import Benchmark, Skipped
from benchmarks.commands import MVR, fresh, mvr, mvr_with_memory
from benchmarks.pipeline import over_plain_loop
from mvretrieval.store.store import Store

HERE = Path(__file__).parent


@cache
def _psb_index(name: str, *options: str) -> tuple[Path, dict[str, Any], float]:
    """A collection of all of PSB, the indexing report, and the peak memory in bytes. Built once per run."""
    psb = data.meshes("psb")
    folder = fresh(name)
    report, peak = mvr_with_memory("index", folder, psb, "--labels", psb / "labels.csv", *options)
    return folder, report, peak


def _evaluate(folder: Path, classes: Path | None = None) -> dict[str, float]:
    more: list[str | Path] = ["--classes", classes] if classes else []
    result: dict[str, float] = mvr("eval", folder, "--by", "label", "--where", "split = 'test'", *more)
    return result


def psb_mobilenet() -> dict[str, float]:
    """Default describer with the shared MobileNetV2 on the test split."""
    folder, _, _ = _psb_index("psb-mobilenet", "--encoder", data.mobilenet())
    result = _evaluate(folder)
    return {name: result[name] for name in ("NN", "FT", "mAP")}


def psb_mobilenet_whitened() -> dict[str, float]:
    """The same, whitened to 256 dimensions fitted on the train split, on the 71 unseen classes."""
    folder, _, _ = _psb_index("psb-mobilenet", "--encoder", data.mobilenet())
    copy = fresh("psb-mobilenet-whitened")
    shutil.copytree(folder, copy)
    subprocess.run(
        [*MVR, "reindex", str(copy), "--whiten", "256", "--fit-where", "split = 'train'"],
        check=True,
        stdout=sys.stderr,
    )
    return {"mAP": _evaluate(copy, data.unseen_classes())["mAP"]}


def psb_styles() -> dict[str, float]:
    """Clay, depth and normals, each whitened separately, on the unseen classes."""
    folder, _, _ = _psb_index(
        "psb-styles", "--encoder", data.mobilenet(), "--styles", "clay,depth,normal",
        "--whiten", "256", "--fit-where", "split = 'train'",
    )  # fmt: skip
    return {"mAP": _evaluate(folder, data.unseen_classes())["mAP"]}


def psb_builtin() -> dict[str, float]:
    """The encoder without weights on the test split."""
    folder, _, _ = _psb_index("psb-builtin", "--encoder", "builtin:")
    result = _evaluate(folder)
    return {name: result[name] for name in ("NN", "FT", "mAP")}


def psb_failures() -> dict[str, float]:
    """Meshes of PSB that could not be indexed."""
    folder, report, _ = _psb_index("psb-mobilenet", "--encoder", data.mobilenet())
    store = Store.open(folder)
    for path, code, message in store.failures():
        print(f"  {path}: {message} ({code})", file=sys.stderr)
    store.close()
    return {"failures": float(1809 - report["objects"])}


def index_rate() -> dict[str, float]:
    """Ratio of the rates of `mvr index` and the plain loop."""
    return over_plain_loop("mobilenet", data.mobilenet())


def index_memory() -> dict[str, float]:
    """Ratio of the peak memory for 1809 and for 300 meshes; both include the twenty largest files."""
    _, _, large = _psb_index("psb-builtin", "--encoder", "builtin:")
    few = data.fixed_psb(300, with_largest=20)
    _, small = mvr_with_memory("index", fresh("index-memory"), few, "--encoder", "builtin:")
    print(f"  {large / 1e6:.0f} MB at 1809, {small / 1e6:.0f} MB at 300", file=sys.stderr)
    return {"ratio": large / small}


def demo_seconds() -> dict[str, float]:
    """`make demo` in a fresh clone, with the packages of this checkout's environment and no network."""
    root = HERE.parent
    ready = root / ".venv" / ".ready"
    if not ready.exists():
        raise Skipped("run 'make setup' first")
    clone = fresh("clone")
    subprocess.run(["git", "clone", "--quiet", str(root), str(clone)], check=True)
    (clone / ".venv").symlink_to(root / ".venv")
    os.utime(ready)
    # The environment has this checkout installed; PYTHONPATH makes the clone take precedence.
    environment = os.environ | {"PYTHONPATH": f"{clone}:{clone / 'render'}"}
    without_network = ["unshare", "--net"] if os.geteuid() == 0 and shutil.which("unshare") else []
    started = time.monotonic()
    subprocess.run([*without_network, "make", "demo"], cwd=clone, env=environment, check=True, stdout=sys.stderr)
    seconds = time.monotonic() - started
    if not (clone / "demo" / "index.html").is_file():
        raise RuntimeError("make demo wrote no page")
    return {"seconds": seconds}


def _benchmark(name: str, what: str, measure: Any, at_most: bool = False, **targets: float) -> Benchmark:
    return Benchmark(name, "collection", what, targets, measure, at_most)


BENCHMARKS = (
    _benchmark(
        "psb-mobilenet", "PSB test split, MobileNetV2, default describer", psb_mobilenet, NN=0.75, FT=0.50, mAP=0.545
    ),
    _benchmark("psb-failures", "PSB meshes not indexed, of 1809", psb_failures, at_most=True, failures=0),
    _benchmark("psb-mobilenet-whitened", "the same whitened to 256, unseen classes", psb_mobilenet_whitened, mAP=0.615),
    _benchmark("psb-styles", "clay, depth, normal, each whitened, unseen classes", psb_styles, mAP=0.645),
    _benchmark("psb-builtin", "PSB test split, builtin:", psb_builtin, NN=0.62, FT=0.36, mAP=0.385),
    _benchmark("index-rate", "rate of mvr index over that of a plain loop, 200 PSB meshes", index_rate, ratio=1.5),
    _benchmark("index-memory", "peak memory at 1809 meshes over that at 300", index_memory, at_most=True, ratio=1.1),
    _benchmark("demo-seconds", "make demo from a fresh clone", demo_seconds, at_most=True, seconds=180),
)
