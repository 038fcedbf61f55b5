"""The container of glTF: its tree, buffers, accessors and images.

Source: glTF 2.0 specification (Khronos), chapters 3.6, 3.8.3 and 4.4.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvrender.errors import MeshError
from mvrender.readers.parts import Reading
from mvrender.texture_images import open_texture

_COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_SHAPES: dict[str, tuple[int, ...]] = {
    "SCALAR": (1,), "VEC2": (2,), "VEC3": (3,), "VEC4": (4,), "MAT2": (2, 2), "MAT3": (3, 3), "MAT4": (4, 4),
}  # fmt: skip
_DATA_URI = re.compile(r"data:[^,]*?(;base64)?,", re.IGNORECASE)


def parse(data: bytes, suffix: str) -> tuple[dict[str, Any], bytes]:
    """The JSON tree of a `.glb` or `.gltf` file, and its binary chunk.

    Raises:
        MeshError: not a glTF file, or truncated.
    """
    try:
        text, chunk = data, b""
        if suffix == ".glb":
            if data[:4] != b"glTF":
                raise ValueError("it does not begin with 'glTF'; export it again, or rename it by its format")
            expected = int.from_bytes(data[8:12], "little")
            if len(data) < max(expected, 20):
                raise ValueError(f"{max(expected, 20):,} bytes, truncated after {len(data):,}; copy it again")
            end = 20 + int.from_bytes(data[12:16], "little")
            text, rest = data[20:end], data[end:]
            if rest[4:8] == b"BIN\0":
                chunk = rest[8 : 8 + int.from_bytes(rest[:4], "little")]
        tree = json.loads(text.decode("utf-8-sig").rstrip("\0"))
        if not isinstance(tree, dict):
            raise ValueError("its JSON is no object")
        if str(tree.get("asset", {}).get("version", "2")).startswith("1"):
            raise ValueError("glTF 1.0 is not read; convert it to 2.0")
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise MeshError("unreadable", f"not a readable {suffix[1:].upper()} file: {error}") from None
    return tree, chunk


class GltfFile:
    """Buffers, accessors and images of a tree, each read once."""

    def __init__(self, tree: dict[str, Any], chunk: bytes, reading: Reading) -> None:
        """Of a parsed file; `chunk` is the content of the first buffer in a GLB."""
        self.tree = tree
        self._chunk = chunk
        self._reading = reading
        self._buffers: dict[int, bytes] = {}
        self._accessors: dict[int, NDArray[Any]] = {}
        self._images: dict[int, Image.Image | None] = {}

    def items(self, name: str) -> list[Any]:
        """A list of the tree, such as `nodes`; empty if it is not there."""
        found = self.tree.get(name, [])
        if not isinstance(found, list):
            raise ValueError(f"'{name}' is no list")
        return found

    def item(self, name: str, index: Any) -> dict[str, Any]:
        """One entry of a list of the tree.

        Raises:
            ValueError: there is none.
        """
        items = self.items(name)
        if not isinstance(index, int) or not 0 <= index < len(items) or not isinstance(items[index], dict):
            raise ValueError(f"'{name}' has no entry {index}")
        found: dict[str, Any] = items[index]
        return found

    def view(self, index: Any) -> memoryview:
        """The bytes of a buffer view."""
        view = self.item("bufferViews", index)
        content = memoryview(self._buffer(view["buffer"]))
        start = int(view.get("byteOffset", 0))
        end = start + int(view["byteLength"])
        if not 0 <= start <= end <= len(content):
            raise ValueError(f"buffer view {index} ends at byte {end} of {len(content)}")
        return content[start:end]

    def _buffer(self, index: Any) -> bytes:
        buffer = self.item("buffers", index)
        if index not in self._buffers:
            uri = buffer.get("uri")
            if uri is None:
                self._buffers[index] = self._chunk
            else:
                embedded = _embedded(str(uri))
                self._buffers[index] = self._reading.references.get(uri) if embedded is None else embedded
        return self._buffers[index]

    def accessor(self, index: Any) -> NDArray[Any]:
        """The values (n, components) of an accessor. Normalized integers are floats of -1 to 1."""
        if index not in self._accessors:
            accessor = self.item("accessors", index)
            values = self._values(accessor)
            if accessor.get("normalized") and values.dtype.kind in "iu":
                values = np.maximum(values / np.float32(np.iinfo(values.dtype).max), np.float32(-1))
            self._accessors[index] = values
        return self._accessors[index]

    def _values(self, accessor: dict[str, Any]) -> NDArray[Any]:
        kind, shape, count = (
            np.dtype(_COMPONENTS[accessor["componentType"]]),
            _SHAPES[accessor["type"]],
            accessor["count"],
        )
        if not isinstance(count, int) or not 0 <= count <= 3 * self._reading.limits.max_faces:
            raise ValueError(f"an accessor of {count} elements")
        if "bufferView" in accessor:
            view = self.item("bufferViews", accessor["bufferView"])
            content = self.view(accessor["bufferView"])
            values = _strided(
                content, int(accessor.get("byteOffset", 0)), kind, shape, count, int(view.get("byteStride", 0))
            )
        else:
            values = np.zeros((count, *shape), kind)
        if sparse := accessor.get("sparse"):
            n = int(sparse["count"])
            places, changed = sparse["indices"], sparse["values"]
            where = _strided(
                self.view(places["bufferView"]), int(places.get("byteOffset", 0)),
                np.dtype(_COMPONENTS[places["componentType"]]), (1,), n, 0,
            )[:, 0].astype(np.int64)  # fmt: skip
            new = _strided(self.view(changed["bufferView"]), int(changed.get("byteOffset", 0)), kind, shape, n, 0)
            if len(where) and where.max() >= count:
                raise ValueError(f"a sparse accessor changes element {where.max()} of {count}")
            values = values.copy()
            values[where] = new
        return values

    def image(self, index: Any) -> Image.Image | None:
        """An image; None, with a note, if it cannot be opened."""
        if index not in self._images:
            entry = self.item("images", index)
            uri = entry.get("uri")
            content = None if uri is None else _embedded(str(uri))
            if uri is not None and content is None:
                self._images[index] = self._reading.references.image(str(uri))
            else:
                self._images[index] = self._opened(
                    bytes(self.view(entry["bufferView"])) if content is None else content, index
                )
        return self._images[index]

    def _opened(self, content: bytes, index: int) -> Image.Image | None:
        image = open_texture(content)
        if image is None:
            self._reading.note(f"embedded image {index} is not a readable image; rendered without it")
        return image


def _embedded(uri: str) -> bytes | None:
    """The content of a data URI; None for a file name."""
    match = _DATA_URI.match(uri[:200])
    if match is None:
        return None
    text = uri[match.end() :]
    return base64.b64decode(text) if match.group(1) else text.encode()


def _strided(
    content: memoryview, start: int, kind: np.dtype[Any], shape: tuple[int, ...], count: int, stride: int
) -> NDArray[Any]:
    """(count, *shape) values; columns of matrices of small integers begin at multiples of four bytes."""
    columns = shape[0] if len(shape) == 2 else 1
    column_bytes = kind.itemsize * shape[-1]
    padded = -(-column_bytes // 4) * 4 if columns > 1 else column_bytes
    size = padded * (columns - 1) + column_bytes
    stride = stride or padded * columns
    if count == 0:
        return np.zeros((0, *shape), kind)
    if start < 0 or stride < 0 or start + stride * (count - 1) + size > len(content):
        raise ValueError(f"an accessor needs {start + stride * (count - 1) + size} bytes of {len(content)}")
    strides = (stride, padded, kind.itemsize) if columns > 1 else (stride, kind.itemsize)
    values: NDArray[Any] = np.ndarray((count, *shape), kind, content, start, strides)
    return values
