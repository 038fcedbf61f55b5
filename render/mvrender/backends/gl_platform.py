"""An OpenGL context without a display: on Linux by EGL, of GPU drivers and of Mesa."""

from __future__ import annotations

import os
import sys
from typing import Any

import moderngl

from mvrender.errors import BackendError

_VERSION = 400  # shaders that run for each sample
_MEND = (
    "On Debian, run 'apt-get install libegl1 libgl1 libgl1-mesa-dri' (an NVIDIA driver brings its own part; a container needs "
    "NVIDIA_DRIVER_CAPABILITIES=all); or use the 'raster' backend, which needs no OpenGL"
)
_MAX_DEVICES = 32


def open_context() -> Any:
    """A `moderngl.Context` on the first device that can make one; GLCONTEXT_DEVICE_INDEX in the environment names another.

    Raises:
        BackendError: there is none.
    """
    # Mesa's software renderer starts a thread for each core. A pool has a process for each core already, and a process
    # alone was measured to gain nothing by them.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    if sys.platform != "linux":
        return _create()
    first = None
    # GPUs come before Mesa, and devices without a driver among them cannot be opened.
    for index in range(_MAX_DEVICES):
        try:
            # By these names: without compilers and their links, the names that are looked up by default are not found.
            return _create(backend="egl", device_index=index, libgl="libGL.so.1", libegl="libEGL.so.1")
        except BackendError as error:
            first = first or error
            if "device index" in str(error) or "not loaded" in str(error):
                break
    assert first is not None
    raise first


def _create(**where: Any) -> Any:
    try:
        return moderngl.create_context(require=_VERSION, standalone=True, **where)
    except Exception as error:  # neither library has classes of its own for this
        detail = " ".join(str(error).split())[:200]
        raise BackendError(f"OpenGL without a display cannot start here ({detail}). {_MEND}") from error
