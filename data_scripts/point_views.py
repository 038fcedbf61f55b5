"""Pictures and files of point clouds: the renderers draw triangles alone, so that points are drawn here, as discs."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_MOST_POINTS = 20_000
_FILL = 0.85
"""Share of the picture's height that the bounding sphere takes."""


def azimuths_deg(n_views: int) -> list[float]:
    """Evenly around, beginning in front."""
    return [360.0 * k / n_views for k in range(n_views)]


def draw(
    points: NDArray[np.float32],
    colours: NDArray[np.uint8] | None,
    azimuth_deg: float,
    elevation_deg: float,
    size: int,
) -> Image.Image:
    """Draw a cloud with +Y up, from far away, on white.

    Args:
        points: (n, 3).
        colours: (n, 3); without, near points are light and far ones dark.
        azimuth_deg: 0 looks from +Z, 90 from +X, as the rigs of the renderers do.
        elevation_deg: above the horizon.
        size: pixels of a side.
    """
    step = -(-len(points) // _MOST_POINTS)
    points = points[::step].astype(np.float64)
    centred = points - (points.min(axis=0) + points.max(axis=0)) / 2
    radius = float(np.linalg.norm(centred, axis=1).max()) or 1.0
    a, e = math.radians(azimuth_deg), math.radians(elevation_deg)
    towards = np.array([math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)])
    right = np.array([math.cos(a), 0.0, -math.sin(a)])
    up = np.cross(towards, right)
    x, y, near = (centred / radius @ np.stack([right, up, towards]).T).T
    if colours is None:
        shade = np.interp(near, [-1, 1], [60, 210]).astype(np.uint8)
        colour = np.stack([shade] * 3, axis=1)
    else:
        colour = colours[::step]
    column = np.round(size / 2 + x * size / 2 * _FILL).astype(np.int64)
    row = np.round(size / 2 - y * size / 2 * _FILL).astype(np.int64)
    # Discs as wide as the gaps between points that are spread over a surface.
    disc = max(1, min(size // 32, round(0.8 * size / math.sqrt(len(points)))))
    offsets = np.array(
        [(i, j) for i in range(-disc, disc + 1) for j in range(-disc, disc + 1) if i * i + j * j <= disc * disc]
    )
    order = np.argsort(near, kind="stable")  # the last value assigned to a pixel stays: the nearest
    rows = np.clip(row[order, None] + offsets[:, 0], 0, size - 1)
    columns = np.clip(column[order, None] + offsets[:, 1], 0, size - 1)
    picture = np.full((size, size, 3), 255, np.uint8)
    picture[rows.ravel(), columns.ravel()] = np.repeat(colour[order], len(offsets), axis=0)
    return Image.fromarray(picture)


def png(picture: Image.Image) -> bytes:
    """As a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def ply(points: NDArray[np.float32], colours: NDArray[np.uint8] | None) -> bytes:
    """As a binary PLY file of points, without faces."""
    fields: list[tuple[str, str]] = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    if colours is not None:
        fields += [("red", "u1"), ("green", "u1"), ("blue", "u1")]
    table = np.zeros(len(points), np.dtype(fields))
    for column, name in enumerate(("x", "y", "z")):
        table[name] = points[:, column]
    if colours is not None:
        for column, name in enumerate(("red", "green", "blue")):
            table[name] = colours[:, column]
    names = "".join(f"property {'float' if kind == '<f4' else 'uchar'} {name}\n" for name, kind in fields)
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{names}end_header\n"
    return head.encode() + table.tobytes()
