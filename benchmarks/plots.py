"""Plot the results of the group `speed`: `python -m benchmarks.plots` writes docs/speed.md and its plots from results.yaml."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import yaml
from matplotlib import pyplot

from benchmarks.__main__ import BENCHMARKS, RESULTS
from benchmarks.benchmark import Benchmark
from benchmarks.search_peers import CURVES

DOCS = RESULTS.parent.parent / "docs"
_LOWEST_RECALL = 0.8
_GAP = 0.6  # between bars of different units, in bars
_OURS, _OTHERS, _TARGET = "#2f6f9f", "#b9c4cc", "#c0392b"
_INTRODUCTION = """# Speed

Each result is a ratio or a time, measured in one run together with its baseline or limit, by `make bench` (those marked *full* by
`python -m benchmarks --full speed`). [Benchmarks](benchmarks.md) has those of a GPU. The numbers are in
[results.yaml](../benchmarks/results.yaml), experiments that did not help in [NOTES.md](../benchmarks/NOTES.md). This page is
written by `python -m benchmarks.plots`. A red line is the target. Bars of one unit have one scale, and a space separates them from
those of another.
"""


def main() -> None:
    """Write the page, and a plot for each benchmark with a result."""
    # Reproducible files, with text as text.
    matplotlib.rcParams.update({"svg.hashsalt": "mvretrieval", "svg.fonttype": "none", "font.family": "sans-serif"})
    results: dict[str, Any] = yaml.safe_load(RESULTS.read_text())
    parts = [_INTRODUCTION]
    (DOCS / "speed").mkdir(exist_ok=True)
    for old in (DOCS / "speed").glob("*.svg"):
        old.unlink()
    for benchmark in (benchmark for benchmark in BENCHMARKS if benchmark.group == "speed"):
        title = f"## {benchmark.name}" + (" (full)" if benchmark.full else "")
        result = results.get(benchmark.name)
        if result is None:
            parts.append(f"{title}\n\n{_sentence(benchmark.what)} Not measured yet.\n")
            continue
        _draw(benchmark, result["value"], DOCS / "speed" / f"{benchmark.name}.svg")
        state = {"ok": "", "short": " **Target not reached.**", "report": ""}[result["state"]]
        where = f"{result['hardware']}; {result['date']}, commit {result['commit']}."
        parts.append(
            f"{title}\n\n{_sentence(result['what'])}{state} {where}\n\n![{benchmark.name}](speed/{benchmark.name}.svg)\n"
        )
    (DOCS / "speed.md").write_text("\n".join(parts))
    for name, curves in (yaml.safe_load(CURVES.read_text()) if CURVES.exists() else {}).items():
        _draw_curves(curves, DOCS / "speed" / f"{name}.svg")


def _draw_curves(curves: Mapping[str, list[list[float]]], path: Path) -> None:
    """Recall against queries per second: one query at a time on one thread, and a batch on two."""
    canvas, both = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True, sharex=True)
    for axes, column, title in zip(
        both, (1, 2), ("one query at a time, one thread", "batch, two threads"), strict=True
    ):
        for number, (name, points) in enumerate(
            sorted(curves.items(), key=lambda item: not item[0].startswith("ours"))
        ):
            shown = sorted((point[0], point[column]) for point in points if point[0] >= _LOWEST_RECALL)
            if shown:
                style = "-" if name.startswith("ours") else "--"
                axes.plot(*zip(*shown, strict=True), style, marker="o", markersize=3, color=f"C{number}", label=name)
        axes.set_yscale("log")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("recall@10")
        axes.grid(alpha=0.3, which="both")
    both[0].set_ylabel("queries/s")
    both[1].legend(fontsize=8)
    canvas.tight_layout()
    canvas.savefig(path, metadata={"Date": None})
    pyplot.close(canvas)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _unit(benchmark: Benchmark, names: Iterable[str], name: str) -> str:
    """Unit of a value: its last word, as in `ours views/s` and `pyrender views/s`.

    Values without one are of the same unit if there are no others and each has a target.
    """
    if " " in name:
        return name.rsplit(" ", 1)[-1]
    return "" if set(names) == set(benchmark.targets) else name


def _draw(benchmark: Benchmark, values: Mapping[str, float], path: Path) -> None:
    """Draw bars; each unit has its own scale."""
    units = [_unit(benchmark, values, name) for name in values]
    names = sorted(values, key=lambda name: units.index(_unit(benchmark, values, name)))[::-1]  # by unit
    longest: dict[str, float] = {}
    places: list[float] = []
    for name in names:
        unit = _unit(benchmark, values, name)
        gap = _GAP if places and unit not in longest else 0.0
        places.append(places[-1] + 1 + gap if places else 0.0)
        longest[unit] = max(longest.get(unit, 0.0), abs(values[name]), abs(benchmark.targets.get(name, 0.0)), 1e-12)
    canvas, axes = pyplot.subplots(figsize=(7, 0.36 * (places[-1] + 1) + 0.25))
    lowest = 0.0
    for place, name in zip(places, names, strict=True):
        unit = _unit(benchmark, values, name)
        ours = name in benchmark.targets or name.startswith("ours")
        length = values[name] / longest[unit]
        lowest = min(lowest, length)
        axes.barh(place, length, height=0.66, color=_OURS if ours else _OTHERS)
        axes.text(1.02, place, f"{values[name]:.4g}", va="center", fontsize=9)
        if name in benchmark.targets:
            target = benchmark.targets[name] / longest[unit]
            axes.plot([target, target], [place - 0.42, place + 0.42], color=_TARGET, linewidth=2)
    axes.set_yticks(places, names, fontsize=9)
    if lowest < 0:
        axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_xlim(lowest, 1.01)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set_visible(lowest == 0)
    axes.tick_params(length=0)
    canvas.savefig(path, bbox_inches="tight", metadata={"Date": None})
    pyplot.close(canvas)


if __name__ == "__main__":
    main()
