"""OBJ and its material libraries (MTL).

Source: the specifications of the two formats (Wavefront, Advanced Visualizer 3.0, appendix B), and what programs write beyond
them: colours behind the coordinates of a vertex, comments behind values, tabs, byte order marks. No maintained library on PyPI
reads relative indices, several libraries and the options of maps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mvrender.errors import MeshError
from mvrender.readers.parts import Color, Material, Part, Reading, color_bytes, compact
from mvrender.readers.polygons import triangulate
from mvrender.readers.text import clean_lines, decode, numbers_of, table
from mvrender.shading import CLAY

_SURFACES = {"curv", "curv2", "surf"}
_CONTINUED = ("v ", "vt ", "vn ", "f ", "l ", "p ")  # of other lines, a backslash at the end may be part of a name
# Options of a map in an MTL, and how many values they have at most; those with three may have fewer.
_MAP_OPTIONS = {
    "-blendu": 1, "-blendv": 1, "-bm": 1, "-boost": 1, "-cc": 1, "-clamp": 1, "-imfchan": 1, "-mm": 2, "-o": 3, "-s": 3, "-t": 3,
    "-texres": 1, "-type": 1, "-colorspace": 1,
}  # fmt: skip


@dataclass
class _Group:
    """Faces with one material.

    Attributes:
        lines: of the faces, without the keyword.
        relative: of each line with relative indices: its place in `lines`, and the number of vertices and of texture
            coordinates before it, from which these count.
    """

    lines: list[str] = field(default_factory=list)
    relative: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass
class _Library:
    """A material of an MTL file.

    Attributes:
        color: Kd.
        image: file name of map_Kd.
        folder: of the MTL file, relative to that of the OBJ.
        scale: of texture coordinates.
        offset: of texture coordinates.
        clamp: whether the texture ends at its edges.
    """

    folder: str
    color: Color | None = None
    image: str | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)
    clamp: bool = False


def read(data: bytes, reading: Reading) -> Iterator[Part]:
    """Read an OBJ file.

    Raises:
        MeshError: a line cannot be understood, or faces use vertices that do not exist.
    """
    vertex_lines: list[str] = []
    uv_lines: list[str] = []
    groups: dict[str, _Group] = {"": _Group()}
    group = groups[""]
    libraries: list[str] = []
    n_surfaces = 0
    for line in _lines(decode(data)):
        keyword, _, rest = line.partition(" ")
        if keyword == "v":
            vertex_lines.append(rest)
        elif keyword == "f" and rest:
            if "-" in rest:
                group.relative.append((len(group.lines), len(vertex_lines), len(uv_lines)))
            group.lines.append(rest)
        elif keyword == "vt":
            uv_lines.append(rest)
        elif keyword == "usemtl":
            group = groups.setdefault(rest.strip(), _Group())
        elif keyword == "mtllib":
            libraries.append(rest.strip())
        elif keyword in _SURFACES:
            n_surfaces += 1
    if n_surfaces:
        reading.note("curves and free-form surfaces are not rendered; convert them to polygons")
    if not any(group.lines for group in groups.values()):
        return
    coordinates, colors = _vertices(vertex_lines)
    uv = _texture_coordinates(uv_lines, reading)
    materials = _materials(libraries, reading)
    for name, group in groups.items():
        if group.lines:
            yield from _parts(group, coordinates, colors, uv, materials.get(name), reading)


def _lines(text: str) -> list[str]:
    """Lines with one space between words, without comments."""
    lines = clean_lines(text, keep=("usemtl", "mtllib", "o ", "g "))  # names may contain the sign of a comment
    if "\\" not in text:
        return lines
    joined: list[str] = []
    for line in lines:
        if joined and joined[-1].endswith("\\") and joined[-1].startswith(_CONTINUED):
            joined[-1] = f"{joined[-1][:-1].rstrip()} {line.lstrip()}"
        else:
            joined.append(line)
    return joined


def _texture_coordinates(lines: list[str], reading: Reading) -> NDArray[np.float64] | None:
    """(n, 2) texture coordinates; None without, or with a note if they cannot be read."""
    if not lines:
        return None
    try:
        found = table(lines, 1)[:, :2]
    except ValueError:
        reading.note("texture coordinates cannot be read; rendered without textures")
        return None
    return found if found.shape[1] == 2 else np.column_stack([found[:, 0], np.zeros(len(found))])


def _vertices(lines: list[str]) -> tuple[NDArray[np.float64], NDArray[np.uint8] | None]:
    """Coordinates, and the colours that some programs write behind them: three numbers of 0 to 1, or to 255."""
    numbers = table(lines, 3, at_most=6)
    colors = numbers[:, 3:6]
    colored = np.isfinite(colors).all(axis=1)
    if colors.shape[1] < 3 or not colored.any():
        return numbers[:, :3], None
    found = np.tile(CLAY.astype(np.uint8), (len(numbers), 1))
    found[colored] = color_bytes(colors[colored])
    return numbers[:, :3], found


def _parts(
    group: _Group,
    coordinates: NDArray[np.float64],
    colors: NDArray[np.uint8] | None,
    uv: NDArray[np.float64] | None,
    library: _Library | None,
    reading: Reading,
) -> Iterator[Part]:
    corners, uv_corners, sizes = _corners(group)
    if len(corners) == 0:
        return
    triangles, _ = triangulate(coordinates, corners, sizes)
    material: Material | None = None
    has_uv: NDArray[np.bool_] = np.zeros(len(triangles), bool)
    if library is not None:
        image = None if library.image is None else reading.references.image(library.image, library.folder)
        color = (
            None if image is not None and library.color == (0, 0, 0) else library.color
        )  # else nothing would be seen
        wrap = ("clamp", "clamp") if library.clamp else ("repeat", "repeat")
        material = Material(color, image, wrap=wrap)  # type: ignore[arg-type]
        if image is not None and uv is not None:
            usable = (uv_corners >= 0) & (uv_corners < len(uv))
            has_uv = np.asarray(usable[triangles].all(axis=1))
    for textured in (False, True):
        some = triangles[has_uv == textured]
        if len(some) == 0:
            continue
        if textured:
            assert uv is not None and library is not None
            # Corners with the same vertex and the same texture coordinate are one vertex.
            used, faces = np.unique(corners[some] * len(uv) + uv_corners[some], return_inverse=True)
            vertex, at = np.divmod(used, len(uv))
            part_uv = uv[at] * library.scale + library.offset
        else:
            vertex, faces = compact(corners[some], len(coordinates))
            part_uv = None
        painted = None if colors is None else colors[vertex]
        yield Part(coordinates[vertex], faces.reshape(-1, 3), painted, uv=part_uv, material=material)


def _corners(group: _Group) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Vertex and texture coordinate of each corner, from zero (-1: none), and the number of corners of each face."""
    sizes = np.array([line.count(" ") + 1 for line in group.lines], np.int64)
    vertex, texture = _indices(" ".join(group.lines))
    if not group.relative:
        return vertex - 1, texture - 1, sizes
    # 1 is the first vertex of the file, -1 the last one before the line, and 0 none.
    places, n_vertices, n_textures = np.array(group.relative, np.int64).T
    of_line = np.zeros((2, len(sizes)), np.int64)
    of_line[:, places] = n_vertices, n_textures
    before = np.repeat(of_line, sizes, axis=1)
    vertex = np.where(vertex < 0, np.maximum(vertex + before[0], -1), vertex - 1)
    texture = np.where(texture < 0, np.maximum(texture + before[1], -1), texture - 1)
    return vertex, texture, sizes


def _indices(text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers before and behind the first slash of `1`, `1/2`, `1//3` or `1/2/3`; 0 where there is none."""
    n, n_slashes, n_double = text.count(" ") + 1, text.count("/"), text.count("//")
    zeros = np.zeros(n, np.int64)
    if (n_slashes, n_double) in ((0, 0), (n, 0), (2 * n, 0), (2 * n, n)):  # words of one form
        per_word = 1 + n_slashes // n - n_double // n
        numbers = numbers_of(text.replace("//", " ").replace("/", " "), np.int64)
        form = "//" if n_double else "/"
        if len(numbers) == n * per_word and (n_slashes == 0 or _has_one_form(text, form, n_slashes // n)):
            table = numbers.reshape(n, per_word)
            return table[:, 0], zeros if n_slashes == 0 or n_double else table[:, 1]
    vertex, texture = zeros, zeros.copy()
    for i, word in enumerate(text.split(" ")):
        parts = word.split("/")
        try:
            vertex[i] = int(parts[0])
            texture[i] = int(parts[1]) if len(parts) > 1 and parts[1] else 0
        except (ValueError, OverflowError):
            raise ValueError(f"'{word}' is not a corner of a face") from None
    return vertex, texture


def _has_one_form(text: str, mark: str, n_slashes: int) -> bool:
    """Whether every word has so many slashes, and `mark` if they are double: counts of the whole text do not tell."""
    return all(word.count("/") == n_slashes and mark in word for word in text.split(" "))


# -- material libraries --------------------------------------------------------------------------------------------------


def _materials(names: list[str], reading: Reading) -> dict[str, _Library]:
    """The materials of all libraries; of two with one name the first counts."""
    found: dict[str, _Library] = {}
    for name in dict.fromkeys(names):
        for file in _files(name, reading):
            try:
                text = decode(reading.references.get(file))
            except MeshError:
                continue  # a note says that it is missing
            folder = str(PurePosixPath(file.replace("\\", "/")).parent)
            for material, library in _parse_library(text, folder):
                found.setdefault(material, library)
    return found


def _files(name: str, reading: Reading) -> list[str]:
    """The files of an `mtllib` line: one, whose name may contain spaces, or several."""
    words = name.split()
    if len(words) < 2 or reading.references.exists(name):
        return [name.strip('"')]
    return words if any(reading.references.exists(word) for word in words) else [name.strip('"')]


def _parse_library(text: str, folder: str) -> Iterator[tuple[str, _Library]]:
    name: str | None = None
    library = _Library(folder)
    for line in clean_lines(text, comments=False):  # names may contain the sign of a comment
        keyword, _, rest = line.partition(" ")
        keyword, rest = keyword.lower(), rest.strip()
        if keyword == "newmtl":
            if name is not None:
                yield name, library
            name, library = rest, _Library(folder)
        elif keyword == "kd":
            library.color = _color(rest) or library.color
        elif keyword == "map_kd":
            _set_map(library, rest)
    if name is not None:
        yield name, library


def _color(text: str) -> Color | None:
    """`r g b` or `r` of 0 to 1; None for spectral files and CIE coordinates."""
    words = text.split()[:3]
    try:
        values = [float(word) for word in words]
    except ValueError:
        return None
    if not values:
        return None
    r, g, b = values if len(values) == 3 else (values[0],) * 3
    red, green, blue = (int(np.rint(255 * min(max(value, 0.0), 1.0))) if value == value else 0 for value in (r, g, b))
    return red, green, blue


def _set_map(library: _Library, text: str) -> None:
    """Options, then a file name, which may contain spaces."""
    words = text.split(" ")
    while len(words) > 1 and words[0].lower() in _MAP_OPTIONS:
        option = words.pop(0).lower()
        values: list[str] = []
        while len(words) > 1 and len(values) < _MAP_OPTIONS[option] and (not values or _is_number(words[0])):
            values.append(words.pop(0))
        if option in ("-s", "-o"):
            numbers = [float(value) for value in values if _is_number(value)]
            default = 1.0 if option == "-s" else 0.0
            pair = (numbers + [default] * 2)[0], (numbers + [default] * 2)[1]
            if option == "-s":
                library.scale = pair
            else:
                library.offset = pair
        elif option == "-clamp":
            library.clamp = values[:1] == ["on"]
    library.image = " ".join(words).strip().strip('"') or None


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False
