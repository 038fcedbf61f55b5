"""Which OpenGL without a display can be had here: EGL (GPU drivers and Mesa), else OSMesa (Mesa alone)."""

from __future__ import annotations

import ctypes
import os
from ctypes import byref, c_char_p, c_int, c_void_p
from ctypes.util import find_library
from typing import Any

from mvrender.errors import BackendError

_INSTALL_EGL = "'apt-get install libegl1 libgl1 libgl1-mesa-dri'"
_INSTALL_OSMESA = "'apt-get install libosmesa6'"
_MEND = {
    "egl": f"On Debian, run {_INSTALL_EGL}",
    "osmesa": f"On Debian, run {_INSTALL_OSMESA}",
}
_ELSE = "or use the 'raster' backend, which needs no OpenGL"

_EGL_PLATFORM_DEVICE_EXT = 0x313F
# What pyrender asks of PyOpenGL and 3.1.0, the one release that pyrender allows, does not have.
_OSMESA_ATTRIBUTES = {
    "OSMESA_FORMAT": 0x22,
    "OSMESA_DEPTH_BITS": 0x30,
    "OSMESA_PROFILE": 0x33,
    "OSMESA_CORE_PROFILE": 0x34,
    "OSMESA_CONTEXT_MAJOR_VERSION": 0x36,
    "OSMESA_CONTEXT_MINOR_VERSION": 0x37,
}


def open_offscreen(size: int) -> Any:
    """A `pyrender.OffscreenRenderer`, on the platform that the user set or else the first that works.

    Sets PYOPENGL_PLATFORM, if the user has not, before OpenGL is imported: PyOpenGL settles on its library then.

    Args:
        size: width and height of pictures in pixels, until changed.

    Raises:
        BackendError: no OpenGL context can be made.
    """
    platform = os.environ.get("PYOPENGL_PLATFORM") or choose_platform()
    os.environ["PYOPENGL_PLATFORM"] = platform
    # Mesa's software renderer starts a thread for each core. A pool has a process for each core already, and a process
    # alone was measured to gain nothing by them.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    try:
        if platform == "egl" and "EGL_DEVICE_ID" not in os.environ:
            os.environ["EGL_DEVICE_ID"] = str(_first_egl_device())
        import pyrender

        if platform == "osmesa":
            _complete_osmesa()
        offscreen = pyrender.OffscreenRenderer(size, size)
    except Exception as error:  # the libraries raise whatever their C side makes of it, AssertionError included
        if isinstance(error, ModuleNotFoundError) and error.name == "pyrender":
            raise BackendError("backend 'pyrender' needs the extra: pip install 'mvretrieval[gl]'") from None
        detail = " ".join(str(error).split())[:200]
        mend = _MEND.get(platform, "Unset PYOPENGL_PLATFORM: known are egl and osmesa")
        raise BackendError(
            f"OpenGL through '{platform}' cannot start here ({type(error).__name__}: {detail}). {mend}; {_ELSE}"
        ) from error
    if platform == "egl":
        _keep_display(offscreen._platform)
    # pyrender takes OSMesa for unable to draw into framebuffers. It has long been able, and only they are anti-aliased.
    offscreen._platform.supports_framebuffers = lambda: True
    return offscreen


def choose_platform() -> str:
    """`egl` if it has a device that starts, else `osmesa` if that is installed.

    Raises:
        BackendError: there is neither.
    """
    try:
        _first_egl_device()
    except OSError as error:
        if find_library("OSMesa"):
            return "osmesa"
        raise BackendError(
            f"no OpenGL without a display: EGL says '{error}', and there is no OSMesa. "
            f"{_MEND['egl']} (or {_INSTALL_OSMESA}); {_ELSE}"
        ) from None
    return "egl"


def _first_egl_device() -> int:
    """Index of the first EGL device that can be initialised. Asked through ctypes, before PyOpenGL settles on EGL.

    Raises:
        OSError: there is none; the message says why.
    """
    egl = ctypes.CDLL("libEGL.so.1")
    ctypes.CDLL("libGL.so.1")  # EGL makes contexts, the drawing functions come from here
    egl.eglGetProcAddress.restype, egl.eglGetProcAddress.argtypes = c_void_p, [c_char_p]
    query, display_of = (egl.eglGetProcAddress(name) for name in (b"eglQueryDevicesEXT", b"eglGetPlatformDisplayEXT"))
    if not query or not display_of:
        raise OSError("this EGL cannot list devices")
    query_devices = ctypes.CFUNCTYPE(c_int, c_int, c_void_p, c_void_p)(query)
    get_display = ctypes.CFUNCTYPE(c_void_p, c_int, c_void_p, c_void_p)(display_of)
    egl.eglInitialize.argtypes = [c_void_p, c_void_p, c_void_p]
    devices, count = (c_void_p * 32)(), c_int()
    if not query_devices(len(devices), devices, byref(count)) or not count.value:
        raise OSError("no device: no driver is installed")
    for index in range(count.value):
        display = get_display(_EGL_PLATFORM_DEVICE_EXT, devices[index], None)
        if display and egl.eglInitialize(display, None, None):
            return index
    raise OSError(f"none of {count.value} devices can be initialised")


def _keep_display(platform: Any) -> None:
    """Let a context end without its EGL display, which pyrender would end too: all contexts of a process share it."""
    from OpenGL import EGL

    def delete_context() -> None:
        EGL.eglMakeCurrent(platform._egl_display, EGL.EGL_NO_SURFACE, EGL.EGL_NO_SURFACE, EGL.EGL_NO_CONTEXT)
        EGL.eglDestroyContext(platform._egl_display, platform._egl_context)

    platform.delete_context = delete_context


def _complete_osmesa() -> None:
    """Give PyOpenGL the OSMesa names that it lacks."""
    from OpenGL import osmesa, platform

    if hasattr(osmesa, "OSMesaCreateContextAttribs"):
        return
    create = ctypes.CDLL(find_library("OSMesa")).OSMesaCreateContextAttribs
    create.restype, create.argtypes = c_void_p, [c_void_p, c_void_p]
    osmesa.OSMesaCreateContextAttribs = lambda attributes, share: create(attributes, share)
    for name, value in _OSMESA_ATTRIBUTES.items():
        setattr(osmesa, name, value)
    # PyOpenGL keeps what it knows of a context in a dict; by address, since its own pointer type cannot be a key.
    platform.GetCurrentContext.restype = c_void_p
