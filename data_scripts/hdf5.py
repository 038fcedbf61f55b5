"""Arrays out of an HDF5 file, as far as h5py writes them by default: one flat group, numbers, whole or in chunks.

Written after the HDF5 file format specification, version 0 of the superblock. What it does not know it names, with a way out.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_scripts.errors import CorruptMember

_MAGIC = b"\x89HDF\r\n\x1a\n"
_MOST_BLOCKS = 100
_UNDEFINED = (1 << 64) - 1
_SPACE, _TYPE, _LAYOUT, _FILTERS, _CONTINUATION, _GROUP = 0x01, 0x03, 0x08, 0x0B, 0x10, 0x11
_DEFLATE, _SHUFFLE, _CHECKSUM = 1, 2, 3
_WAY_OUT = "read it with h5py and write it anew with h5py.File(name, 'w', libver='earliest')"


def read(data: bytes) -> dict[str, NDArray[Any]]:
    """Arrays of the file's first group by name.

    Raises:
        CorruptMember: it is no HDF5 file, is damaged, or uses more of HDF5 than this reads.
    """
    if data[:8] != _MAGIC:
        raise CorruptMember(f"is no HDF5 file, it begins with {data[:16]!r}")
    if data[8] != 0 or data[13:15] != b"\x08\x08":
        raise CorruptMember(f"is HDF5 with superblock {data[8]}, which this does not read: {_WAY_OUT}")
    try:
        header = _number(data, 56 + 8, 8)
        group = _one(dict(_messages(data, header)), _GROUP)
        tree, heap = _number(group, 0, 8), _number(group, 8, 8)
        return {name: _array(data, at) for name, at in _links(data, tree, _number(data, heap + 24, 8))}
    except (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError, zlib.error) as error:
        raise CorruptMember(f"is damaged, or uses more of HDF5 than this reads ({error}): {_WAY_OUT}") from error


def _number(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise ValueError("it ends early")
    return int.from_bytes(data[at : at + size], "little")


def _one(messages: dict[int, bytes], kind: int) -> bytes:
    if kind not in messages:
        raise KeyError(f"no message {kind:#x}")
    return messages[kind]


def _messages(data: bytes, header: int) -> Iterator[tuple[int, bytes]]:
    """(kind, content) of the messages of an object, through all of its blocks."""
    if data[header] != 1:
        raise ValueError(f"object header of version {data[header]}")
    blocks = [(header + 16, _number(data, header + 8, 4))]
    for at, size in blocks:
        if len(blocks) > _MOST_BLOCKS:
            raise ValueError("an object header without end")
        end = at + size
        while at + 8 <= end:
            kind, length = _number(data, at, 2), _number(data, at + 2, 2)
            content = data[at + 8 : at + 8 + length]
            if kind == _CONTINUATION:
                blocks.append((_number(content, 0, 8), _number(content, 8, 8)))
            yield kind, content
            at += 8 + length


def _links(data: bytes, node: int, names: int) -> Iterator[tuple[str, int]]:
    """(name, object header) of the members of a group."""
    if data[node : node + 4] == b"TREE":
        for entry in range(_number(data, node + 6, 2)):
            yield from _links(data, _number(data, node + 24 + 16 * entry + 8, 8), names)
    elif data[node : node + 4] == b"SNOD":
        for entry in range(_number(data, node + 6, 2)):
            at = node + 8 + 40 * entry
            start = names + _number(data, at, 8)
            yield data[start : data.index(b"\0", start)].decode(), _number(data, at + 8, 8)
    else:
        raise ValueError("no group where one should be")


def _array(data: bytes, header: int) -> NDArray[Any]:
    messages = dict(_messages(data, header))
    space, layout = _one(messages, _SPACE), _one(messages, _LAYOUT)
    dtype = _dtype(_one(messages, _TYPE))
    first = 8 if space[0] == 1 else 4
    shape = tuple(_number(space, first + 8 * axis, 8) for axis in range(space[1]))
    if layout[0] != 3:
        raise ValueError(f"data layout of version {layout[0]}")
    if layout[1] == 2:
        return _chunked(data, layout, shape, dtype, _filters(messages.get(_FILTERS, b"")))
    if layout[1] == 1:
        start, size = _number(layout, 2, 8), int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if start == _UNDEFINED:
            return np.zeros(shape, dtype)
        raw = data[start : start + size]
    else:
        raw = layout[4 : 4 + _number(layout, 2, 2)]
    return np.frombuffer(raw, dtype).reshape(shape)


def _dtype(message: bytes) -> np.dtype[Any]:
    kind, flags, size = message[0] & 0x0F, message[1], _number(message, 4, 4)
    if kind not in (0, 1):
        raise ValueError(f"values of class {kind}, not numbers")
    letter = "f" if kind == 1 else ("i" if flags & 8 else "u")
    return np.dtype(f"{'>' if flags & 1 else '<'}{letter}{size}")


def _filters(message: bytes) -> list[int]:
    """Filters in the order in which they were applied."""
    if not message:
        return []
    if message[0] != 1:
        raise ValueError(f"filters of version {message[0]}")
    found: list[int] = []
    at = 8
    for _ in range(message[1]):
        name_length, n_values = _number(message, at + 2, 2), _number(message, at + 6, 2)
        found.append(_number(message, at, 2))
        at += 8 + name_length + 4 * (n_values + n_values % 2)
    if unknown := set(found) - {_DEFLATE, _SHUFFLE, _CHECKSUM}:
        raise ValueError(f"filters {sorted(unknown)}")
    return found


def _chunked(
    data: bytes, layout: bytes, shape: tuple[int, ...], dtype: np.dtype[Any], filters: list[int]
) -> NDArray[Any]:
    n_axes = layout[2] - 1
    chunk = tuple(_number(layout, 11 + 4 * axis, 4) for axis in range(n_axes))
    whole = np.zeros(shape, dtype)
    root = _number(layout, 3, 8)
    for start, raw, skipped in [] if root == _UNDEFINED else _chunks(data, root, n_axes):
        for bit, kind in reversed(list(enumerate(filters))):
            if skipped >> bit & 1:
                continue
            if kind == _DEFLATE:
                raw = zlib.decompress(raw)
            elif kind == _SHUFFLE:
                raw = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, -1).T.tobytes()
            else:
                raw = raw[:-4]
        block = np.frombuffer(raw, dtype).reshape(chunk)
        place = tuple(slice(at, min(at + size, end)) for at, size, end in zip(start, chunk, shape, strict=True))
        whole[place] = block[tuple(slice(0, part.stop - part.start) for part in place)]
    return whole


def _chunks(data: bytes, node: int, n_axes: int) -> Iterator[tuple[tuple[int, ...], bytes, int]]:
    """(first index, stored bytes, filters left out) of each chunk below a node of the tree."""
    if data[node : node + 4] != b"TREE":
        raise ValueError("no tree of chunks where one should be")
    level, key = data[node + 5], 8 + 8 * (n_axes + 1)
    for entry in range(_number(data, node + 6, 2)):
        at = node + 24 + (key + 8) * entry
        child = _number(data, at + key, 8)
        if level:
            yield from _chunks(data, child, n_axes)
        else:
            size, skipped = _number(data, at, 4), _number(data, at + 4, 4)
            start = tuple(_number(data, at + 8 + 8 * axis, 8) for axis in range(n_axes))
            yield start, data[child : child + size], skipped
