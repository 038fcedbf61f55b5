"""Views of 3D meshes: load any file, look at it from several sides, in several styles.

from mvrender import Job, RenderPool, RenderSpec

with RenderPool(RenderSpec.default()) as pool:
    images = pool.render(Job(Path("chair.glb"))).views.images   # (styles, views, height, width, 3) uint8
"""

from __future__ import annotations

import importlib
from typing import Any

_PLACES = {
    "Failed": "pool",
    "Job": "pool",
    "Limits": "mesh",
    "Mesh": "mesh",
    "MeshError": "errors",
    "MvrenderError": "errors",
    "Opened": "pool",
    "RenderPool": "pool",
    "RenderSpec": "pool",
    "Rendered": "pool",
    "Renderer": "renderer",
    "Rig": "cameras",
    "Views": "renderer",
    "load": "loading",
    "normalise": "mesh",
    "parse_rig": "cameras",
}
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    """Import on first use: a program that only shows its help loads no numpy."""
    if name not in _PLACES:
        raise AttributeError(f"module 'mvrender' has no attribute '{name}'")
    return getattr(importlib.import_module(f"mvrender.{_PLACES[name]}"), name)
