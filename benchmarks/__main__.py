"""Run figures, print a line for each, keep the results: `python -m benchmarks [--list] [--full] [--device cuda] GROUP|NAME...`."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks import (
    collection,
    confidence,
    encoding,
    learning,
    names,
    os3dor,
    pipeline,
    rendering,
    searching,
    service,
    tuning,
)  # fmt: skip
from benchmarks.figures import Figure, Skipped

RESULTS = Path(__file__).parent / "results.yaml"
FIGURES: tuple[Figure, ...] = (
    *collection.FIGURES, *encoding.FIGURES, *learning.FIGURES, *names.FIGURES, *os3dor.FIGURES, *pipeline.FIGURES,
    *rendering.FIGURES, *searching.FIGURES, *service.FIGURES, *confidence.FIGURES, *tuning.FIGURES,
)  # fmt: skip


def main() -> int:
    """Measure what is named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="groups or figures")
    parser.add_argument("--list", action="store_true", help="list all figures and end")
    parser.add_argument("--dry", action="store_true", help="do not write results.yaml")
    parser.add_argument(
        "--full", action="store_true", help="also those of a group that take long: a million objects and more"
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="cuda: those of a group that need a GPU"
    )
    options = parser.parse_args()
    if options.list or not options.names:
        for figure in FIGURES:
            print(f"{figure.group:<12}{figure.name:<26}{_shown(figure.targets, figure):<38}{figure.what}")
        return 0 if options.list else 2
    known = {figure.name for figure in FIGURES} | {figure.group for figure in FIGURES}
    unknown = [name for name in options.names if name not in known]
    if unknown:
        print(f"no figure or group {', '.join(unknown)}; --list names them", file=sys.stderr)
        return 2
    chosen = [
        f
        for f in FIGURES
        if f.name in options.names
        or (f.group in options.names and f.device == options.device and (options.full or not f.full))
    ]
    for figure in chosen:
        _run(figure, keep=not options.dry)
    return 0


def _run(figure: Figure, keep: bool) -> None:
    started = time.monotonic()
    commit = _commit()
    values: dict[str, float] = {}
    try:
        values = figure.measure()
        state, note = figure.state(values), ""
    except Skipped as reason:
        state, note = "skipped", str(reason)
    shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items()) or "-"
    line = " ".join(part for part in (figure.name, shown, _shown(figure.targets, figure), state) if part)
    print(line + (f" ({note})" if note else ""), flush=True)
    if keep and state != "skipped":
        _keep(figure, values, state, time.monotonic() - started, commit)


def _shown(targets: Mapping[str, float], figure: Figure) -> str:
    sign = "<=" if figure.at_most else ">="
    return ", ".join(f"{name} {sign} {target:g}" for name, target in targets.items())


def _keep(figure: Figure, values: Mapping[str, float], state: str, seconds: float, commit: str) -> None:
    """Put a result into results.yaml, in the place of the figure's earlier one."""
    results: dict[str, Any] = yaml.safe_load(RESULTS.read_text()) if RESULTS.exists() else {}
    results = results or {}
    results[figure.name] = {
        "group": figure.group,
        "what": figure.what,
        "value": {name: round(float(value), 4) for name, value in values.items()},
        "target": dict(figure.targets),
        "direction": "at most" if figure.at_most else "at least",
        "state": state,
        "command": f"python -m benchmarks {figure.name}",
        "commit": commit,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "seconds": round(seconds),
        "hardware": _hardware(),
    }
    RESULTS.write_text(yaml.safe_dump(results, sort_keys=True, allow_unicode=True, width=120))


def _commit() -> str:
    git = ["git", "-C", str(RESULTS.parent)]
    found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    dirty = [line for line in changed.stdout.splitlines() if not line.endswith("benchmarks/results.yaml")]
    return found.stdout.strip() + ("+changes" if dirty else "")


def _hardware() -> str:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{model}, {os.cpu_count()} cores, {gpu}"


if __name__ == "__main__":
    raise SystemExit(main())
