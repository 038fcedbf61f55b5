"""OpenGL contexts without a display: on Linux through EGL, from GPU drivers or Mesa."""

from __future__ import annotations

import os
import sys
from typing import Any

import moderngl

from mvrender.errors import BackendError

_VERSION = 400  # has per-sample shading
_FIX = (
    "On Debian, run 'apt-get install libegl1 libgl1 libgl1-mesa-dri' (NVIDIA drivers include their own; containers need "
    "NVIDIA_DRIVER_CAPABILITIES=all). Or use the 'raster' backend, which needs no OpenGL"
)
_MAX_DEVICES = 32


def open_context() -> Any:
    """Open a `moderngl.Context` on the first usable device, or on that of the environment variable GLCONTEXT_DEVICE_INDEX.

    Raises:
        BackendError: no device is usable.
    """
    # Mesa's software renderer starts one thread per core. A pool already has one process per core, and for a single process
    # the threads gave no measurable gain.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    if sys.platform != "linux":
        return _create()
    first = None
    # GPUs come before Mesa; devices without a driver cannot be opened.
    for index in range(_MAX_DEVICES):
        try:
            # The default names without version exist only with the development packages.
            return _create(backend="egl", device_index=index, libgl="libGL.so.1", libegl="libEGL.so.1")
        except BackendError as error:
            first = first or error
            if "device index" in str(error) or "not loaded" in str(error):
                break
    assert first is not None
    raise first


def _create(**options: Any) -> Any:
    try:
        return moderngl.create_context(require=_VERSION, standalone=True, **options)
    except Exception as error:  # moderngl and glcontext raise plain exceptions
        detail = " ".join(str(error).split())[:200]
        raise BackendError(f"cannot open OpenGL without a display ({detail}). {_FIX}", code="no_opengl") from error
