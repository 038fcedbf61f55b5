"""A figure: a name, a target and the code that measures it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal


class Skipped(Exception):
    """Why a figure cannot be measured on this machine."""


@dataclass(frozen=True)
class Figure:
    """One thing that is measured.

    Attributes:
        name: on the command line and in results.yaml.
        group: figures of one subject.
        what: what is measured, for people.
        targets: name of each value -> what it should reach; empty where a number is only reported.
        measure: does it, and returns the values; those without a target, such as a rival's, are kept and drawn beside them.
        at_most: whether smaller is better.
        full: whether it takes so long, or so much room, that its group measures it with --full alone.
        device: what it runs on; `cuda` where --device says so.
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
        """`ok`, `short` of a target, or `report` where there is none."""
        if not self.targets:
            return "report"
        return "ok" if self.reached(values) else "short"

    def reached(self, values: Mapping[str, float]) -> bool:
        """Whether every value reaches its target."""
        if self.at_most:
            return all(values[name] <= target for name, target in self.targets.items())
        return all(values[name] >= target for name, target in self.targets.items())
