"""Split polygons into triangles inside of them."""

from __future__ import annotations

from collections.abc import Sequence

import mapbox_earcut
import numpy as np
from numpy.typing import NDArray

from mvrender.errors import MeshError

# A fan may have triangles that are turned over by this share of the polygon's area: rounding, not concavity.
_FLAT = 1e-9


def check_corners(corners: NDArray[np.int64], n_vertices: int) -> None:
    """Raise a MeshError (`bad_indices`) if a corner is none of the vertices."""
    if len(corners) and (corners.min() < 0 or corners.max() >= n_vertices):
        raise MeshError(
            "bad_indices", f"faces use vertices {corners.min()} to {corners.max()}, but there are {n_vertices}"
        )


def triangulate(
    vertices: NDArray[np.float64], corners: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split polygons without holes.

    A fan from the first corner is taken where it covers the polygon, which is so for all convex ones; else ears are clipped in the
    polygon's plane (https://github.com/mapbox/earcut.hpp).

    Args:
        vertices: (n, 3).
        corners: (k,) vertices of the corners of all polygons, one polygon after the other.
        sizes: (p,) number of corners of each; those with fewer than three have no triangle.

    Returns:
        Triangles (t, 3) as indices into `corners`, in the order of their polygons; and the polygon (t,) of each.

    Raises:
        MeshError: a corner is none of the vertices.
    """
    check_corners(corners, len(vertices))
    starts = np.cumsum(sizes) - sizes
    if len(sizes) and (sizes == 3).all():
        return np.arange(len(corners)).reshape(-1, 3), np.arange(len(sizes))
    triangles: list[NDArray[np.int64]] = []
    owners: list[NDArray[np.int64]] = []
    for size in np.unique(sizes[sizes >= 3]):
        polygons = np.flatnonzero(sizes == size)
        places = starts[polygons, None] + np.arange(size)  # (p, size) indices into corners
        fan = np.stack([np.zeros(size - 2, np.int64), np.arange(1, size - 1), np.arange(2, size)], axis=1)
        found = places[:, fan]  # (p, size - 2, 3)
        if size > 3:
            points = vertices[corners[places]]
            for i in np.flatnonzero(~_is_covered_by_fan(points)):
                clipped = _clip_ears([points[i]])
                if len(clipped) == size - 2:
                    found[i] = places[i][clipped]
        triangles.append(found.reshape(-1, 3))
        owners.append(np.repeat(polygons, size - 2))
    if not triangles:
        return np.empty((0, 3), np.int64), np.empty(0, np.int64)
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return np.concatenate(triangles)[order], owner[order]


def triangulate_rings(rings: Sequence[NDArray[np.float64]]) -> NDArray[np.int64]:
    """Triangles (t, 3) of one polygon with holes, as indices into the concatenated rings.

    Args:
        rings: (n, 3) corners of the outline, and of each hole.
    """
    return _clip_ears(rings)


def _normals(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(p, 3) Newell normals of polygons (p, n, 3); their length is twice the area."""
    moved = points - points[:, :1]  # far from the origin, products would lose the detail
    return np.asarray(np.cross(moved, np.roll(moved, -1, axis=1)).sum(axis=1))


def _is_covered_by_fan(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether no triangle of the fan from the first corner is turned over, for polygons (p, n, 3)."""
    with np.errstate(all="ignore"):
        normals = _normals(points)
        squares = (normals**2).sum(axis=1, keepdims=True)
        edges = points[:, 1:] - points[:, :1]
        areas = np.einsum("pij,pj->pi", np.cross(edges[:, :-1], edges[:, 1:]), normals)
        return np.asarray(~(areas < -_FLAT * squares).any(axis=1))


def _clip_ears(rings: Sequence[NDArray[np.float64]]) -> NDArray[np.int64]:
    """(t, 3) indices into the concatenated rings; empty if the outline has no area."""
    normal = _normals(rings[0][None])[0]
    if not np.isfinite(normal).all() or not normal.any():
        return np.empty((0, 3), np.int64)
    kept = [axis for axis in range(3) if axis != np.abs(normal).argmax()]  # the plane that it is seen largest in
    points = np.concatenate(rings) - rings[0][0]
    flat = np.ascontiguousarray(points[:, kept])
    ends = np.cumsum([len(ring) for ring in rings]).astype(np.uint32)
    found: NDArray[np.int64] = np.asarray(mapbox_earcut.triangulate_float64(flat, ends), np.int64).reshape(-1, 3)
    if len(found):  # as the outline is turned
        a, b, c = (points[found[:, i]] for i in range(3))
        if np.cross(b - a, c - a).sum(axis=0) @ normal < 0:
            found = found[:, ::-1]
    return found
