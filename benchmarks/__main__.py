"""Run benchmarks and store their results: `python -m benchmarks [--list] [--full] [--device cuda] GROUP|NAME...`."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks import (
    class_names,
    collection,
    confidence,
    encoding,
    fidelity,
    gpu_index,
    learning,
    mesh_files,
    os3dor,
    pipeline,
    reliability,
    rendering,
    search_peers,
    searching,
    service,
    tuning,
    viewer,
    weights_matter,
)  # fmt: skip
from benchmarks.benchmark import Benchmark, Skipped

RESULTS = Path(__file__).parent / "results.yaml"
BENCHMARKS: tuple[Benchmark, ...] = (
    *collection.BENCHMARKS, *gpu_index.BENCHMARKS, *encoding.BENCHMARKS, *fidelity.BENCHMARKS, *learning.BENCHMARKS,
    *mesh_files.BENCHMARKS, *viewer.BENCHMARKS,
    *class_names.BENCHMARKS, *os3dor.BENCHMARKS, *pipeline.BENCHMARKS,
    *rendering.BENCHMARKS, *search_peers.BENCHMARKS, *searching.BENCHMARKS,
    *service.BENCHMARKS, *reliability.BENCHMARKS, *confidence.BENCHMARKS, *tuning.BENCHMARKS, *weights_matter.BENCHMARKS,
)  # fmt: skip


def main() -> int:
    """Run the named benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="groups or benchmarks")
    parser.add_argument("--list", action="store_true", help="list all benchmarks")
    parser.add_argument("--dry", action="store_true", help="do not write results.yaml")
    parser.add_argument(
        "--full", action="store_true", help="also the long benchmarks of a group: a million objects and more"
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda: the benchmarks of a group that need a GPU"
    )
    options = parser.parse_args()
    if options.list or not options.names:
        for benchmark in BENCHMARKS:
            print(
                f"{benchmark.group:<12}{benchmark.name:<26}{_shown(benchmark.targets, benchmark):<38}{benchmark.what}"
            )
        return 0 if options.list else 2
    known = {benchmark.name for benchmark in BENCHMARKS} | {benchmark.group for benchmark in BENCHMARKS}
    unknown = [name for name in options.names if name not in known]
    if unknown:
        print(f"unknown benchmark or group {', '.join(unknown)}; --list names them", file=sys.stderr)
        return 2
    chosen = [
        f
        for f in BENCHMARKS
        if f.name in options.names
        or (f.group in options.names and f.device == options.device and (options.full or not f.full))
    ]
    failed = [benchmark.name for benchmark in chosen if not _run(benchmark, store=not options.dry)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _run(benchmark: Benchmark, store: bool) -> bool:
    """Measure and print; False if it failed, so that the others still run."""
    started = time.monotonic()
    commit_at_start = commit()
    values: dict[str, float] = {}
    try:
        values = benchmark.measure()
        state, note = benchmark.state(values), ""
    except Skipped as reason:
        state, note = "not measured" if benchmark.device == "cuda" else "skipped", str(reason)
    except Exception:
        traceback.print_exc()
        return False
    shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items()) or "-"
    line = " ".join(part for part in (benchmark.name, shown, _shown(benchmark.targets, benchmark), state) if part)
    print(line + (f" ({note})" if note else ""), flush=True)
    if store and values:
        _store(benchmark, values, state, time.monotonic() - started, commit_at_start)
    return True


def _shown(targets: Mapping[str, float], benchmark: Benchmark) -> str:
    sign = "<=" if benchmark.at_most else ">="
    return ", ".join(f"{name} {sign} {target:g}" for name, target in targets.items())


def _store(benchmark: Benchmark, values: Mapping[str, float], state: str, seconds: float, at_commit: str) -> None:
    """Store a result in results.yaml, replacing the earlier one."""
    results: dict[str, Any] = yaml.safe_load(RESULTS.read_text()) if RESULTS.exists() else {}
    results = results or {}
    results[benchmark.name] = {
        "group": benchmark.group,
        "what": benchmark.what,
        "value": {name: round(float(value), 4) for name, value in values.items()},
        "target": dict(benchmark.targets),
        "direction": "at most" if benchmark.at_most else "at least",
        "state": state,
        "command": f"python -m benchmarks {benchmark.name}",
        "commit": at_commit,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "seconds": round(seconds),
        "hardware": hardware(),
    }
    RESULTS.write_text(yaml.safe_dump(results, sort_keys=True, allow_unicode=True, width=120))


_VECTOR_UNITS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "avx512f": "AVX-512", "avx2": "AVX2"}
"""Flag of a processor and its name, the best first: the ratio of bfloat16 to float32 depends on it."""


def commit() -> str:
    """Short hash of the commit, with `+changes` if files were changed since."""
    git = ["git", "-C", str(RESULTS.parent)]
    found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    dirty = [line for line in changed.stdout.splitlines() if not line.endswith("benchmarks/results.yaml")]
    return found.stdout.strip() + ("+changes" if dirty else "")


def hardware() -> str:
    """Model of the processor with its widest vector unit, number of cores, and GPU."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
        flags = set(next((line for line in info.read_text().splitlines() if line.startswith("flags")), "").split())
        unit = next((name for flag, name in _VECTOR_UNITS.items() if flag in flags), None)
        model += f" ({unit})" if unit else ""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{model}, {os.cpu_count()} cores, {gpu}"


if __name__ == "__main__":
    raise SystemExit(main())
