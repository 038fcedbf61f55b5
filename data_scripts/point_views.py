"""Render point clouds as discs, and write them as PLY: the renderers of this project support only triangles."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_MOST_POINTS = 20_000
_FILL = 0.85
"""Diameter of the bounding sphere as a fraction of the image height."""


def azimuths_deg(n_views: int) -> list[float]:
    """Evenly spaced azimuths, starting at the front."""
    return [360.0 * k / n_views for k in range(n_views)]


def draw(
    points: NDArray[np.float32],
    colours: NDArray[np.uint8] | None,
    azimuth_deg: float,
    elevation_deg: float,
    size: int,
) -> Image.Image:
    """Render a point cloud (+Y up) with an orthographic camera on white.

    Args:
        points: (n, 3).
        colours: (n, 3); None shades by depth, near points lighter.
        azimuth_deg: camera at +Z for 0, at +X for 90, as in the camera rigs.
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
    # Discs about as wide as the spacing of points on a surface.
    disc = max(1, min(size // 32, round(0.8 * size / math.sqrt(len(points)))))
    offsets = np.array(
        [(i, j) for i in range(-disc, disc + 1) for j in range(-disc, disc + 1) if i * i + j * j <= disc * disc]
    )
    order = np.argsort(near, kind="stable")  # the last value assigned to a pixel stays, that of the nearest point
    rows = np.clip(row[order, None] + offsets[:, 0], 0, size - 1)
    columns = np.clip(column[order, None] + offsets[:, 1], 0, size - 1)
    image = np.full((size, size, 3), 255, np.uint8)
    image[rows.ravel(), columns.ravel()] = np.repeat(colour[order], len(offsets), axis=0)
    return Image.fromarray(image)


def png(image: Image.Image) -> bytes:
    """Encode as PNG."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def ply(points: NDArray[np.float32], colours: NDArray[np.uint8] | None) -> bytes:
    """Encode as binary PLY without faces."""
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
