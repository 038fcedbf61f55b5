"""Meshes: enclosing ball, up axis, both fits, and validation."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import trimesh
from error_codes import raises_code
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from mvrender.errors import MeshError
from mvrender.mesh import UP_AXES, Mesh, check, enclosing_ball, normalize, rotate_to_y_up

# Integers make ties, duplicates, lines and planes likely.
CLOUDS = st.one_of(
    arrays(np.float64, st.tuples(st.integers(1, 9), st.just(3)), elements=st.integers(-3, 3).map(float)),
    arrays(np.float64, st.tuples(st.integers(1, 9), st.just(3)), elements=st.floats(-100, 100, allow_subnormal=False)),
)


def slow_ball(points: NDArray[np.float64]) -> float:
    """Radius of the smallest enclosing ball, by trial of every subset of 1 to 4 points."""
    best = np.inf
    for count in range(1, min(4, len(points)) + 1):
        for chosen in combinations(points, count):
            first, rest = chosen[0], np.array(chosen[1:]).reshape(-1, 3) - chosen[0]
            offset = np.linalg.pinv(2 * rest, rcond=1e-10) @ (rest**2).sum(axis=1)
            best = min(best, float(np.linalg.norm(points - first - offset, axis=1).max()))
    return best


def random_rotation(seed: int) -> NDArray[np.float64]:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return np.asarray(q * np.sign(np.linalg.det(q)))


def mesh_of(parts: trimesh.Trimesh, **attributes: Any) -> Mesh:
    return Mesh(parts.vertices.astype(np.float32), parts.faces.astype(np.int32), **attributes)


@settings(max_examples=150)
@given(CLOUDS)
def test_enclosing_ball_is_the_smallest(points: NDArray[np.float64]) -> None:
    centre, radius = enclosing_ball(points)
    assert np.linalg.norm(points - centre, axis=1).max() <= radius * (1 + 1e-7) + 1e-9
    assert radius == pytest.approx(slow_ball(points), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_enclosing_ball_is_equivariant_to_rotations(seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(5000, 3)) * [1, 2, 0.1]
    rotation, shift = random_rotation(seed), np.array([5.0, -2, 1])
    centre, radius = enclosing_ball(points)
    turned_centre, turned_radius = enclosing_ball(points @ rotation.T + shift)
    assert turned_radius == pytest.approx(radius, rel=1e-9)
    np.testing.assert_allclose(turned_centre, rotation @ centre + shift, atol=1e-8)


def test_enclosing_ball_with_all_points_on_it() -> None:
    # Thousands of points within rounding of the sphere: the algorithm must still terminate with the right ball.
    points = np.asarray(trimesh.creation.icosphere(5, 3.0).vertices) + np.array([1, 2, 3])
    centre, radius = enclosing_ball(points)
    np.testing.assert_allclose(centre, [1, 2, 3], atol=1e-6)
    assert radius == pytest.approx(3, rel=1e-7)


@pytest.mark.parametrize("up", UP_AXES)
def test_rotate_to_y_up_rotates_the_axis_to_y(up: Any) -> None:
    axis = np.eye(3)["xyz".index(up[1])] * (1 if up[0] == "+" else -1)
    points = np.vstack([np.eye(3), axis]).astype(np.float32)
    turned = rotate_to_y_up(Mesh(points, np.array([(0, 1, 2)], np.int32)), up).vertices
    np.testing.assert_array_equal(turned[3], [0, 1, 0])
    assert np.linalg.det(turned[:3].T) == pytest.approx(1)
    # Exact, without rounding.
    assert set(np.unique(turned)) <= {-1.0, 0.0, 1.0}


def test_z_up_keeps_the_front_in_front() -> None:
    # A model that faces -Y with +Z up, as in CAD programs, faces +Z after the rotation.
    turned = rotate_to_y_up(
        Mesh(np.array([(0, -1, 0), (1, 0, 0), (0, 0, 1)], np.float32), np.array([(0, 1, 2)], np.int32)), "+z"
    )
    np.testing.assert_array_equal(turned.vertices, [(0, 0, 1), (1, 0, 0), (0, 1, 0)])


@settings(max_examples=50)
@given(
    st.integers(0, 10_000),
    st.floats(-6, 6),
    st.tuples(*[st.floats(-100, 100)] * 3),
    st.sampled_from(["sphere", "extent"]),
)
def test_normalization_removes_position_and_scale(seed: int, power: float, place: Any, fit: Any) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(30, 3))
    faces = rng.integers(0, 30, (40, 3)).astype(np.int32)
    moved = ((points + place) * 10**power).astype(np.float32)
    here, there = (normalize(Mesh(p.astype(np.float32), faces), fit).vertices for p in (points, moved))
    used = np.unique(faces)
    np.testing.assert_allclose(here[used], there[used], atol=1e-4)
    if fit == "sphere":
        assert np.linalg.norm(here[used], axis=1).max() == pytest.approx(1, abs=1e-5)
        assert enclosing_ball(here[used].astype(float))[1] == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(enclosing_ball(here[used].astype(float))[0], 0, atol=1e-5)
    else:
        low, high = here[used].min(axis=0), here[used].max(axis=0)
        np.testing.assert_allclose(low + high, 0, atol=1e-5)
        assert (high - low).max() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("fit", ["sphere", "extent"])
def test_unused_vertices_do_not_affect_normalization(fit: Any) -> None:
    box = mesh_of(trimesh.creation.box((1, 2, 3)))
    stray = Mesh(np.vstack([box.vertices, [(1e6, 0, 0)]]).astype(np.float32), box.faces)
    np.testing.assert_array_equal(normalize(stray, fit).vertices[:-1], normalize(box, fit).vertices)


def test_normalize_keeps_colours_and_notes() -> None:
    box = trimesh.creation.box((1, 2, 3))
    colors = np.arange(24, dtype=np.uint8).reshape(8, 3)
    mesh = normalize(mesh_of(box, vertex_colors=colors, notes=("a note",)))
    assert mesh.vertex_colors is colors and mesh.notes == ("a note",) and mesh.has_color


TRIANGLE = np.array([(0, 1, 2)], np.int32)
CORNERS = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0)], np.float32)


@pytest.mark.parametrize(
    ("vertices", "faces", "code"),
    [
        (CORNERS, TRIANGLE[:0], "no_faces"),
        (CORNERS, TRIANGLE + 1, "bad_indices"),
        (CORNERS, TRIANGLE - 1, "bad_indices"),
        (CORNERS[:0], TRIANGLE, "bad_indices"),
        (CORNERS * np.float32(np.nan), TRIANGLE, "not_finite"),
        (CORNERS + np.array([0, 0, np.inf], np.float32), TRIANGLE, "not_finite"),
        (CORNERS * 0, TRIANGLE, "degenerate"),
        (CORNERS * 0 + 5, TRIANGLE, "degenerate"),
        (CORNERS * np.float32(1e-3) + 1e6, TRIANGLE, "degenerate"),
    ],
)
@pytest.mark.parametrize("fit", ["sphere", "extent"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_invalid_meshes_are_refused(vertices: Any, faces: Any, code: str, fit: Any) -> None:
    with raises_code(MeshError, code):
        normalize(Mesh(vertices, faces), fit)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_meshes_are_normalized(scale: float) -> None:
    box = mesh_of(trimesh.creation.box((1, 2, 3)))
    scaled = normalize(Mesh(box.vertices * np.float32(scale), box.faces))
    np.testing.assert_allclose(scaled.vertices, normalize(box).vertices, atol=1e-6)


def test_a_flat_mesh_is_not_degenerate() -> None:
    check(Mesh(CORNERS, TRIANGLE))
    assert np.ptp(normalize(Mesh(CORNERS, TRIANGLE)).vertices[:, 2]) == 0
