"""Read arrays from untrusted .npz files. Whatever the bytes, the result is arrays or a readable reason."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import did_you_mean

# All that numpy and zipfile raise on damaged files.
_DAMAGED = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError, SyntaxError),
    *(struct.error, zlib.error, zipfile.BadZipFile),
)
_SUFFIX = ".npy"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


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


# -- arrays that are larger than the memory ----------------------------------------------------------------------------


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, of which only the header was read.

    Attributes:
        path: of the file.
        name: of the array.
        shape: of the array.
        dtype: of its elements; `dtype.hasobject` for a pickle, which is never read.
        column_order: whether it is stored column by column (Fortran's order).
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    column_order: bool

    def parts(self, n_rows: int) -> Iterator[NDArray[Any]]:
        """Read the rows (n, ...) in order, `n_rows` at a time, without the others in memory.

        An array in column order is read whole. The last part is only yielded if the checksum of the file is right.

        Raises:
            ValueError: the file is damaged or has changed; a phrase as in `read_arrays`.
        """
        if self.dtype.hasobject:
            raise ValueError(f"array '{self.name}' contains neither text nor numbers")
        if self.column_order:
            (whole,) = read_arrays(self.path, [self.name])
            yield from (whole[start : start + n_rows] for start in range(0, len(whole), n_rows))
            return
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.name + _SUFFIX) as file:
                _header(file)
                yield from self._parts(file, n_rows)
        except _DAMAGED as error:
            raise ValueError(f"array '{self.name}' is damaged: {error}") from error

    def _parts(self, file: IO[bytes], n_rows: int) -> Iterator[NDArray[Any]]:
        row_bytes = prod(self.shape[1:]) * self.dtype.itemsize
        for start in range(0, self.shape[0], n_rows):
            count = min(n_rows, self.shape[0] - start)
            data = file.read(count * row_bytes)
            if len(data) < count * row_bytes:
                raise ValueError("it has fewer elements than its header says")
            if start + count == self.shape[0] and file.read(1):  # at its end the checksum is compared
                raise ValueError("it has more elements than its header says")
            yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])


def stored_arrays(path: Path) -> dict[str, StoredArray]:
    """Read the headers of all arrays of an .npz file.

    Raises:
        ValueError: the file is not an .npz file or is damaged; a phrase as in `read_arrays`.
    """
    found = {}
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("not an .npz file")
            with zipfile.ZipFile(file) as archive:
                for member in archive.namelist():
                    if member.endswith(_SUFFIX):
                        name = member.removesuffix(_SUFFIX)
                        with archive.open(member) as opened:
                            shape, column_order, dtype = _header(opened)
                        found[name] = StoredArray(path, name, shape, dtype, column_order and len(shape) > 1)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    except _DAMAGED as error:
        raise ValueError(str(error) if isinstance(error, ValueError) else f"damaged file: {error}") from error
    return found


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in column order, and dtype."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of numpy's format is not supported")
    shape, column_order, dtype = _HEADERS[version](file)
    return shape, column_order, dtype
