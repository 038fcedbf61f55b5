"""Compile functions with numba, and cache them on disk where that is possible and safe."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numba
from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., object])
_COMPILED: list[object] = []


def compiled(function: _Function) -> _Function:
    """Compile a function. Without fast math, so that floats are rounded the same on every machine."""
    try:
        fast: _Function = njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # neither the folder of the file nor the home folder is writable
        folder = _private_temp_folder() if numba.config.CACHE_DIR == "" else None
        if folder is not None:
            numba.config.CACHE_DIR = str(folder)
            return compiled(function)
        fast = njit(nogil=True, error_model="numpy")(function)
    _COMPILED.append(fast)
    return fast


def disable_cache() -> None:
    """Stop writing compiled code to disk, for a full disk or an exhausted quota."""
    for function in _COMPILED:
        function._cache.disable()  # type: ignore[attr-defined]  # numba has no public way


def _private_temp_folder() -> Path | None:
    """A temporary folder that no other user can write to, since cached code is executed."""
    if not hasattr(os, "getuid"):
        return None
    folder = Path(tempfile.gettempdir()) / f"mvrender-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        info = folder.lstat()
    except OSError:
        return None
    is_private = stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid() and not info.st_mode & 0o077
    return folder if is_private else None
