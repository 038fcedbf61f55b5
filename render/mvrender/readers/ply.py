"""PLY, text and binary.

Source: G. Turk, "The PLY Polygon File Format" (1994), and what MeshLab, Blender and VCGLib write: colours of any type and name,
texture coordinates of vertices or corners, `comment TextureFile` and `texnumber`, and triangle strips.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvrender.readers.parts import Material, Part, Reading, color_bytes
from mvrender.readers.polygons import check_corners, triangulate
from mvrender.readers.text import clean_lines, decode, numbers_of, spans

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
    "int64": "i8", "uint64": "u8",
}  # fmt: skip
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_COLORS = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
_UV = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"), ("texture_s", "texture_t"))
_CORNERS = ("vertex_indices", "vertex_index")
_LONGEST_HEADER = 1 << 16


@dataclass(frozen=True)
class _List:
    """A list property: all values, and how many each row has."""

    values: NDArray[Any]
    sizes: NDArray[np.int64]


Column = NDArray[Any] | _List


@dataclass
class _Element:
    """An element of the header: `properties` are (name, type of a value, type of the length of a list or None)."""

    name: str
    count: int
    properties: list[tuple[str, str, str | None]] = field(default_factory=list)


def read(data: bytes, reading: Reading) -> Iterator[Part]:
    """Read a PLY file.

    Raises:
        MeshError: a face uses a vertex that does not exist.
        ValueError: the header cannot be understood, or the file is cut off.
    """
    form, elements, textures, body = _header(data)
    tables = _text_tables(body, elements) if form == "ascii" else _binary_tables(body, elements, _ORDERS[form])
    if "vertex" not in tables:
        return
    vertex = tables["vertex"]
    missing = [name for name in "xyz" if not isinstance(vertex.get(name), np.ndarray)]
    if missing:
        raise ValueError(f"the vertices have no '{missing[0]}'")
    vertices = np.stack([np.asarray(vertex[name], np.float64) for name in "xyz"], axis=1)
    colors, uv = _colors(vertex), _columns(vertex, _UV)
    images = [reading.references.image(name) for name in textures]
    faces = tables.get("face", {})
    corners = next((faces[name] for name in _CORNERS if isinstance(faces.get(name), _List)), None)
    if isinstance(corners, _List):
        yield from _faces(vertices, colors, uv, faces, corners, images)
    strips = tables.get("tristrips", {})
    strip = next((strips[name] for name in _CORNERS if isinstance(strips.get(name), _List)), None)
    if isinstance(strip, _List):
        triangles = _strip_triangles(strip)
        check_corners(triangles.ravel(), len(vertices))
        material = Material(image=images[0]) if images else None
        yield Part(vertices, triangles, colors, uv=uv, material=material)


def _faces(
    vertices: NDArray[np.float64],
    colors: NDArray[np.uint8] | None,
    uv: NDArray[np.float64] | None,
    faces: Mapping[str, Column],
    corners: _List,
    images: list[Any],
) -> Iterator[Part]:
    of_corner = corners.values.astype(np.int64)
    triangles, owner = triangulate(vertices, of_corner, corners.sizes)
    face_colors = _colors(faces)
    texcoord, number = faces.get("texcoord"), faces.get("texnumber")
    by_corner = isinstance(texcoord, _List) and bool((texcoord.sizes == 2 * corners.sizes).all())
    if any(image is not None for image in images) and (by_corner or uv is not None):
        numbers = np.zeros(len(triangles), np.int64)
        if isinstance(number, np.ndarray):
            numbers = np.asarray(number, np.int64)[owner]
        for i in np.unique(numbers):
            some = triangles[numbers == i]
            image = images[i] if 0 <= i < len(images) else None
            own = of_corner[some].ravel()
            if by_corner:
                assert isinstance(texcoord, _List)
                own_uv = np.asarray(texcoord.values, np.float64).reshape(-1, 2)[some.ravel()]
            else:
                assert uv is not None
                own_uv = uv[own]
            painted = None if colors is None or image is not None else colors[own]
            yield Part(
                vertices[own],
                np.arange(len(own)).reshape(-1, 3),
                painted,
                uv=own_uv,
                material=Material(image=image),
            )
    elif face_colors is not None:
        yield Part(vertices, of_corner[triangles], face_colors=face_colors[owner])
    else:
        yield Part(vertices, of_corner[triangles], colors)


def _columns(table: Mapping[str, Column], names: tuple[tuple[str, ...], ...]) -> NDArray[Any] | None:
    """The columns of the first of some groups of names that is there, side by side."""
    for group in names:
        found = [table.get(name) for name in group]
        if all(isinstance(column, np.ndarray) for column in found):
            return np.stack([np.asarray(column) for column in found], axis=1)
    return None


def _colors(table: Mapping[str, Column]) -> NDArray[np.uint8] | None:
    rgb = _columns(table, _COLORS)
    if rgb is None:
        return None
    alpha = table.get("alpha")
    if isinstance(alpha, np.ndarray) and alpha.dtype == rgb.dtype:
        rgb = np.column_stack([rgb, alpha])
    return color_bytes(rgb)


def _strip_triangles(strips: _List) -> NDArray[np.int64]:
    """(t, 3) triangles of strips, of which -1 separates several. Every second one is turned."""
    found: list[NDArray[np.int64]] = []
    for strip in np.split(strips.values.astype(np.int64), np.cumsum(strips.sizes)[:-1]):
        for run in np.split(strip, np.flatnonzero(strip < 0)):
            run = run[run >= 0]
            if len(run) < 3:
                continue
            triangles = np.stack([run[:-2], run[1:-1], run[2:]], axis=1)
            triangles[1::2] = triangles[1::2, [1, 0, 2]]
            found.append(triangles)
    return np.concatenate(found) if found else np.empty((0, 3), np.int64)


# -- header and tables ---------------------------------------------------------------------------------------------------


def _header(data: bytes) -> tuple[str, list[_Element], list[str], bytes]:
    """Format, elements, texture files and the content behind the header."""
    end = re.search(rb"^[ \t]*end_header[ \t]*(\r\n|\n|\r)", data[:_LONGEST_HEADER], re.MULTILINE)
    end = end or re.search(rb"[\r\n]end_header(\r\n|\n|\r)", data[:_LONGEST_HEADER])
    if not data.removeprefix(codecs.BOM_UTF8).startswith(b"ply") or end is None:
        raise ValueError("no header of a PLY file, from 'ply' to 'end_header'")
    form = ""
    elements: list[_Element] = []
    textures: list[str] = []
    for line in decode(data[: end.start()]).splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "format":
            form = words[1] if len(words) > 1 else ""
        elif words[0] == "comment" and len(words) > 2 and words[1].lower() == "texturefile":
            textures.append(line.split(None, 2)[2].strip())
        elif words[0] == "element" and len(words) > 2:
            elements.append(_Element(words[1], int(words[2])))
        elif words[0] == "property" and elements and len(words) > 2:
            elements[-1].properties.append(_property(words))
    if form not in _ORDERS:
        raise ValueError(f"unknown format '{form}'")
    return form, elements, textures, data[end.end() :]


def _property(words: list[str]) -> tuple[str, str, str | None]:
    try:
        if words[1] == "list":
            return words[4], _TYPES[words[3]], _TYPES[words[2]]
        return words[2], _TYPES[words[1]], None
    except (KeyError, IndexError):
        raise ValueError(f"'{' '.join(words)}' is not a property") from None


def _text_tables(body: bytes, elements: list[_Element]) -> dict[str, dict[str, Column]]:
    lines = [line for line in clean_lines(decode(body)) if line]
    tables: dict[str, dict[str, Column]] = {}
    for element in elements:
        own, lines = lines[: element.count], lines[element.count :]
        if len(own) < element.count:
            raise ValueError(f"{len(own)} of {element.count} rows of '{element.name}': the file is cut off")
        if element.count == 0:
            continue
        lengths = np.array([line.count(" ") + 1 for line in own], np.int64)
        numbers = numbers_of(" ".join(own), np.float64)
        if len(numbers) < lengths.sum():
            raise ValueError(f"a row of '{element.name}' has a word that is not a number")
        ends = np.cumsum(lengths)
        at = ends - lengths
        table: dict[str, Column] = {}
        for name, kind, length_kind in element.properties:
            if (at >= ends).any():
                raise ValueError(f"a row of '{element.name}' ends before its '{name}'")
            if length_kind is None:
                table[name] = numbers[at].astype(kind)
                at = at + 1
                continue
            sizes = numbers[at].astype(np.int64)
            if (sizes < 0).any() or (at + 1 + sizes > ends).any():
                raise ValueError(f"a row of '{element.name}' ends within its '{name}'")
            table[name] = _List(numbers[spans(at + 1, sizes)].astype(kind), sizes)
            at = at + 1 + sizes
        tables[element.name] = table
    return tables


def _binary_tables(body: bytes, elements: list[_Element], order: str) -> dict[str, dict[str, Column]]:
    tables: dict[str, dict[str, Column]] = {}
    raw = np.frombuffer(body, np.uint8)
    start = 0
    for element in elements:
        if element.count == 0 or not element.properties:
            continue
        if element.count > len(raw) - start:
            raise ValueError(f"fewer than {element.count} rows of '{element.name}': the file is cut off")
        table, start = _binary_table(raw, start, element, order)
        tables[element.name] = table
    return tables


def _binary_table(raw: NDArray[np.uint8], start: int, element: _Element, order: str) -> tuple[dict[str, Column], int]:
    """Columns of one element, and the place of the next byte."""
    uniform = _uniform_type(raw, start, element, order)
    if uniform is not None:
        rows = np.frombuffer(raw, uniform, element.count, start)
        lists = [name for name, _, length_kind in element.properties if length_kind is not None]
        if all((rows[f"{name} length"] == uniform[name].shape[0]).all() for name in lists):
            table: dict[str, Column] = {}
            for name, _, length_kind in element.properties:
                if length_kind is None:
                    table[name] = rows[name]
                else:
                    table[name] = _List(rows[name].reshape(-1), np.full(len(rows), uniform[name].shape[0], np.int64))
            return table, start + uniform.itemsize * element.count
    return _row_by_row(raw, start, element, order)


def _uniform_type(raw: NDArray[np.uint8], start: int, element: _Element, order: str) -> np.dtype[Any] | None:
    """Type of a row if all have lists as long as the first; None if that is more than there is."""
    fields: list[Any] = []
    at = start
    for name, kind, length_kind in element.properties:
        length: tuple[int, ...] = ()
        if length_kind is not None:
            width = np.dtype(length_kind).itemsize
            if at + width > len(raw):
                return None
            n = int(np.frombuffer(raw, order + length_kind, 1, at)[0])
            if not 0 <= n <= len(raw):
                return None
            fields.append((f"{name} length", order + length_kind))
            length, at = (n,), at + width
        fields.append((name, order + kind, length))
        at += np.dtype(kind).itemsize * (length[0] if length else 1)
    row = np.dtype(fields)
    return row if start + row.itemsize * element.count <= len(raw) else None


def _row_by_row(raw: NDArray[np.uint8], start: int, element: _Element, order: str) -> tuple[dict[str, Column], int]:
    """Rows with lists of different lengths: find where each value is, then gather all of a column at once."""
    places: dict[str, list[int]] = {name: [] for name, _, _ in element.properties}
    lengths: dict[str, list[int]] = {name: [] for name, _, length_kind in element.properties if length_kind is not None}
    content, at, end = raw.tobytes(), start, len(raw)
    endian = "big" if order == ">" else "little"
    plan = [
        (places[name], np.dtype(kind).itemsize, lengths.get(name), length_kind and np.dtype(length_kind))
        for name, kind, length_kind in element.properties
    ]
    for _ in range(element.count):
        for column, width, sizes, length_type in plan:
            n = 1
            if sizes is not None and length_type:
                size = length_type.itemsize
                n = int.from_bytes(content[at : at + size], endian, signed=length_type.kind == "i")  # type: ignore[arg-type]
                at += size
                sizes.append(n)
            column.append(at)
            at += n * width
        if at > end or n < 0:
            raise ValueError(f"fewer than {element.count} rows of '{element.name}': the file is cut off")
    table: dict[str, Column] = {}
    for name, kind, length_kind in element.properties:
        width = np.dtype(kind).itemsize
        sizes_of = np.array(lengths[name], np.int64) if length_kind is not None else np.ones(element.count, np.int64)
        if (sizes_of < 0).any():
            raise ValueError(f"a list '{name}' of negative length")
        found = raw[spans(np.array(places[name], np.int64), sizes_of * width)].view(order + kind)
        table[name] = found if length_kind is None else _List(found, sizes_of)
    return table, at
