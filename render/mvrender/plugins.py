"""Plug-ins: encoders, view weightings, losses and renderers of other packages.

A package declares them as entry points, a program registers them for its own process:

    [project.entry-points."mvretrieval.weightings"]
    medoid = "my_package:medoid"

    register("weightings", "medoid", medoid)

Each is a function that makes the part; the modules that use them say with which arguments (`encoders.plugin`,
`weighting.plugin`, `mvtrain.losses`, `backends.selection`). Names of built-in parts win.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from mvrender.errors import PluginError

Group = Literal["encoders", "weightings", "losses", "renderers"]
Factory = Callable[..., Any]

_registered: dict[tuple[Group, str], Factory] = {}


def register(group: Group, name: str, make: Factory) -> None:
    """Register a part for this process, in place of an entry point with the same name.

    Args:
        group: kind of part. Renderers run in processes of their own and need an entry point.
        name: by which options and files name it.
        make: makes the part.

    Raises:
        PluginError: a renderer, or an empty name.
    """
    if group == "renderers":
        raise PluginError(
            f"renderer '{name}' cannot be registered: it runs in processes of its own; declare an entry point in the group "
            "mvretrieval.renderers",
            code="plugin_needs_entry_point",
        )
    if not name:
        raise PluginError("a plug-in needs a name", code="plugin_without_name")
    _registered[group, name] = make


def find(group: Group, name: str) -> Factory | None:
    """The function that makes a part; None if neither an entry point nor a registration has this name.

    Raises:
        PluginError: the entry point cannot be imported.
    """
    if (group, name) in _registered:
        return _registered[group, name]
    entry = _entry_points(group).get(name)
    if entry is None:
        return None
    try:
        factory: Factory = entry.load()
    except Exception as error:
        raise PluginError(
            f"plug-in '{name}' of {_package(entry)} cannot be imported ({type(error).__name__}: {error}): install it again, or "
            "remove it",
            code="plugin_not_loaded",
        ) from error
    return factory


def names(group: Group) -> list[str]:
    """Names of all parts of a group that are not built in, sorted."""
    return sorted({*_entry_points(group), *(name for kind, name in _registered if kind == group)})


def installed() -> list[tuple[Group, str, str]]:
    """(group, name, package) of all entry points."""
    groups: tuple[Group, ...] = ("encoders", "weightings", "losses", "renderers")
    return [(group, name, _package(entry)) for group in groups for name, entry in sorted(_entry_points(group).items())]


@cache
def _entry_points(group: Group) -> dict[str, EntryPoint]:
    # Reading the metadata of all packages takes 20 ms, so it is done only for a name that is not built in.
    return {entry.name: entry for entry in entry_points(group=f"mvretrieval.{group}")}


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else entry.value
