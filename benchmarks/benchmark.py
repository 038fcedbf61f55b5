"""A benchmark: a name, its targets, and the function that measures it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal


class Skipped(Exception):
    """Raised when a benchmark cannot run on this machine; the message is the reason."""


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: on the command line and in results.yaml.
        group: benchmarks of one subject.
        what: description.
        targets: target by value name; empty if the values are only reported.
        measure: runs the benchmark and returns its values. Values without a target, such as those of a baseline, are
            stored and plotted too.
        at_most: whether smaller is better.
        full: whether it takes so much time or disk space that its group runs it only with --full.
        device: `cuda` runs only with --device cuda.
    """

    name: str
    group: str
    what: str
    targets: Mapping[str, float]
    measure: Callable[[], dict[str, float]]
    at_most: bool = False
    full: bool = False
    device: Literal["cpu", "cuda"] = "cpu"

    def state(self, values: Mapping[str, float]) -> str:
        """`ok`, `short` of a target, or `report` if there is no target."""
        if not self.targets:
            return "report"
        return "ok" if self.reached(values) else "short"

    def reached(self, values: Mapping[str, float]) -> bool:
        """Whether every value reaches its target."""
        if self.at_most:
            return all(values[name] <= target for name, target in self.targets.items())
        return all(values[name] >= target for name, target in self.targets.items())
