"""What every reader returns: parts of the object, placed in the frame of the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvrender.mesh import Limits, UpAxis
from mvrender.plain_text import shortened
from mvrender.references import References
from mvrender.texture_images import Wrap

Color = tuple[int, int, int]

_LONGEST_NOTE = 500


@dataclass(frozen=True)
class Material:
    """Colour and texture of a part.

    Attributes:
        color: sRGB, which tints texture and vertex colours; None if the file has none.
        image: texture; None without.
        opaque: its alpha has no meaning, but for holes.
        wrap: what is beyond its edges, along u and v.
        cutoff: opacity of the texture, from 0 to 1, below which it has holes; None: it has none.
    """

    color: Color | None = None
    image: Image.Image | None = None
    opaque: bool = False
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")
    cutoff: float | None = None


@dataclass(frozen=True)
class Part:
    """Triangles with one material.

    Attributes:
        vertices: (n, 3).
        faces: (m, 3) indices of vertices.
        colors: (n, 3 or 4) uint8 sRGB, the fourth is opacity; None without.
        face_colors: (m, 3 or 4) in the same way, instead of `colors`.
        uv: (n, 2), v upwards; None without.
        material: None without.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    colors: NDArray[np.uint8] | None = None
    face_colors: NDArray[np.uint8] | None = None
    uv: NDArray[np.float64] | None = None
    material: Material | None = None


@dataclass
class Reading:
    """What a reader needs besides the bytes of the file, and what it reports.

    Attributes:
        suffix: of the file, such as ".obj".
        references: reads files that the file names.
        limits: resources that the file may use.
        notes: what was not understood or is missing, one sentence each.
        up: up axis that the file states; None if it states none.
    """

    suffix: str
    references: References
    limits: Limits
    notes: list[str] = field(default_factory=list)
    up: UpAxis | None = None

    def note(self, text: str) -> None:
        """Add a note, once. Names from the file are escaped, and a long note is cut."""
        text = shortened(text, _LONGEST_NOTE)
        if text not in self.notes:
            self.notes.append(text)


def placed(vertices: NDArray[np.float64], transform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vertices (n, 3) after a transform (4, 4)."""
    if np.array_equal(transform, np.eye(4)):
        return vertices
    return vertices @ transform[:3, :3].T + transform[:3, 3]


def color_bytes(colors: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours (n, 3 or 4) as bytes; the fourth column, opacity, has a scale of its own.

    Floats are of 0 to 1, or of 0 to 255 if one is larger than 2: some are a little above 1. Integers hold bytes, or the whole range
    of their type if one is larger than 255.
    """
    if colors.shape[1] == 4:
        return np.column_stack([color_bytes(colors[:, :3]), _bytes(colors[:, 3:])])
    return _bytes(colors)


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    largest = float(np.nanmax(values, initial=0))
    if values.dtype.kind in "ui":
        scale = 1.0 if largest <= 255 else 255 / np.iinfo(values.dtype).max
    else:
        scale = 255.0 if largest <= 2 else 1.0
    return np.asarray(np.rint((np.nan_to_num(values) * scale).clip(0, 255)), np.uint8)


def compact(faces: NDArray[np.int64], n_vertices: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The vertices that faces (any shape) use, in order, and the faces as indices of these."""
    if n_vertices > 8 * faces.size:  # many small groups share many vertices
        used, corners = np.unique(faces, return_inverse=True)
        return used, corners.reshape(faces.shape)
    is_used = np.zeros(n_vertices, bool)
    is_used[faces] = True
    place = np.cumsum(is_used) - 1
    return np.flatnonzero(is_used), place[faces]


def srgb_of_linear(linear: NDArray[Any]) -> NDArray[np.float64]:
    """Linear values of 0 to 1 as sRGB (IEC 61966-2-1)."""
    return np.asarray(
        np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055)
    )


def over_white(colors: NDArray[np.uint8] | Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Composite colours (n, 3 or 4) over white, to (n, 3)."""
    colors = np.asarray(colors, np.uint8)
    if colors.shape[1] == 3:
        return colors
    alpha = colors[:, 3:4].astype(np.float32) / 255
    return np.asarray(colors[:, :3] * alpha + 255 * (1 - alpha), np.uint8)
