"""OFF of Geomview, as text: OFF, COFF, NOFF, STOFF and their combinations, with colours of vertices or faces.

Source: Geomview 1.9 manual, chapter "Object File Formats: OFF Files". What is read beyond it: colours behind the vertices of a file
whose header does not announce them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mvrender.errors import MeshError
from mvrender.readers.parts import Part, Reading, color_bytes
from mvrender.readers.polygons import triangulate
from mvrender.readers.text import clean_lines, decode, numbers_of, spans, table
from mvrender.shading import CLAY

_HEADER = re.compile(
    r"(?P<st>ST)?(?P<cn>[CN]{0,2})(?P<four>4)?(?P<dim>n)?OFF(?![A-Za-z]) *(?P<binary>BINARY)?", re.IGNORECASE
)


def read(data: bytes, reading: Reading) -> Iterator[Part]:
    """Read an OFF file.

    Raises:
        MeshError: a face uses a vertex that does not exist, or the file is of a kind that is not supported.
        ValueError: a line cannot be understood.
    """
    lines = [line for line in clean_lines(decode(data)) if line]
    header = _HEADER.match(lines[0]) if lines else None
    if header is not None:
        if header["binary"] or header["four"] or header["dim"]:
            raise MeshError("unreadable", f"'{lines[0][:20]}': only OFF files of text in three dimensions are read")
        rest = lines[0][header.end() :].strip()
        lines[:1] = [rest] if rest else []
    if not lines:
        raise ValueError("the file has no numbers")
    counts = numbers_of(lines[0], np.float64)
    if len(counts) < 2 or not (0 <= counts[0] < 1 << 32 and 0 <= counts[1] < 1 << 32):
        raise ValueError(f"'{lines[0][:40]}' is not the number of vertices and faces")
    n_vertices, n_faces = int(counts[0]), int(counts[1])
    lines = lines[1:]
    if len(lines) < n_vertices + n_faces:
        raise ValueError(f"{len(lines)} lines for {n_vertices} vertices and {n_faces} faces: the file is cut off")
    if n_vertices == 0 or n_faces == 0:
        return
    letters = (header["cn"] if header else "").upper()
    has = {"st": bool(header and header["st"]), "c": "C" in letters, "n": "N" in letters}
    numbers = table(lines[:n_vertices], 3)
    vertices = numbers[:, :3]
    corners, sizes, face_colors = _faces(lines[n_vertices : n_vertices + n_faces], reading)
    triangles, owner = triangulate(vertices, corners, sizes)
    if face_colors is not None:
        yield Part(vertices, corners[triangles], face_colors=face_colors[owner])
    else:
        yield Part(vertices, corners[triangles], _vertex_colors(numbers, has))


def _vertex_colors(numbers: NDArray[np.float64], has: dict[str, bool]) -> NDArray[np.uint8] | None:
    start = 6 if has["n"] else 3
    end = numbers.shape[1] - (2 if has["st"] else 0)
    announced = has["c"] or not (has["n"] or has["st"])
    return color_bytes(numbers[:, start : min(end, start + 4)]) if announced and end - start in (3, 4) else None


def _faces(lines: list[str], reading: Reading) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8] | None]:
    """Vertices of all corners, number of corners of each face, and colours of the faces (n, 3 or 4)."""
    lengths = np.array([line.count(" ") + 1 for line in lines], np.int64)
    numbers = numbers_of(" ".join(lines), np.float64)
    if len(numbers) < lengths.sum():
        raise ValueError("a face has a word that is not a number")
    starts = np.cumsum(lengths) - lengths
    sizes = numbers[starts].astype(np.int64)
    if (sizes < 0).any() or (sizes + 1 > lengths).any():
        raise ValueError("a face has fewer vertices than it announces: the file is cut off, or not one face a line")
    corners = numbers[spans(starts + 1, sizes)].astype(np.int64)
    extra = lengths - 1 - sizes
    if (extra == 1).any():
        reading.note("colours of faces by their number in a colour map are not rendered")
    colored = extra >= 3
    if not colored.any():
        return corners, sizes, None
    width = int(min(4, extra[colored].min()))
    colors = np.tile(np.array([*CLAY.astype(np.uint8), 255], np.uint8)[:width], (len(lines), 1))
    places = (starts + 1 + sizes)[colored, None] + np.arange(width)
    colors[colored] = color_bytes(numbers[places])
    return corners, sizes, colors
