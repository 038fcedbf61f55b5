"""View rigs: the cameras of the views. Right-handed, +Y up, a camera looks along its -Z axis."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from mvrender.errors import RigError
from mvrender.mesh import Fit

_MAX_VIEWS = 256


@dataclass(frozen=True)
class Rig:
    """Cameras around the origin that look at it.

    Attributes:
        name: text that `parse_rig` turns back into this rig.
        directions: (V, 3) float64 unit vectors from the origin to each camera, in order of azimuth. For views that are given
            as images: in the order of the images, and NaN if unknown.
        fov_y_deg: full vertical field of view.
        distance: distance of every camera from the origin.
        fit: how the mesh is scaled before rendering (see `mesh.normalize`).
    """

    name: str
    directions: NDArray[np.float64]
    fov_y_deg: float = 30.0
    # A margin of 2 % around the unit sphere: distance = 1.02 / sin(fov / 2).
    distance: float = 1.02 / math.sin(math.radians(15.0))
    fit: Fit = "sphere"

    @property
    def fingerprint(self) -> str:
        """Text that changes with any camera."""
        digest = hashlib.sha256(self.directions.round(6).astype("<f8").tobytes()).hexdigest()[:8]
        return f"{self.name} fov={self.fov_y_deg:g} distance={self.distance:.6g} fit={self.fit} cameras={digest}"

    @property
    def n_views(self) -> int:
        """Number of cameras V."""
        return len(self.directions)

    @property
    def is_known(self) -> bool:
        """Whether the directions of all cameras are known, so that meshes can be rendered."""
        return bool(np.isfinite(self.directions).all())

    @property
    def short_name(self) -> str:
        """The name for display, with long lists of directions shortened."""
        listed = self.name.split(",")
        return self.name if len(listed) <= 4 else f"{','.join(listed[:3])},... ({len(listed)} directions)"

    @property
    def azimuths_deg(self) -> NDArray[np.float64]:
        """(V,) angle of each camera around +Y in [0, 360): 0 at +Z, 90 at +X."""
        x, _, z = self.directions.T
        return np.asarray(np.degrees(np.arctan2(x, z)).round(6) % 360)

    @property
    def elevations_deg(self) -> NDArray[np.float64]:
        """(V,) angle of each camera above the horizon, in -90..90."""
        return np.asarray(np.degrees(np.arcsin(self.directions[:, 1].clip(-1, 1))))

    @property
    def cam_to_world(self) -> NDArray[np.float32]:
        """(V, 4, 4) camera-to-world matrices."""
        return np.stack([look_at_origin(d * self.distance) for d in self.directions]).astype(np.float32)


def look_at_origin(position: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4, 4) camera-to-world matrix of a camera at `position` that looks at the origin with +Y up.

    Straight above the origin the up direction is -Z, straight below it is +Z.
    """
    back = position / np.linalg.norm(position)
    up = np.array([0.0, 1.0, 0.0])
    if abs(back[1]) > 1 - 1e-6:
        up = np.array([0.0, 0.0, -np.sign(back[1])])
    right = np.cross(up, back)
    right /= np.linalg.norm(right)
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1], matrix[:3, 2], matrix[:3, 3] = right, np.cross(back, right), back, position
    return matrix


def ring(n_views: int = 12, elevation_deg: float = 30.0) -> Rig:
    """Cameras at one elevation, evenly spaced around +Y, the first at +Z.

    Raises:
        RigError: the number of views or the elevation is out of range.
    """
    _check_n_views(n_views, f"ring:{n_views}")
    if not -90 <= elevation_deg <= 90:
        raise RigError(
            f"elevation {elevation_deg:g} of rig 'ring:{n_views}' is out of range: give -90 to 90 degrees",
            code="bad_elevation",
        )
    elevation_deg = round(elevation_deg, 3) + 0.0  # the precision of the name, by which workers get the rig
    return Rig(f"ring:{n_views}@{elevation_deg:g}", _ring_directions(n_views, elevation_deg))


def os3dor_ring() -> Rig:
    """The 24 cameras of the open-set benchmarks OS-ESB, OS-NTU, OS-MN40 and OS-ABO.

    One camera every 15 degrees, elevation 30 degrees, distance 3.6, field of view 25 degrees, longest side scaled to 1
    (https://github.com/iMoonLab/HGM2R).
    """
    return Rig("os3dor", _ring_directions(24, 30.0), fov_y_deg=25.0, distance=3.6, fit="extent")


def sphere(n_views: int = 20) -> Rig:
    """Cameras evenly distributed over the sphere (Fibonacci lattice).

    Raises:
        RigError: the number of views is out of range.
    """
    _check_n_views(n_views, f"sphere:{n_views}")
    k = np.arange(n_views)
    y = 1 - (2 * k + 1) / n_views
    azimuth = k * math.pi * (3 - math.sqrt(5))
    flat = np.sqrt(1 - y**2)
    return Rig(f"sphere:{n_views}", _by_azimuth(np.stack([flat * np.sin(azimuth), y, flat * np.cos(azimuth)], axis=1)))


def random(n_views: int = 12, seed: int = 0) -> Rig:
    """Cameras at random positions on the sphere.

    Raises:
        RigError: the number of views or the seed is out of range.
    """
    _check_n_views(n_views, f"random:{n_views}")
    if seed != int(seed) or seed < 0:
        raise RigError(
            f"seed {seed:g} of rig 'random:{n_views}' is invalid: give a whole number from 0", code="bad_seed"
        )
    drawn = np.random.default_rng(int(seed)).normal(size=(n_views, 3))
    return Rig(f"random:{n_views}@{int(seed)}", _by_azimuth(drawn / np.linalg.norm(drawn, axis=1, keepdims=True)))


def dodecahedron() -> Rig:
    """Cameras at the 20 corners of a regular dodecahedron."""
    phi = (1 + math.sqrt(5)) / 2
    corners: list[tuple[float, float, float]] = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
    for a in (-1 / phi, 1 / phi):
        for b in (-phi, phi):
            corners += [(0, a, b), (a, b, 0), (b, 0, a)]
    return Rig("dodecahedron", _by_azimuth(np.array(corners, dtype=float) / math.sqrt(3)))


def cube() -> Rig:
    """Cameras in front of the six faces of a cube."""
    return Rig(
        "cube", _by_azimuth(np.array([[0, 0, 1], [1, 0, 0], [0, 0, -1], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], float))
    )


def rig_from_angles(azimuths_deg: Sequence[float], elevations_deg: Sequence[float]) -> Rig:
    """Cameras of an object's view images, in the order of the images: `views:0@30,95.5@30,185@-10`.

    Raises:
        RigError: the number of views or an angle is out of range.
    """
    _check_n_views(len(azimuths_deg), "views")
    angles = []
    for azimuth, elevation in zip(azimuths_deg, elevations_deg, strict=True):
        if not (math.isfinite(azimuth) and -90 <= elevation <= 90):
            raise RigError(
                f"view direction {azimuth:g}@{elevation:g} is invalid: the azimuth must be finite, the elevation -90 to 90 degrees",
                code="bad_direction",
            )
        angles.append((round(azimuth, 3) % 360 + 0.0, round(elevation, 3) + 0.0))  # the precision of the name
    rows = [direction_of(azimuth, elevation) for azimuth, elevation in angles]
    listed = ",".join(f"{_plain(azimuth)}@{_plain(elevation)}" for azimuth, elevation in angles)
    return Rig(f"views:{listed}", np.array(rows))


def rig_of_unknown_views(n_views: int) -> Rig:
    """View images from unknown directions: `views:12`.

    Raises:
        RigError: the number of views is out of range.
    """
    _check_n_views(n_views, "views")
    return Rig(f"views:{n_views}", np.full((n_views, 3), np.nan))


def direction_of(azimuth_deg: float, elevation_deg: float) -> NDArray[np.float64]:
    """(3,) unit vector from the origin to a camera."""
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    flat = math.cos(elevation)
    return np.array([flat * math.sin(azimuth), math.sin(elevation), flat * math.cos(azimuth)])


def _check_n_views(n_views: int, name: str) -> None:
    if not 1 <= n_views <= _MAX_VIEWS:
        raise RigError(f"rig '{name}' has {n_views} views: give 1 to {_MAX_VIEWS}", code="bad_view_count")


def _plain(degrees: float) -> str:
    return f"{degrees:.3f}".rstrip("0").rstrip(".")


_RIGS: dict[str, Callable[..., Rig]] = {
    "ring": ring,
    "os3dor": os3dor_ring,
    "sphere": sphere,
    "random": random,
    "dodecahedron": dodecahedron,
    "cube": cube,
}
RIG_EXAMPLES = ("ring:12@30", "os3dor", "sphere:20", "dodecahedron", "cube", "random:12@0")


def parse_rig(text: str) -> Rig:
    """Parse the name of a rig: `ring:12@30`, `os3dor`, `sphere:20`, `dodecahedron`, `cube`, `random:12@0` (seed 0).

    For view images: `views:0@30,95.5@30` (azimuth and elevation of each view), `views:12` (unknown directions).

    Raises:
        RigError: the name is unknown or its numbers are out of range.
    """
    if listed := re.fullmatch(r"views:(.+)", text.strip().lower()):
        return _parse_views(listed.group(1))
    match = re.fullmatch(r"([a-z0-9]+?)(?::(\d+)(?:@(-?\d+(?:\.\d+)?))?)?", text.strip().lower())
    name = match.group(1) if match else text
    if match is None or name not in _RIGS:
        near = get_close_matches(name.split(":")[0], _RIGS, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise RigError(f"unknown rig '{text}': {hint}choose one like {', '.join(RIG_EXAMPLES)}", code="unknown_rig")
    numbers = [int(match.group(2))] if match.group(2) else []
    angles = [float(match.group(3))] if match.group(3) else []
    if (numbers and name not in ("ring", "sphere", "random")) or (angles and name not in ("ring", "random")):
        raise RigError(
            f"rig '{name}' does not take the numbers of '{text}': choose one like {', '.join(RIG_EXAMPLES)}",
            code="bad_rig_numbers",
        )
    return _RIGS[name](*numbers, *angles)


def _parse_views(text: str) -> Rig:
    """Parse the part of a rig's name after `views:`."""
    if re.fullmatch(r"\d{1,9}", text):
        return rig_of_unknown_views(int(text))
    pairs = [re.fullmatch(r"(-?\d+(?:\.\d+)?)@(-?\d+(?:\.\d+)?)", part.strip()) for part in text.split(",")]
    found = [(float(pair.group(1)), float(pair.group(2))) for pair in pairs if pair]
    if len(found) < len(pairs):
        raise RigError(
            f"unknown rig 'views:{text[:80]}': give azimuth@elevation of each view (views:0@30,90@30), or their number",
            code="unknown_rig",
        )
    return rig_from_angles([azimuth for azimuth, _ in found], [elevation for _, elevation in found])


def _ring_directions(n_views: int, elevation_deg: float) -> NDArray[np.float64]:
    azimuth = 2 * np.pi * np.arange(n_views) / n_views
    elevation = math.radians(elevation_deg)
    flat = math.cos(elevation)
    return np.stack([flat * np.sin(azimuth), np.full(n_views, math.sin(elevation)), flat * np.cos(azimuth)], axis=1)


def _by_azimuth(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, z = directions.T
    azimuth = np.degrees(np.arctan2(x, z)).round(6) % 360
    return directions[np.lexsort((-y, azimuth))]
