"""Rigs: positions of cameras, and their names."""

from __future__ import annotations

import math

import numpy as np
import pytest
from error_codes import raises_code
from hypothesis import given
from hypothesis import strategies as st

from mvrender.cameras import (
    RIG_EXAMPLES,
    Rig,
    cube,
    dodecahedron,
    look_at_origin,
    parse_rig,
    rig_from_angles,
    ring,
    sphere,
)
from mvrender.errors import RigError

NAMES = [
    *RIG_EXAMPLES,
    "ring",
    "ring:1@0",
    "ring:7@-45.5",
    "ring:4@90",
    "ring:4@-90",
    "sphere",
    "sphere:1",
    "sphere:256",
]


def assert_looks_at_origin(rig: Rig) -> None:
    """Every camera is a proper rotation at the rig's distance, with the origin straight ahead along its -Z."""
    matrices = rig.cam_to_world.astype(float)
    assert matrices.shape == (rig.n_views, 4, 4)
    rotations, positions = matrices[:, :3, :3], matrices[:, :3, 3]
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.stack([np.eye(3)] * rig.n_views), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-6)
    np.testing.assert_array_equal(matrices[:, 3], [[0, 0, 0, 1]] * rig.n_views)
    ahead = positions - rig.distance * rotations[:, :, 2]
    np.testing.assert_allclose(ahead, 0, atol=1e-5)
    # The right axis is horizontal, and the up axis never points down.
    np.testing.assert_allclose(rotations[:, 1, 0], 0, atol=1e-6)
    assert (rotations[:, 1, 1] > -1e-6).all()


@pytest.mark.parametrize("name", NAMES)
def test_cameras_look_at_the_origin_in_order_of_azimuth(name: str) -> None:
    rig = parse_rig(name)
    assert_looks_at_origin(rig)
    np.testing.assert_allclose(np.linalg.norm(rig.directions, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(rig.cam_to_world[:, :3, 3], rig.directions * rig.distance, atol=1e-5)
    azimuths = rig.azimuths_deg
    assert ((azimuths >= 0) & (azimuths < 360)).all()
    if "90" not in name:  # straight above there is no azimuth
        assert (np.diff(azimuths) >= 0).all()
        flat = np.hypot(rig.directions[:, 0], rig.directions[:, 2])
        expected = np.stack([np.sin(np.radians(azimuths)), np.cos(np.radians(azimuths))], axis=1) * flat[:, None]
        np.testing.assert_allclose(rig.directions[:, [0, 2]], expected, atol=1e-6)
    again = rig_from_angles(rig.azimuths_deg.tolist(), rig.elevations_deg.tolist())
    np.testing.assert_allclose(again.directions, rig.directions, atol=2e-5)


@given(
    st.tuples(*[st.floats(-10, 10, allow_subnormal=False)] * 3).filter(lambda p: math.hypot(*p) > 1e-3),
)
def test_a_camera_anywhere_looks_at_the_origin(position: tuple[float, float, float]) -> None:
    at = np.array(position)
    matrix = look_at_origin(at)
    rotation = matrix[:3, :3]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_array_equal(matrix[:3, 3], at)
    # Seen from the camera, the origin lies on -Z at the camera's distance.
    np.testing.assert_allclose(rotation.T @ -at, [0, 0, -float(np.linalg.norm(at))], atol=1e-9)


def test_straight_above_and_below() -> None:
    above, below = look_at_origin(np.array([0.0, 2, 0])), look_at_origin(np.array([0.0, -2, 0]))
    np.testing.assert_array_equal(above[:3, 1], [0, 0, -1])
    np.testing.assert_array_equal(below[:3, 1], [0, 0, 1])
    # A camera that moves from the front over the top or the bottom keeps its right axis.
    np.testing.assert_array_equal(above[:3, 0], [1, 0, 0])
    np.testing.assert_array_equal(below[:3, 0], [1, 0, 0])


def test_a_ring_starts_at_plus_z_and_continues_towards_plus_x() -> None:
    np.testing.assert_allclose(ring(4, 0).directions, [(0, 0, 1), (1, 0, 0), (0, 0, -1), (-1, 0, 0)], atol=1e-12)


def test_the_os3dor_rig() -> None:
    rig = parse_rig("os3dor")
    assert rig.n_views == 24
    np.testing.assert_allclose(rig.azimuths_deg, np.arange(24) * 15)
    np.testing.assert_allclose(np.degrees(np.arcsin(rig.directions[:, 1])), 30)
    assert (rig.distance, rig.fov_y_deg, rig.fit) == (3.6, 25.0, "extent")


@pytest.mark.parametrize("rig", [ring(), sphere(), dodecahedron(), cube()], ids=lambda rig: rig.name)
def test_the_unit_sphere_fits_with_a_margin_of_two_percent(rig: Rig) -> None:
    assert rig.fit == "sphere"
    assert rig.distance * math.sin(math.radians(rig.fov_y_deg / 2)) == pytest.approx(1.02)


@pytest.mark.parametrize("n_views", [20, 100])
def test_a_sphere_rig_is_uniform(n_views: int) -> None:
    directions = sphere(n_views).directions
    np.testing.assert_allclose(directions.mean(axis=0), 0, atol=1.5 / n_views)
    np.testing.assert_allclose(directions.T @ directions / n_views, np.eye(3) / 3, atol=0.02)
    cosines = directions @ directions.T - 2 * np.eye(n_views)
    gap = np.arccos(cosines.max(axis=1))
    assert gap.min() > 0.6 * math.sqrt(4 * math.pi / n_views)


def test_polyhedra_have_the_right_neighbours() -> None:
    for rig, neighbours, angle in ((dodecahedron(), 3, 41.81), (cube(), 4, 90.0)):
        cosines = rig.directions @ rig.directions.T
        near = np.isclose(np.degrees(np.arccos(cosines.clip(-1, 1))), angle, atol=0.01).sum(axis=1)
        np.testing.assert_array_equal(near, neighbours)
    assert dodecahedron().n_views == 20


@pytest.mark.parametrize("name", NAMES)
def test_names_round_trip(name: str) -> None:
    rig = parse_rig(name)
    again = parse_rig(rig.name)
    assert again.name == rig.name
    np.testing.assert_array_equal(again.cam_to_world, rig.cam_to_world)
    assert (again.fov_y_deg, again.fit) == (rig.fov_y_deg, rig.fit)
    np.testing.assert_array_equal(parse_rig(f" {name.upper()} ").cam_to_world, rig.cam_to_world)


@given(st.integers(1, 256), st.floats(-90, 90))
def test_the_name_of_a_ring_defines_it(n_views: int, elevation_deg: float) -> None:
    rig = ring(n_views, elevation_deg)
    assert np.degrees(np.arcsin(rig.directions[0, 1])) == pytest.approx(elevation_deg, abs=1e-3)
    np.testing.assert_array_equal(parse_rig(rig.name).directions, rig.directions)


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        ("rign:12", "unknown_rig", "did you mean 'ring'"),
        ("dodecahedrn", "unknown_rig", "did you mean 'dodecahedron'"),
        ("os3dorr", "unknown_rig", "did you mean 'os3dor'"),
        ("", "unknown_rig", "ring:12@30"),
        ("ring:0", "bad_view_count", "1 to 256"),
        ("ring:257@30", "bad_view_count", "1 to 256"),
        ("ring:12@91", "bad_elevation", "-90 to 90"),
        ("sphere:0", "bad_view_count", "1 to 256"),
        ("random:12@-1", "bad_seed", "-1"),
        ("views:0@91", "bad_direction", "0@91"),
        ("views:0@x", "unknown_rig", "views:0@x"),
        ("cube:6", "bad_rig_numbers", "cube:6"),
        ("sphere:20@30", "bad_rig_numbers", "sphere:20@30"),
        ("ring:12@", "unknown_rig", "ring:12@"),
        ("ring:1e2", "unknown_rig", "ring:1e2"),
        ("ring:12@nan", "unknown_rig", "ring:12@nan"),
    ],
)
def test_bad_names_are_refused(text: str, code: str, named: str) -> None:
    with raises_code(RigError, code, named):
        parse_rig(text)
