"""The one thing that all backends can do, and which backend does it here."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mvrender.cameras import Rig
from mvrender.errors import BackendError, RigError
from mvrender.mesh import Mesh
from mvrender.shading import Style

BackendName = Literal["raster", "gl"]
MIN_SIZE, MAX_SIZE = 64, 1024


@dataclass(frozen=True)
class Views:
    """Pictures of one mesh.

    Attributes:
        images: (S, V, H, W, 3) uint8 sRGB, white ground; S styles, V views in the rig's order.
        mask: (V,) bool, False where nothing of the mesh is seen (a plane looked at edge-on).
        cameras: (V, 4, 4) float32 camera-to-world.
    """

    images: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    cameras: NDArray[np.float32]


class Renderer(Protocol):
    """Draws a normalised mesh from every camera of a rig."""

    name: BackendName

    def render(self, mesh: Mesh, rig: Rig, styles: Sequence[Style], size: int) -> Views:
        """Views of `mesh`, which must have been normalised with `rig.fit`; `size` in pixels, square."""
        ...

    def close(self) -> None:
        """Give back what the renderer holds."""
        ...


def check_size(size: int) -> int:
    """`size`, if a picture may have that many pixels a side.

    Raises:
        RigError: it is out of range.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise RigError(f"pictures are {MIN_SIZE} to {MAX_SIZE} pixels wide, not {size}")
    return size


def choose(name: BackendName | None = None) -> tuple[BackendName, str]:
    """Backend to use here, and why.

    Args:
        name: a backend asked for by name, or None for the best one.

    Raises:
        BackendError: it is not installed.
    """
    if name == "raster":
        return "raster", "asked for"
    if name == "gl":
        _check_gl_is_installed()
        return "gl", "asked for"
    if has_gpu() and _has_moderngl():
        return "gl", "an NVIDIA GPU is here"
    # OpenGL by software is no rival: it takes several times as long.
    return "raster", "no GPU needed, same pictures everywhere"


def has_gpu() -> bool:
    """Whether an NVIDIA GPU with an EGL driver can be seen, judged by its device files."""
    return os.path.exists("/dev/nvidiactl") and any(  # noqa: PTH110 - pathlib costs an import in every worker
        os.path.exists(f"{folder}/10_nvidia.json")  # noqa: PTH110
        for folder in (
            "/usr/share/glvnd/egl_vendor.d",
            "/etc/glvnd/egl_vendor.d",
            "/usr/local/nvidia/share/glvnd/egl_vendor.d",
        )
    )


def open_renderer(name: BackendName) -> Renderer:
    """Renderer of that name, ready to draw.

    Raises:
        BackendError: it cannot start here; the message says what to do.
    """
    if name == "raster":
        from mvrender.backends.raster import RasterRenderer

        return RasterRenderer()
    _check_gl_is_installed()
    from mvrender.backends.gl import GLRenderer

    return GLRenderer()


def _has_moderngl() -> bool:
    return importlib.util.find_spec("moderngl") is not None


def _check_gl_is_installed() -> None:
    if not _has_moderngl():
        raise BackendError("backend 'gl' needs the extra: pip install 'mvretrieval[gl]'")
