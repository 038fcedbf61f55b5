"""Read arrays from untrusted .npz files. Whatever the bytes, the result is arrays or a readable reason."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import did_you_mean

# All that numpy and zipfile raise on damaged files.
_DAMAGED = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError, SyntaxError),
    *(struct.error, zlib.error, zipfile.BadZipFile),
)


def read_arrays(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """Read arrays of text or numbers by name, and no others.

    Raises:
        ValueError: the file is not an .npz file, is damaged, or lacks an array. The message is a phrase without the path, for
            the caller's own error.
    """
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("not an .npz file")
            file.seek(0)
            return _read(file, names)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error


def _read(file: Any, names: Sequence[str]) -> list[NDArray[Any]]:
    try:
        arrays = np.load(file, allow_pickle=False)
    except _DAMAGED as error:
        # numpy takes unknown content for a pickle, and its message suggests to load it.
        reason = "it does not start like an .npz file" if "pickle" in str(error) else error
        raise ValueError(f"damaged file: {reason}") from error
    if missing := [name for name in names if name not in arrays]:
        near = did_you_mean(missing[0], arrays)
        raise ValueError(f"no array '{missing[0]}': {near}the file has {', '.join(sorted(arrays)) or 'none'}")
    return [_array(arrays, name) for name in names]


def _array(arrays: Any, name: str) -> NDArray[Any]:
    try:
        array = arrays[name]
    except _DAMAGED as error:
        if "pickle" in str(error):
            raise ValueError(f"array '{name}' contains neither text nor numbers") from error
        raise ValueError(f"array '{name}' is damaged: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"'{name}' is not an array")
    return array
