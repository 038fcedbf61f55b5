"""Arrays of an .npz file that somebody else wrote, with the reason in words where they cannot be read."""

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

_DAMAGED = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError, SyntaxError),
    *(struct.error, zlib.error, zipfile.BadZipFile),
)


def read_arrays(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """Arrays of text or numbers by their names, and no others.

    Raises:
        ValueError: the file is no .npz file, is damaged, or lacks one of them; in words that go on a sentence about the file.
    """
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("it is no .npz file")
            file.seek(0)
            return _read(file, names)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error


def _read(file: Any, names: Sequence[str]) -> list[NDArray[Any]]:
    try:
        arrays = np.load(file, allow_pickle=False)
    except _DAMAGED as error:
        # numpy takes what it does not know for a pickle, and advises to load it.
        why = "it does not begin like an .npz file" if "pickle" in str(error) else error
        raise ValueError(f"it is damaged: {why}") from error
    if missing := [name for name in names if name not in arrays]:
        near = did_you_mean(missing[0], arrays)
        raise ValueError(f"it has no '{missing[0]}': {near}it holds {', '.join(sorted(arrays)) or 'nothing'}")
    return [_array(arrays, name) for name in names]


def _array(arrays: Any, name: str) -> NDArray[Any]:
    try:
        array = arrays[name]
    except _DAMAGED as error:
        if "pickle" in str(error):
            raise ValueError(f"its '{name}' holds neither text nor numbers") from error
        raise ValueError(f"its '{name}' is damaged: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"its '{name}' is no array")
    return array
