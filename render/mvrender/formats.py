"""Formats of mesh files. A module of its own, so that scanning for files does not import the readers."""

from __future__ import annotations

from mvrender.mesh import UpAxis

FORMATS: dict[str, UpAxis] = {
    ".glb": "+y",
    ".gltf": "+y",
    ".obj": "+y",
    ".off": "+y",
    ".ply": "+y",
    ".dae": "+y",
    ".stl": "+z",
    ".3mf": "+z",
    ".step": "+z",
    ".stp": "+z",
}
"""Conventional up axis of each format by suffix. A DAE file states its own."""
