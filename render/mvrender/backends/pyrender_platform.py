"""Contexts without a display for pyrender: EGL (GPU drivers and Mesa), otherwise OSMesa (Mesa only)."""

from __future__ import annotations

import ctypes
import os
from ctypes import byref, c_char_p, c_int, c_void_p
from ctypes.util import find_library
from typing import Any

from mvrender.errors import BackendError

_INSTALL_EGL = "'apt-get install libegl1 libgl1 libgl1-mesa-dri'"
_INSTALL_OSMESA = "'apt-get install libosmesa6'"
_FIX = {
    "egl": f"On Debian, run {_INSTALL_EGL}",
    "osmesa": f"On Debian, run {_INSTALL_OSMESA}",
}
_ALTERNATIVE = "or use the 'raster' backend, which needs no OpenGL"

_EGL_PLATFORM_DEVICE_EXT = 0x313F
# pyrender uses these names of PyOpenGL, which 3.1.0 (the only release that pyrender allows) lacks.
_OSMESA_ATTRIBUTES = {
    "OSMESA_FORMAT": 0x22,
    "OSMESA_DEPTH_BITS": 0x30,
    "OSMESA_PROFILE": 0x33,
    "OSMESA_CORE_PROFILE": 0x34,
    "OSMESA_CONTEXT_MAJOR_VERSION": 0x36,
    "OSMESA_CONTEXT_MINOR_VERSION": 0x37,
}


def open_offscreen(size: int) -> Any:
    """Open a `pyrender.OffscreenRenderer` on the platform of PYOPENGL_PLATFORM, by default on the first that works.

    Sets PYOPENGL_PLATFORM and EGL_DEVICE_ID if they are not set, before PyOpenGL is imported: it then chooses its library.

    Args:
        size: width and height of images in pixels, until changed.

    Raises:
        BackendError: pyrender is not installed, or no OpenGL context can be created.
    """
    platform = os.environ.get("PYOPENGL_PLATFORM") or choose_platform()
    os.environ["PYOPENGL_PLATFORM"] = platform
    # See `gl_platform.open_context`.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    try:
        if platform == "egl" and "EGL_DEVICE_ID" not in os.environ:
            os.environ["EGL_DEVICE_ID"] = str(_first_egl_device())
        import pyrender

        _complete_textures(platform)
        if platform == "osmesa":
            _complete_osmesa()
        offscreen = pyrender.OffscreenRenderer(size, size)
    except Exception as error:  # the libraries raise all kinds of errors, also AssertionError
        if isinstance(error, ModuleNotFoundError) and error.name == "pyrender":
            raise BackendError(
                "backend 'pyrender' is not installed: run pip install pyrender", code="backend_not_installed"
            ) from None
        detail = " ".join(str(error).split())[:200]
        fix = _FIX.get(platform, "Unset PYOPENGL_PLATFORM, or set it to egl or osmesa")
        raise BackendError(
            f"pyrender cannot open OpenGL through '{platform}' ({type(error).__name__}: {detail}). {fix}; {_ALTERNATIVE}",
            code="no_opengl",
        ) from error
    if platform == "egl":
        _keep_display(offscreen._platform)
    # pyrender assumes that OSMesa has no framebuffer objects. It has had them for long, and only they are anti-aliased.
    offscreen._platform.supports_framebuffers = lambda: True
    return offscreen


def choose_platform() -> str:
    """`egl` if one of its devices can be opened, otherwise `osmesa` if it is installed.

    Raises:
        BackendError: neither.
    """
    try:
        _first_egl_device()
    except OSError as error:
        if find_library("OSMesa"):
            return "osmesa"
        raise BackendError(
            f"cannot open OpenGL without a display: EGL failed ({error}), and OSMesa is not installed. {_FIX['egl']} (or "
            f"{_INSTALL_OSMESA}); {_ALTERNATIVE}",
            code="no_opengl",
        ) from None
    return "egl"


def _first_egl_device() -> int:
    """Index of the first EGL device that can be initialized. Through ctypes, before PyOpenGL chooses its library.

    Raises:
        OSError: there is none; the message states the reason.
    """
    egl = ctypes.CDLL("libEGL.so.1")
    ctypes.CDLL("libGL.so.1")  # EGL creates contexts, the drawing functions are in this library
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
    raise OSError(f"none of {count.value} devices can be initialized")


def _keep_display(platform: Any) -> None:
    """Release a context without terminating its EGL display, as pyrender would: all contexts of a process share it."""
    from OpenGL import EGL

    def delete_context() -> None:
        EGL.eglMakeCurrent(platform._egl_display, EGL.EGL_NO_SURFACE, EGL.EGL_NO_SURFACE, EGL.EGL_NO_CONTEXT)
        EGL.eglDestroyContext(platform._egl_display, platform._egl_context)

    platform.delete_context = delete_context


def _complete_textures(platform: str) -> None:
    """Let pyrender make textures with Python 3.13, where `glGenTextures` of PyOpenGL 3.1.0 fails."""
    import pyrender.texture

    library = ctypes.CDLL(find_library("OSMesa") if platform == "osmesa" else "libGL.so.1")
    library.glGenTextures.restype, library.glGenTextures.argtypes = None, [c_int, c_void_p]

    def make_texture(count: int) -> int:
        assert count == 1
        name = ctypes.c_uint()
        library.glGenTextures(1, byref(name))
        return name.value

    pyrender.texture.glGenTextures = make_texture


def _complete_osmesa() -> None:
    """Add the OSMesa names that PyOpenGL lacks."""
    from OpenGL import osmesa, platform

    if hasattr(osmesa, "OSMesaCreateContextAttribs"):
        return
    create = ctypes.CDLL(find_library("OSMesa")).OSMesaCreateContextAttribs
    create.restype, create.argtypes = c_void_p, [c_void_p, c_void_p]
    osmesa.OSMesaCreateContextAttribs = lambda attributes, share: create(attributes, share)
    for name, value in _OSMESA_ATTRIBUTES.items():
        setattr(osmesa, name, value)
    # PyOpenGL keeps data of each context in a dict, by address: its own pointer type is not hashable.
    platform.GetCurrentContext.restype = c_void_p
