"""Choose a render backend for this machine, and open it."""

from __future__ import annotations

import importlib.util
import os

from mvrender.errors import BackendError
from mvrender.renderer import BackendName, Renderer


def choose_backend(name: BackendName | None = None) -> tuple[BackendName, str]:
    """Choose a backend.

    Args:
        name: a backend to use; None for the best one of this machine.

    Returns:
        The backend's name, and the reason for the choice.

    Raises:
        BackendError: the named backend is not installed.
    """
    if name == "raster":
        return "raster", "requested"
    if name == "gl":
        _check_gl_is_installed()
        return "gl", "requested"
    if has_gpu() and _has_moderngl():
        return "gl", "NVIDIA GPU found"
    # OpenGL in software (Mesa) takes several times as long as the rasterizer.
    return "raster", "no GPU needed, same images on every machine"


def has_gpu() -> bool:
    """Whether the device files of an NVIDIA GPU and of its EGL driver exist."""
    return os.path.exists("/dev/nvidiactl") and any(  # noqa: PTH110 - pathlib costs an import in every worker
        os.path.exists(f"{folder}/10_nvidia.json")  # noqa: PTH110
        for folder in (
            "/usr/share/glvnd/egl_vendor.d",
            "/etc/glvnd/egl_vendor.d",
            "/usr/local/nvidia/share/glvnd/egl_vendor.d",
        )
    )


def open_renderer(name: BackendName) -> Renderer:
    """Open the renderer of a backend.

    Raises:
        BackendError: it cannot start on this machine; the message names the fix.
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
        raise BackendError(
            "backend 'gl' is not installed: run pip install 'mvretrieval[gl]'", code="backend_not_installed"
        )
