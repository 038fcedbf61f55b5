"""Views that come as pictures: a CSV with a row for each, and the rig that its directions make."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mvrender.cameras import Rig, cube, direction_of, dodecahedron, ring, sphere, unknown_views, views_of
from mvretrieval.errors import ViewsError
from mvretrieval.ingest.scan import absolute

_NEEDED = ("id", "file")
_DIRECTIONS = ("azimuth_deg", "elevation_deg")
# Cameras that are nearer than this are one camera: CSVs round their angles.
_SAME_DIRECTION = math.cos(math.radians(0.1))

Angles = tuple[tuple[float, float], ...]
"""Azimuth and elevation of each view in degrees."""


@dataclass(frozen=True)
class ManifestObject:
    """An object of the CSV.

    Attributes:
        id: as the CSV says.
        path: the folder of its views if it has one of its own, its first picture otherwise; absolute.
        images: absolute, in the order of the rows.
        angles: of each picture; none where the CSV has no directions.
    """

    id: str
    path: str
    images: tuple[str, ...]
    angles: Angles = ()


@dataclass(frozen=True)
class ViewManifest:
    """What a CSV of views says.

    Attributes:
        path: of the CSV, absolute.
        objects: in the order of their first rows.
        has_directions: whether it says where the cameras stood.
    """

    path: Path
    objects: tuple[ManifestObject, ...]
    has_directions: bool


def read_view_manifest(path: str | Path) -> ViewManifest:
    """Read a CSV with the columns `id`, `file` (relative to the CSV), `azimuth_deg` and `elevation_deg`.

    Azimuth 0 looks at the object from the front (+Z), 90 from +X; elevation is above the horizon. Both columns may be left
    out: the directions are unknown then.

    Raises:
        ViewsError: the CSV cannot be read, a column is missing, or a row says nothing useful.
    """
    path = absolute(Path(path))
    names, rows = _rows(path)
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise ViewsError(
            f"views {path} have no column '{missing[0]}' (they have {', '.join(names[:20]) or 'none'}): give a row for each "
            "picture with the columns id, file, azimuth_deg, elevation_deg, and commas between them"
        )
    stated = [name for name in _DIRECTIONS if name in names]
    if len(stated) == 1:
        raise ViewsError(
            f"views {path} have the column '{stated[0]}' alone: give {' and '.join(_DIRECTIONS)}, or neither where the "
            "directions are unknown"
        )
    pictures: dict[str, list[str]] = {}
    angles: dict[str, list[tuple[float, float]]] = {}
    for line, row in rows:
        where = f"views {path}, line {line}"
        id, file = ((row.get(name) or "").strip() for name in _NEEDED)
        if not id or not file:
            raise ViewsError(f"{where}: the cell '{'file' if id else 'id'}' is empty; fill it, or take the row out")
        pictures.setdefault(id, []).append(str(absolute(path.parent / file)))
        if stated:
            angles.setdefault(id, []).append((_angle(row, "azimuth_deg", where), _angle(row, "elevation_deg", where)))
    if not pictures:
        raise ViewsError(f"views {path} have no rows: give one for each picture")
    paths = _paths(path, pictures)
    objects = tuple(
        ManifestObject(id, paths[id], tuple(own), tuple(angles.get(id, ()))) for id, own in pictures.items()
    )
    return ViewManifest(path, objects, bool(stated))


def rig_of(views: ViewManifest) -> Rig:
    """The cameras that most objects of a CSV were seen from: a known rig where they are one, their list otherwise.

    Raises:
        RigError: there are too many views.
    """
    if not views.has_directions:
        return unknown_views(max(len(given.images) for given in views.objects))
    counts = Counter(given.angles for given in views.objects)
    angles = max(counts, key=lambda angles: (counts[angles], len(angles)))
    listed = views_of([azimuth for azimuth, _ in angles], [elevation for _, elevation in angles])
    elevations = [elevation for _, elevation in angles]
    known = [ring(len(angles), sum(elevations) / len(elevations)), sphere(len(angles)), dodecahedron(), cube()]
    return next((rig for rig in known if _is_same(rig, listed)), listed)


class Slots:
    """Which of a rig's views an object's pictures are."""

    def __init__(self, rig: Rig, in_rig_order: bool = False) -> None:
        """For objects of one collection.

        Args:
            rig: of the collection.
            in_rig_order: pictures without directions are the rig's views in order.
        """
        self._rig = rig
        self._in_rig_order = in_rig_order
        self._found: dict[Angles, tuple[int, ...] | str] = {}

    def of(self, given: ManifestObject) -> tuple[int, ...] | str:
        """Index of each picture's view in the rig, or what is wrong with them."""
        n = len(given.images)
        if n > self._rig.n_views:
            return f"it has {n} views and the collection's objects {self._rig.n_views}; take some out, or index it elsewhere"
        if not self._rig.is_known:
            return tuple(range(n))
        if not given.angles:
            if self._in_rig_order and n == self._rig.n_views:
                return tuple(range(n))
            return (
                f"it has {n} views of unknown direction, {self._rig.short_name} {self._rig.n_views}; say which they are"
            )
        if given.angles not in self._found:
            self._found[given.angles] = self._match(given.angles)
        return self._found[given.angles]

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
                    else "no further camera"
                )
                return (
                    f"{there} of {self._rig.short_name} stands at azimuth {azimuth:g}, elevation {elevation:g}; take the view out, "
                    "or name the rig of all objects with --rig in a new collection"
                )
            slots.append(best)
        return tuple(slots)


def _is_same(rig: Rig, other: Rig) -> bool:
    if rig.directions.shape != other.directions.shape:
        return False
    return bool(((rig.directions * other.directions).sum(axis=1) > _SAME_DIRECTION).all())


def _rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Names of the columns, and (line, row) of each row."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if "\0" in text:
            raise ViewsError(f"views {path} hold NUL characters: save them as UTF-8 text")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        names = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = names
        return names, [(reader.line_num, row) for row in reader]
    except UnicodeDecodeError as error:
        raise ViewsError(f"views {path} cannot be read: {error}; save them as UTF-8") from error
    except (OSError, csv.Error) as error:
        raise ViewsError(f"views {path} cannot be read: {error}; name a CSV with the columns id and file") from error


def _angle(row: dict[str, str], name: str, where: str) -> float:
    cell = (row.get(name) or "").strip()
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (name == "elevation_deg" and not -90 <= value <= 90):
        needs_views = "degrees from -90 to 90" if name == "elevation_deg" else "degrees"
        raise ViewsError(
            f"{where}: {name} is a number of {needs_views}, not '{cell}'; mend it, or leave both columns of angles out"
        )
    return value


def _paths(views: Path, pictures: dict[str, list[str]]) -> dict[str, str]:
    """Path of each object, by what the CSV says alone, so that it stays when files come and go."""
    users = Counter(folder for own in pictures.values() for folder in {str(Path(picture).parent) for picture in own})
    found: dict[str, str] = {}
    taken: dict[str, str] = {}
    for id, own in pictures.items():
        path = _path(str(absolute(views.parent / id)), own, users)
        other = taken.setdefault(path, id)
        if other != id:
            raise ViewsError(
                f"views {views}: the objects '{other}' and '{id}' both begin with {path}: give each pictures of its own, or both "
                "one id"
            )
        found[id] = path
    return found


def _path(folder: str, pictures: Sequence[str], users: Counter[str]) -> str:
    if all(picture.startswith(f"{folder}/") for picture in pictures):
        return folder
    parents = {str(Path(picture).parent) for picture in pictures}
    if len(parents) == 1 and users[next(iter(parents))] == 1:
        return parents.pop()
    return pictures[0]
