"""Choose a render backend for this machine, and open it."""

from __future__ import annotations

import importlib.util
import os
from typing import get_args

from mvrender import plugins
from mvrender.errors import BackendError
from mvrender.renderer import BackendName, NamedBackend, Renderer


def choose_backend(name: BackendName | None = None) -> tuple[BackendName, str]:
    """Choose a backend.

    Args:
        name: a backend to use; None for the best one of this machine.

    Returns:
        The backend's name, and the reason for the choice.

    Raises:
        BackendError: the named backend is unknown or not installed.
        PluginError: it is a plug-in that cannot be imported.
    """
    if name is not None:
        if not is_named(name):
            _plugin(name)
        _check_is_installed(name)
        return name, "requested"
    if has_gpu() and _is_installed("moderngl"):
        return "gl", "NVIDIA GPU found"
    # OpenGL in software (Mesa) takes several times as long as the rasterizer.
    return "raster", "no GPU needed, same images on every machine"


def is_named(name: BackendName) -> bool:
    """Whether a backend is built in, and not a plug-in."""
    return name in get_args(NamedBackend)


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
        BackendError: it is unknown, or cannot start on this machine; the message names the fix.
        PluginError: it is a plug-in that cannot be imported.
    """
    if not is_named(name):
        renderer: Renderer = _plugin(name)()
        return renderer
    if name == "raster":
        from mvrender.backends.raster import RasterRenderer

        return RasterRenderer()
    _check_is_installed(name)
    if name == "pyrender":
        from mvrender.backends.pyrender import PyrenderRenderer

        return PyrenderRenderer()
    from mvrender.backends.gl import GLRenderer

    return GLRenderer()


def images_of(name: BackendName) -> str:
    """Text that names the images a backend makes: empty for the built-in ones, which agree within a tested tolerance.

    Raises:
        BackendError: a plug-in does not say it.
        PluginError: it cannot be imported.
    """
    if is_named(name):
        return ""
    fingerprint = getattr(_plugin(name), "fingerprint", None)
    if not isinstance(fingerprint, str) or not fingerprint or fingerprint != "".join(fingerprint.split()):
        raise BackendError(
            f"renderer '{name}' has no attribute fingerprint, a text without spaces that changes with its images: add one",
            code="plugin_without_fingerprint",
        )
    return f"{name}:{fingerprint}"


def _plugin(name: BackendName) -> plugins.Factory:
    make = plugins.find("renderers", name)
    if make is None:
        known = ", ".join([*get_args(NamedBackend), *plugins.names("renderers")])
        raise BackendError(f"unknown backend '{name}': choose one of {known}", code="unknown_backend")
    return make


# Module that a backend needs, and how to install it.
_NEEDS: dict[str, tuple[str, str]] = {
    "gl": ("moderngl", "pip install 'mvretrieval[gl]'"),
    "pyrender": ("pyrender", "pip install pyrender"),
}


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _check_is_installed(name: BackendName) -> None:
    module, fix = _NEEDS.get(name, ("", ""))
    if module and not _is_installed(module):
        raise BackendError(f"backend '{name}' is not installed: run {fix}", code="backend_not_installed")
