"""Formats of mesh files. By itself: who looks for files need not import what reads them."""

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
"""Formats by suffix, and the up axis that each one's convention says (a DAE file states its own)."""
