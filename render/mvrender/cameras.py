"""View rigs: where the cameras stand. Right-handed, +Y up, a camera looks along its own -Z."""

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
    """Cameras around the origin, all looking at it.

    Attributes:
        name: the text that `parse_rig` turns back into this rig.
        directions: (V, 3) float64 unit vectors from the origin to each camera, in order of azimuth; of pictures that came
            with an object in their own order, and NaN where nobody knows.
        fov_y_deg: full vertical angle of view.
        distance: of every camera from the origin.
        fit: how the mesh is scaled before it is looked at (see `mesh.normalize`).
    """

    name: str
    directions: NDArray[np.float64]
    fov_y_deg: float = 30.0
    # 2 % of air around the unit sphere: distance = 1.02 / sin(fov / 2).
    distance: float = 1.02 / math.sin(math.radians(15.0))
    fit: Fit = "sphere"

    @property
    def fingerprint(self) -> str:
        """Text that changes when a camera does."""
        places = hashlib.sha256(self.directions.round(6).astype("<f8").tobytes()).hexdigest()[:8]
        return f"{self.name} fov={self.fov_y_deg:g} distance={self.distance:.6g} fit={self.fit} cameras={places}"

    @property
    def n_views(self) -> int:
        """Number of cameras V."""
        return len(self.directions)

    @property
    def is_known(self) -> bool:
        """Whether it is known where the cameras stand, so that a mesh can be looked at from there."""
        return bool(np.isfinite(self.directions).all())

    @property
    def short_name(self) -> str:
        """The name for people, where directions that are listed would fill the screen."""
        listed = self.name.split(",")
        return self.name if len(listed) <= 4 else f"{','.join(listed[:3])},... ({len(listed)} directions)"

    @property
    def azimuths_deg(self) -> NDArray[np.float64]:
        """(V,) angle around +Y in [0, 360): 0 looks from +Z, 90 from +X."""
        x, _, z = self.directions.T
        return np.asarray(np.degrees(np.arctan2(x, z)).round(6) % 360)

    @property
    def elevations_deg(self) -> NDArray[np.float64]:
        """(V,) of each camera above the horizon, in -90..90."""
        return np.asarray(np.degrees(np.arcsin(self.directions[:, 1].clip(-1, 1))))

    @property
    def cam_to_world(self) -> NDArray[np.float32]:
        """(V, 4, 4) camera-to-world matrices."""
        return np.stack([look_at_origin(d * self.distance) for d in self.directions]).astype(np.float32)


def look_at_origin(position: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4, 4) camera-to-world matrix of a camera at `position` that looks at the origin with +Y up.

    Straight above or below, where +Y cannot be up in the picture, -Z is (from above) or +Z (from below).
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
    """Cameras at one elevation, evenly around +Y, the first in front (+Z)."""
    if not 1 <= n_views <= _MAX_VIEWS or not -90 <= elevation_deg <= 90:
        raise RigError(f"a ring takes 1 to {_MAX_VIEWS} views at -90 to 90 degrees, not {n_views} at {elevation_deg:g}")
    elevation_deg = round(elevation_deg, 3) + 0.0  # what the name can say; a worker gets the rig by its name
    return Rig(f"ring:{n_views}@{elevation_deg:g}", _ring_directions(n_views, elevation_deg))


def benchmark_ring() -> Rig:
    """The 24 cameras of the open-set benchmarks OS-ESB, OS-NTU, OS-MN40 and OS-ABO.

    Every 15 degrees at 30 degrees of elevation, distance 3.6, field of view 25 degrees, longest side scaled to 1
    (https://github.com/iMoonLab/HGM2R).
    """
    return Rig("os3dor", _ring_directions(24, 30.0), fov_y_deg=25.0, distance=3.6, fit="extent")


def sphere(n_views: int = 20) -> Rig:
    """Cameras evenly over the sphere (Fibonacci lattice)."""
    if not 1 <= n_views <= _MAX_VIEWS:
        raise RigError(f"a sphere takes 1 to {_MAX_VIEWS} views, not {n_views}")
    k = np.arange(n_views)
    y = 1 - (2 * k + 1) / n_views
    azimuth = k * math.pi * (3 - math.sqrt(5))
    flat = np.sqrt(1 - y**2)
    return Rig(f"sphere:{n_views}", _by_azimuth(np.stack([flat * np.sin(azimuth), y, flat * np.cos(azimuth)], axis=1)))


def random(n_views: int = 12, seed: int = 0) -> Rig:
    """Cameras anywhere on the sphere, drawn by seed: what a careless photographer would take."""
    if not 1 <= n_views <= _MAX_VIEWS:
        raise RigError(f"a random rig takes 1 to {_MAX_VIEWS} views, not {n_views}")
    if seed != int(seed) or seed < 0:
        raise RigError(f"the seed of a random rig is a whole number from 0, not {seed:g}")
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
    """Cameras in front of the six faces of a cube: the sides, the top and the bottom."""
    return Rig(
        "cube", _by_azimuth(np.array([[0, 0, 1], [1, 0, 0], [0, 0, -1], [-1, 0, 0], [0, 1, 0], [0, -1, 0]], float))
    )


def views_of(azimuths_deg: Sequence[float], elevations_deg: Sequence[float]) -> Rig:
    """Cameras of pictures that came with an object, in the pictures' order: `views:0@30,95.5@30,185@-10`."""
    if not 1 <= len(azimuths_deg) <= _MAX_VIEWS:
        raise RigError(f"an object has 1 to {_MAX_VIEWS} views, not {len(azimuths_deg)}: leave some of them out")
    angles = []
    for azimuth, elevation in zip(azimuths_deg, elevations_deg, strict=True):
        if not (math.isfinite(azimuth) and -90 <= elevation <= 90):
            raise RigError(
                f"a view stands at any azimuth and at -90 to 90 degrees of elevation, not at {azimuth:g}@{elevation:g}"
            )
        angles.append((round(azimuth, 3) % 360 + 0.0, round(elevation, 3) + 0.0))  # what the name can say
    rows = [direction_of(azimuth, elevation) for azimuth, elevation in angles]
    listed = ",".join(f"{_plain(azimuth)}@{_plain(elevation)}" for azimuth, elevation in angles)
    return Rig(f"views:{listed}", np.array(rows))


def unknown_views(n_views: int) -> Rig:
    """Pictures that came with an object, and nobody knows from where they were taken: `views:12`."""
    if not 1 <= n_views <= _MAX_VIEWS:
        raise RigError(f"an object has 1 to {_MAX_VIEWS} views, not {n_views}: leave some of them out")
    return Rig(f"views:{n_views}", np.full((n_views, 3), np.nan))


def direction_of(azimuth_deg: float, elevation_deg: float) -> NDArray[np.float64]:
    """(3,) unit vector from the origin to a camera."""
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    flat = math.cos(elevation)
    return np.array([flat * math.sin(azimuth), math.sin(elevation), flat * math.cos(azimuth)])


def _plain(degrees: float) -> str:
    return f"{degrees:.3f}".rstrip("0").rstrip(".")


_RIGS: dict[str, Callable[..., Rig]] = {
    "ring": ring,
    "os3dor": benchmark_ring,
    "sphere": sphere,
    "random": random,
    "dodecahedron": dodecahedron,
    "cube": cube,
}
RIG_EXAMPLES = ("ring:12@30", "os3dor", "sphere:20", "dodecahedron", "cube", "random:12@0")


def parse_rig(text: str) -> Rig:
    """Rig from its name: `ring:12@30`, `os3dor`, `sphere:20`, `dodecahedron`, `cube`, `random:12@0` (seed 0).

    Of views that came as pictures: `views:0@30,95.5@30` (azimuth and elevation of each), `views:12` (directions unknown).

    Raises:
        RigError: the name is unknown or its numbers are out of range.
    """
    if given := re.fullmatch(r"views:(.+)", text.strip().lower()):
        return _parse_views(given.group(1))
    match = re.fullmatch(r"([a-z0-9]+?)(?::(\d+)(?:@(-?\d+(?:\.\d+)?))?)?", text.strip().lower())
    name = match.group(1) if match else text
    if match is None or name not in _RIGS:
        near = get_close_matches(name.split(":")[0], _RIGS, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise RigError(f"unknown rig '{text}': {hint}known are {', '.join(RIG_EXAMPLES)}")
    numbers = [int(match.group(2))] if match.group(2) else []
    angles = [float(match.group(3))] if match.group(3) else []
    if (numbers and name not in ("ring", "sphere", "random")) or (angles and name not in ("ring", "random")):
        raise RigError(f"rig '{name}' takes no such numbers ('{text}'): known are {', '.join(RIG_EXAMPLES)}")
    return _RIGS[name](*numbers, *angles)


def _parse_views(text: str) -> Rig:
    """What stands behind `views:`."""
    if re.fullmatch(r"\d{1,9}", text):
        return unknown_views(int(text))
    pairs = [re.fullmatch(r"(-?\d+(?:\.\d+)?)@(-?\d+(?:\.\d+)?)", part.strip()) for part in text.split(",")]
    found = [(float(pair.group(1)), float(pair.group(2))) for pair in pairs if pair]
    if len(found) < len(pairs):
        raise RigError(
            f"unknown rig 'views:{text[:80]}': name azimuth@elevation of each view (views:0@30,90@30), or how many"
        )
    return views_of([azimuth for azimuth, _ in found], [elevation for _, elevation in found])


def _ring_directions(n_views: int, elevation_deg: float) -> NDArray[np.float64]:
    azimuth = 2 * np.pi * np.arange(n_views) / n_views
    elevation = math.radians(elevation_deg)
    flat = math.cos(elevation)
    return np.stack([flat * np.sin(azimuth), np.full(n_views, math.sin(elevation)), flat * np.cos(azimuth)], axis=1)


def _by_azimuth(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, z = directions.T
    azimuth = np.degrees(np.arctan2(x, z)).round(6) % 360
    return directions[np.lexsort((-y, azimuth))]
