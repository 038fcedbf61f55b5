"""The view manifest: a CSV with one row per view image, and the rig of its directions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mvrender.cameras import Rig, cube, direction_of, dodecahedron, rig_from_angles, rig_of_unknown_views, ring, sphere
from mvretrieval.csv_file import read_csv
from mvretrieval.errors import ViewsError
from mvretrieval.ingest.scan import absolute

_NEEDED = ("id", "file")
_DIRECTIONS = ("azimuth_deg", "elevation_deg")
# Cameras closer than this are the same camera: manifests round their angles.
_SAME_DIRECTION = math.cos(math.radians(0.1))

Angles = tuple[tuple[float, float], ...]
"""Azimuth and elevation of each view in degrees."""


@dataclass(frozen=True)
class ManifestObject:
    """An object of the manifest.

    Attributes:
        id: as in the manifest.
        path: the folder of its views if no other object uses it, otherwise its first image; absolute.
        images: absolute, in the order of the rows.
        angles: of each image; empty if the manifest has no directions.
    """

    id: str
    path: str
    images: tuple[str, ...]
    angles: Angles = ()


@dataclass(frozen=True)
class ViewManifest:
    """The content of a view manifest.

    Attributes:
        path: of the CSV file, absolute.
        objects: in the order of their first rows.
        has_directions: whether it has the directions of the views.
    """

    path: Path
    objects: tuple[ManifestObject, ...]
    has_directions: bool


def read_view_manifest(path: str | Path) -> ViewManifest:
    """Read a CSV with the columns `id`, `file` (relative to the CSV), `azimuth_deg` and `elevation_deg`.

    A camera at azimuth 0 is in front of the object (+Z), at 90 on its +X side; elevation is above the horizon. Without
    both columns the directions are unknown.

    Raises:
        ViewsError: the manifest cannot be read, a column is missing, or a cell is empty or not a number.
    """
    path = absolute(Path(path))
    names, rows = read_csv(path, "the view manifest", _NEEDED, ViewsError)
    stated = [name for name in _DIRECTIONS if name in names]
    if len(stated) == 1:
        raise ViewsError(
            f"the view manifest {path} has only one of the columns {' and '.join(_DIRECTIONS)}, '{stated[0]}': give both, or "
            "neither if the directions are unknown",
            code="half_of_directions",
        )
    images: dict[str, list[str]] = {}
    angles: dict[str, list[tuple[float, float]]] = {}
    for line, row in rows:
        where = f"view manifest {path}, line {line}"
        id, file = ((row.get(name) or "").strip() for name in _NEEDED)
        if not id or not file:
            raise ViewsError(
                f"{where}: the cell '{'file' if id else 'id'}' is empty: fill it, or remove the row", code="empty_cell"
            )
        images.setdefault(id, []).append(str(absolute(path.parent / file)))
        if stated:
            angles.setdefault(id, []).append((_angle(row, "azimuth_deg", where), _angle(row, "elevation_deg", where)))
    if not images:
        raise ViewsError(f"the view manifest {path} has no rows: give one per image", code="no_rows")
    paths = _paths(path, images)
    objects = tuple(ManifestObject(id, paths[id], tuple(own), tuple(angles.get(id, ()))) for id, own in images.items())
    return ViewManifest(path, objects, bool(stated))


def rig_of(manifest: ViewManifest) -> Rig:
    """The cameras of most objects in a manifest: a named rig if they match one, otherwise their list.

    Raises:
        RigError: there are too many views.
    """
    if not manifest.has_directions:
        return rig_of_unknown_views(max(len(entry.images) for entry in manifest.objects))
    counts = Counter(entry.angles for entry in manifest.objects)
    angles = max(counts, key=lambda angles: (counts[angles], len(angles)))
    listed = rig_from_angles([azimuth for azimuth, _ in angles], [elevation for _, elevation in angles])
    elevations = [elevation for _, elevation in angles]
    known = [ring(len(angles), sum(elevations) / len(elevations)), sphere(len(angles)), dodecahedron(), cube()]
    return next((rig for rig in known if _is_same(rig, listed)), listed)


class ViewSlots:
    """Assigns the images of an object to views of a rig."""

    def __init__(self, rig: Rig, in_rig_order: bool = False) -> None:
        """Prepare for the objects of one collection.

        Args:
            rig: of the collection.
            in_rig_order: images without directions are in the order of the rig's views.
        """
        self._rig = rig
        self._in_rig_order = in_rig_order
        self._found: dict[Angles, tuple[int, ...] | str] = {}

    def of(self, entry: ManifestObject) -> tuple[int, ...] | str:
        """Index of each image's view in the rig, or a message if they do not fit."""
        n = len(entry.images)
        if n > self._rig.n_views:
            return f"it has {n} views, the collection's rig {self._rig.n_views}: remove some, or index it into another collection"
        if not self._rig.is_known:
            return tuple(range(n))
        if not entry.angles:
            if self._in_rig_order and n == self._rig.n_views:
                return tuple(range(n))
            return f"it has {n} views without directions, {self._rig.short_name} has {self._rig.n_views}: add the columns of angles"
        if entry.angles not in self._found:
            self._found[entry.angles] = self._match(entry.angles)
        return self._found[entry.angles]

    def _match(self, angles: Angles) -> tuple[int, ...] | str:
        near = np.array([direction_of(*own) for own in angles]) @ self._rig.directions.T
        slots: list[int] = []
        for (azimuth, elevation), row in zip(angles, near, strict=True):
            row[slots] = -np.inf
            best = int(row.argmax())
            if row[best] < _SAME_DIRECTION:
                there = (
                    "no camera"
                    if row.max() > -np.inf and not (near[len(slots)] == -np.inf).any()
                    else "no other camera"
                )
                return (
                    f"{there} of {self._rig.short_name} is at azimuth {azimuth:g}, elevation {elevation:g}: remove the view, or "
                    "give the rig of all objects with --rig in a new collection"
                )
            slots.append(best)
        return tuple(slots)


def _is_same(rig: Rig, other: Rig) -> bool:
    if rig.directions.shape != other.directions.shape:
        return False
    return bool(((rig.directions * other.directions).sum(axis=1) > _SAME_DIRECTION).all())


def _angle(row: dict[str, str], name: str, where: str) -> float:
    cell = (row.get(name) or "").strip()
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (name == "elevation_deg" and not -90 <= value <= 90):
        expected = "degrees from -90 to 90" if name == "elevation_deg" else "degrees"
        raise ViewsError(
            f"{where}: {name} is a number of {expected}, not '{cell}': fix it, or remove both columns of angles",
            code="bad_angle",
        )
    return value


def _paths(manifest: Path, images: dict[str, list[str]]) -> dict[str, str]:
    """Path of each object. It depends on the manifest alone, so that it does not change with the files."""
    users = Counter(folder for own in images.values() for folder in {str(Path(image).parent) for image in own})
    found: dict[str, str] = {}
    taken: dict[str, str] = {}
    for id, own in images.items():
        path = _path(str(absolute(manifest.parent / id)), own, users)
        other = taken.setdefault(path, id)
        if other != id:
            raise ViewsError(
                f"view manifest {manifest}: the objects '{other}' and '{id}' both begin with {path}: give each its own images, or "
                "both the same id",
                code="shared_image",
            )
        found[id] = path
    return found


def _path(folder: str, images: Sequence[str], users: Counter[str]) -> str:
    if all(image.startswith(f"{folder}/") for image in images):
        return folder
    parents = {str(Path(image).parent) for image in images}
    if len(parents) == 1 and users[next(iter(parents))] == 1:
        return parents.pop()
    return images[0]
