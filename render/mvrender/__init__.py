"""Views of 3D meshes: load a file of any format and render it from several directions, in several styles.

from mvrender import RenderJob, RenderPool, RenderSpec

with RenderPool(RenderSpec.default()) as pool:
    images = pool.render(RenderJob(Path("chair.glb"))).views.images   # (styles, views, height, width, 3) uint8
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; at run time `__getattr__` imports on first use
    from mvrender.cameras import Rig, parse_rig
    from mvrender.errors import MeshError, MvrenderError
    from mvrender.jobs import Failed, Opened, Rendered, RenderJob, RenderSpec
    from mvrender.loading import load
    from mvrender.mesh import Limits, Mesh, normalize
    from mvrender.plugins import register
    from mvrender.pool import RenderPool
    from mvrender.render_views import render_views
    from mvrender.renderer import Renderer, Views

_MODULES = {
    "Failed": "jobs",
    "RenderJob": "jobs",
    "Limits": "mesh",
    "Mesh": "mesh",
    "MeshError": "errors",
    "MvrenderError": "errors",
    "Opened": "jobs",
    "RenderPool": "pool",
    "RenderSpec": "jobs",
    "Rendered": "jobs",
    "Renderer": "renderer",
    "Rig": "cameras",
    "Views": "renderer",
    "load": "loading",
    "normalize": "mesh",
    "parse_rig": "cameras",
    "register": "plugins",
    "render_views": "render_views",
}
__all__ = [
    "Failed",
    "Limits",
    "Mesh",
    "MeshError",
    "MvrenderError",
    "Opened",
    "RenderJob",
    "RenderPool",
    "RenderSpec",
    "Rendered",
    "Renderer",
    "Rig",
    "Views",
    "load",
    "normalize",
    "parse_rig",
    "register",
    "render_views",
]


def __getattr__(name: str) -> Any:
    """Import on first use, so that programs that only print their help load no numpy."""
    if name not in _MODULES:
        raise AttributeError(f"module 'mvrender' has no attribute '{name}'")
    return getattr(importlib.import_module(f"mvrender.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Public names, for completion."""
    return sorted(__all__)
