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
    if name is not None:
        _check_is_installed(name)
        return name, "requested"
    if has_gpu() and _is_installed("moderngl"):
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
    _check_is_installed(name)
    if name == "pyrender":
        from mvrender.backends.pyrender import PyrenderRenderer

        return PyrenderRenderer()
    from mvrender.backends.gl import GLRenderer

    return GLRenderer()


# Module that a backend needs, and how to install it.
_NEEDS: dict[BackendName, tuple[str, str]] = {
    "gl": ("moderngl", "pip install 'mvretrieval[gl]'"),
    "pyrender": ("pyrender", "pip install pyrender"),
}


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _check_is_installed(name: BackendName) -> None:
    module, fix = _NEEDS.get(name, ("", ""))
    if module and not _is_installed(module):
        raise BackendError(f"backend '{name}' is not installed: run {fix}", code="backend_not_installed")
