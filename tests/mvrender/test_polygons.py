"""Polygons are split into triangles that cover them and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mvrender.readers.polygons import triangulate, triangulate_rings

U = [(0, 0), (3, 0), (3, 3), (2, 3), (2, 1), (1, 1), (1, 3), (0, 3)]
DART = [(0, 0), (2, -1), (0.5, 0), (2, 1)]
STAR = [(np.cos(a) * r, np.sin(a) * r) for a, r in zip(np.arange(10) * np.pi / 5, [2, 0.5] * 5, strict=True)]


def lifted(points: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """In a plane that is parallel to no axis, far from the origin."""
    turn = np.linalg.qr(np.array([(1.0, 2, 3), (0, 1, 4), (5, 6, 0)]))[0]
    return np.asarray(np.column_stack([np.array(points, float), np.zeros(len(points))]) @ turn + (1000, -500, 20))


def area(points: NDArray[np.float64]) -> NDArray[np.float64]:
    moved = points - points[..., :1, :]
    return np.asarray(np.cross(moved, np.roll(moved, -1, axis=-2)).sum(axis=-2) / 2)


@pytest.mark.parametrize("polygon", [U, DART, STAR, U[::-1], [*U[3:], *U[:3]]])
def test_concave_polygons_are_covered_and_keep_their_side(polygon: list[tuple[float, float]]) -> None:
    points = lifted(polygon)
    triangles, owner = triangulate(points, np.arange(len(points)), np.array([len(points)]))
    assert len(triangles) == len(points) - 2 and not owner.any()
    parts, whole = area(points[triangles]), area(points)
    assert (parts @ whole > 0).all()  # none is turned over, which it would be outside
    np.testing.assert_allclose(parts.sum(axis=0), whole, atol=1e-6)


def test_polygons_of_all_sizes_keep_their_order() -> None:
    square, triangle = [(0, 0), (1, 0), (1, 1), (0, 1)], [(5, 0), (6, 0), (5, 1)]
    points = lifted([*square, *triangle, *U, (9, 9), (9, 8)])
    corners = np.arange(len(points))
    triangles, owner = triangulate(points, corners, np.array([4, 3, 8, 2]))  # two corners are no polygon
    assert owner.tolist() == [0, 0, 1, *[2] * 6]
    assert (triangles[owner == 1] == [4, 5, 6]).all() and triangles[owner == 2].min() == 7
    assert triangles[:2].tolist() == [[0, 1, 2], [0, 2, 3]]


def test_a_convex_polygon_is_a_fan() -> None:
    points = lifted([(np.cos(a), np.sin(a)) for a in np.arange(12) * np.pi / 6])
    triangles, _ = triangulate(points, np.arange(12), np.array([12]))
    assert triangles.tolist() == [[0, i, i + 1] for i in range(1, 11)]


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(-1e-3, 1e-3)), min_size=3, max_size=9))
def test_any_corners_give_triangles_of_these_corners(points: list[tuple[float, float, float]]) -> None:
    """Also degenerate, self-intersecting and not quite flat ones."""
    n = len(points)
    triangles, owner = triangulate(np.array(points), np.arange(n), np.array([n]))
    assert len(triangles) == len(owner) == n - 2 and triangles.min() >= 0 and triangles.max() < n


def test_values_that_are_no_numbers_are_left_to_the_check() -> None:
    points = lifted(U)
    points[3] = np.nan
    triangles, _ = triangulate(points, np.arange(8), np.array([8]))
    assert len(triangles) == 6


def test_holes_stay_open() -> None:
    outline, hole = lifted([(0, 0), (4, 0), (4, 4), (0, 4)]), lifted([(1, 1), (1, 3), (3, 3), (3, 1)])
    for rings in ([outline, hole], [outline, hole[::-1]], [outline[::-1], hole]):
        triangles = triangulate_rings(rings)
        parts = area(np.concatenate(rings)[triangles])
        np.testing.assert_allclose(np.linalg.norm(parts, axis=1).sum(), 12)
        assert (parts @ area(rings[0]) > 0).all()
