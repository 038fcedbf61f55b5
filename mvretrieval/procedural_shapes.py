"""Procedural shapes: twelve classes of coloured objects with random proportions, as offline demo data."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import trimesh
from numpy.random import Generator
from trimesh import creation
from trimesh.transformations import rotation_matrix

from mvretrieval.errors import CollectionError

PER_CLASS = 20

_Color = tuple[int, int, int]
_WOODS: tuple[_Color, ...] = ((133, 94, 66), (181, 137, 94), (92, 64, 51), (205, 170, 125))
_PAINTS: tuple[_Color, ...] = (
    (200, 60, 50), (50, 110, 190), (70, 150, 80), (230, 180, 50), (120, 80, 160), (235, 235, 230), (60, 60, 65), (235, 130, 60),
)  # fmt: skip
_METALS: tuple[_Color, ...] = ((150, 155, 160), (90, 95, 100), (185, 160, 95))
_GREENS: tuple[_Color, ...] = ((60, 120, 60), (90, 150, 70), (45, 95, 75), (130, 160, 60))


class _Builder:
    """Collects coloured parts; +Y is up, units are arbitrary."""

    def __init__(self, rng: Generator) -> None:
        self.rng = rng
        self.parts: list[trimesh.Trimesh] = []

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def whole(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def pick(self, colors: tuple[_Color, ...]) -> _Color:
        base = np.array(colors[self.rng.integers(len(colors))]) + self.rng.integers(-12, 13, 3)
        r, g, b = base.clip(0, 255)
        return int(r), int(g), int(b)

    def add(
        self,
        mesh: trimesh.Trimesh,
        color: _Color,
        at: tuple[float, float, float] = (0, 0, 0),
        turn: tuple[float, tuple[float, float, float]] | None = None,
    ) -> None:
        if turn is not None:
            mesh.apply_transform(rotation_matrix(np.radians(turn[0]), turn[1]))
        mesh.apply_translation(at)
        mesh.visual = trimesh.visual.ColorVisuals(mesh, face_colors=np.tile([*color, 255], (len(mesh.faces), 1)))
        self.parts.append(mesh)

    def box(
        self,
        size: tuple[float, float, float],
        color: _Color,
        at: tuple[float, float, float],
        **k: tuple[float, tuple[float, float, float]],
    ) -> None:
        self.add(creation.box(size), color, at, k.get("turn"))

    def rod(
        self, radius: float, height: float, color: _Color, at: tuple[float, float, float], sections: int = 20
    ) -> None:
        """Add an upright cylinder centred at `at`."""
        self.add(creation.cylinder(radius, height, sections=sections), color, at, (-90, (1, 0, 0)))

    def lathe(
        self, profile: list[tuple[float, float]], color: _Color, at: tuple[float, float, float] = (0, 0, 0)
    ) -> None:
        """Add a surface of revolution of (radius, height) points around +Y."""
        self.add(creation.revolve(np.array(profile), sections=28), color, at, (-90, (1, 0, 0)))

    def ball(self, radii: tuple[float, float, float], color: _Color, at: tuple[float, float, float]) -> None:
        mesh = creation.icosphere(subdivisions=2)
        mesh.apply_scale(radii)
        self.add(mesh, color, at)


def _chair(b: _Builder) -> None:
    wood, seat = b.pick(_WOODS), b.between(0.8, 1.2)
    width, back, thick = b.between(0.8, 1.1), b.between(0.7, 1.3), b.between(0.05, 0.09)
    b.box((width, 0.1, width), b.pick(_PAINTS), (0, seat, 0))
    for x in (-1, 1):
        for z in (-1, 1):
            b.rod(thick, seat, wood, (x * width * 0.42, seat / 2, z * width * 0.42))
    if b.rng.random() < 0.5:
        b.box((width, back, 0.08), wood, (0, seat + back / 2, -width * 0.46))
    else:
        n = b.whole(3, 5)
        for i in range(n):
            b.rod(thick * 0.8, back, wood, ((i / (n - 1) - 0.5) * width * 0.9, seat + back / 2, -width * 0.46))
        b.box((width, 0.14, 0.1), wood, (0, seat + back, -width * 0.46))
    if b.rng.random() < 0.4:
        for x in (-1, 1):
            b.box((0.1, 0.08, width * 0.9), wood, (x * width * 0.48, seat + 0.4, 0))


def _table(b: _Builder) -> None:
    wood, height = b.pick(_WOODS), b.between(0.7, 1.0)
    length, depth = b.between(1.2, 2.4), b.between(0.8, 1.2)
    if b.rng.random() < 0.4:
        b.rod(depth * 0.7, 0.08, wood, (0, height, 0), 36)
        b.rod(0.09, height, wood, (0, height / 2, 0))
        b.rod(depth * 0.4, 0.06, wood, (0, 0.03, 0), 30)
        return
    b.box((length, 0.08, depth), wood, (0, height, 0))
    for x in (-1, 1):
        for z in (-1, 1):
            b.box((0.09, height, 0.09), wood, (x * length * 0.45, height / 2, z * depth * 0.42))


def _lamp(b: _Builder) -> None:
    metal, tall = b.pick(_METALS), b.between(1.0, 2.4)
    b.rod(b.between(0.25, 0.4), 0.07, metal, (0, 0.035, 0), 30)
    b.rod(0.04, tall, metal, (0, tall / 2, 0))
    top, bottom = b.between(0.12, 0.3), b.between(0.35, 0.55)
    b.lathe([(bottom, 0), (top, b.between(0.35, 0.6))], b.pick(_PAINTS), (0, tall - 0.1, 0))


def _mug(b: _Builder) -> None:
    color, radius, tall = b.pick(_PAINTS), b.between(0.35, 0.5), b.between(0.7, 1.2)
    b.lathe(
        [
            (0.001, 0),
            (radius * b.between(0.8, 1), 0),
            (radius, tall),
            (radius * 0.9, tall),
            (radius * 0.8, 0.08),
            (0.001, 0.08),
        ],
        color,
    )
    handle = creation.torus(b.between(0.2, 0.3), 0.06, major_sections=24, minor_sections=10)
    b.add(handle, color, (radius + 0.1, tall * 0.5, 0))


def _bottle(b: _Builder) -> None:
    r, body, neck = b.between(0.25, 0.4), b.between(0.8, 1.4), b.between(0.07, 0.13)
    tall = body + b.between(0.25, 0.5)
    color = b.pick(_GREENS if b.rng.random() < 0.5 else _PAINTS)
    b.lathe([(0.001, 0), (r, 0), (r, body), (neck, tall), (neck, tall + 0.35), (0.001, tall + 0.35)], color)
    b.rod(neck * 1.15, 0.12, b.pick(_METALS), (0, tall + 0.4, 0))
    b.rod(r * 1.01, body * 0.5, b.pick(_PAINTS), (0, body * 0.5, 0), 28)


def _car(b: _Builder) -> None:
    paint, dark = b.pick(_PAINTS), (40, 40, 44)
    length, width, low = b.between(1.9, 2.6), b.between(0.85, 1.05), b.between(0.35, 0.5)
    b.box((length, low, width), paint, (0, 0.3 + low / 2, 0))
    cabin, high = length * b.between(0.4, 0.6), b.between(0.3, 0.5)
    b.box((cabin, high, width * 0.9), (150, 190, 215), (-length * b.between(0, 0.1), 0.3 + low + high / 2, 0))
    b.box((cabin * 0.96, 0.06, width * 0.92), paint, (-length * 0.05, 0.3 + low + high, 0))
    wheel = b.between(0.24, 0.32)
    for x in (-1, 1):
        for z in (-1, 1):
            b.add(creation.cylinder(wheel, 0.18, sections=22), dark, (x * length * 0.33, wheel, z * width * 0.5))


def _plane(b: _Builder) -> None:
    paint, trim = b.pick(_PAINTS), b.pick(_PAINTS)
    long, thick, span = b.between(1.4, 2.0), b.between(0.14, 0.22), b.between(1.8, 2.8)
    b.ball((long, thick, thick), paint, (0, 0, 0))
    chord = b.between(0.35, 0.55)
    b.box((chord, 0.05, span), trim, (0.1, b.between(-0.05, 0.12), 0))
    b.box((chord * 0.55, 0.04, span * 0.35), trim, (-long * 0.88, 0.08, 0))
    b.box((chord * 0.6, 0.45, 0.04), trim, (-long * 0.9, 0.25, 0))
    if b.rng.random() < 0.5:
        b.box((0.04, 0.6, 0.08), (60, 60, 60), (long, 0, 0), turn=(b.between(0, 90), (1, 0, 0)))
    else:
        for z in (-1, 1):
            b.add(
                creation.cylinder(0.1, 0.45, sections=16),
                b.pick(_METALS),
                (0.1, -0.12, z * span * 0.25),
                (90, (0, 1, 0)),
            )


def _tree(b: _Builder) -> None:
    trunk, green, tall = b.pick(_WOODS), b.pick(_GREENS), b.between(0.5, 1.1)
    b.rod(b.between(0.08, 0.16), tall, trunk, (0, tall / 2, 0))
    if b.rng.random() < 0.5:
        n, wide = b.whole(2, 4), b.between(0.55, 0.8)
        for i in range(n):
            r = wide * (1 - i / (n + 1))
            b.lathe([(r, 0), (0.001, 0.8)], green, (0, tall * 0.8 + i * 0.45, 0))
    else:
        for _ in range(b.whole(3, 6)):
            r = b.between(0.35, 0.6)
            b.ball((r, r * 0.9, r), green, (b.between(-0.3, 0.3), tall + b.between(0.2, 0.8), b.between(-0.3, 0.3)))


def _house(b: _Builder) -> None:
    wall, roof = b.pick(((235, 225, 205), (210, 190, 170), (220, 220, 225), (190, 120, 95))), b.pick(_PAINTS)
    w, h, d, rise = b.between(1.2, 2.0), b.between(0.8, 1.6), b.between(1.0, 1.4), b.between(0.4, 0.9)
    b.box((w, h, d), wall, (0, h / 2, 0))
    profile = ((h, -d * 0.58), (h, d * 0.58), (h + rise, 0))
    corners = [(x, y, z) for x in (-w * 0.56, w * 0.56) for y, z in profile]
    sides = [(0, 1, 2), (3, 5, 4), (0, 3, 4), (0, 4, 1), (1, 4, 5), (1, 5, 2), (2, 5, 3), (2, 3, 0)]
    b.add(trimesh.Trimesh(corners, sides), roof)
    b.box((0.28, 0.55, 0.04), b.pick(_WOODS), (b.between(-0.3, 0.3), 0.275, d / 2))
    for x in (-0.34, 0.34):
        b.box((0.25, 0.25, 0.04), (140, 180, 205), (x * w, h * 0.68, d / 2))
    b.box((0.18, 0.6, 0.18), (150, 90, 75), (w * 0.3, h + rise * 0.8, d * 0.15))


def _rocket(b: _Builder) -> None:
    body, trim, r, tall = b.pick(_PAINTS), b.pick(_PAINTS), b.between(0.22, 0.36), b.between(1.3, 2.2)
    b.lathe([(0.001, 0), (r * 0.8, 0), (r, tall * 0.4), (r * 0.9, tall * 0.8)], body, (0, 0.25, 0))
    b.lathe([(r * 0.9, 0), (0.001, b.between(0.4, 0.7))], trim, (0, 0.25 + tall * 0.8, 0))
    n = b.whole(3, 4)
    for i in range(n):
        angle = 360 * i / n
        x, z = np.cos(np.radians(angle)), -np.sin(np.radians(angle))
        b.box((0.4, 0.5, 0.05), trim, (x * r * 1.3, 0.35, z * r * 1.3), turn=(angle, (0, 1, 0)))
    b.lathe([(r * 0.6, 0), (r * 0.4, 0.25)], (70, 70, 75))


def _snowman(b: _Builder) -> None:
    white, y, r = (238, 240, 245), 0.0, b.between(0.5, 0.65)
    for i in range(b.whole(2, 3)):
        y += r * (0.9 if i == 0 else 0.8)
        b.ball((r, r, r), white, (0, y, 0))
        y += r * 0.75
        r *= b.between(0.65, 0.8)
    head = y - r * 0.6
    b.add(creation.cone(0.07, 0.4, sections=12), (235, 130, 40), (0, head, r * 0.9))
    b.rod(r * 1.2, 0.05, (45, 45, 50), (0, y + 0.03, 0))
    b.rod(r * 0.75, b.between(0.25, 0.5), (45, 45, 50), (0, y + 0.2, 0))


def _gear(b: _Builder) -> None:
    metal, r, thick, teeth = b.pick(_METALS), b.between(0.6, 0.9), b.between(0.15, 0.35), b.whole(8, 18)
    b.add(creation.annulus(r * b.between(0.25, 0.5), r, thick, sections=40), metal)
    for i in range(teeth):
        angle = 360 * i / teeth
        x, y = np.cos(np.radians(angle)) * r * 1.05, np.sin(np.radians(angle)) * r * 1.05
        b.box((r * 0.22, 2.4 * r / teeth, thick), metal, (x, y, 0), turn=(angle, (0, 0, 1)))


CLASSES: dict[str, Callable[[_Builder], None]] = {
    "chair": _chair, "table": _table, "lamp": _lamp, "mug": _mug, "bottle": _bottle, "car": _car, "plane": _plane,
    "tree": _tree, "house": _house, "rocket": _rocket, "snowman": _snowman, "gear": _gear,
}  # fmt: skip


def make_object(class_name: str, seed: int) -> trimesh.Trimesh:
    """Make one object of a class; the same seed gives the same object."""
    builder = _Builder(np.random.default_rng([seed, *class_name.encode()]))
    CLASSES[class_name](builder)
    mesh: trimesh.Trimesh = trimesh.util.concatenate(builder.parts)
    # A random heading: retrieval should not depend on it.
    mesh.apply_transform(rotation_matrix(builder.between(0, 2 * np.pi), (0, 1, 0)))
    return mesh


def write_objects(folder: Path, per_class: int = PER_CLASS) -> int:
    """Write GLB files, one folder per class, and `labels.csv`.

    Returns:
        Number of objects.

    Raises:
        CollectionError: the folder cannot be written (`folder_not_writable`).
    """
    count = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "labels.csv").open("w", newline="") as table:
            writer = csv.writer(table)
            writer.writerow(["file", "label"])
            for name in CLASSES:
                (folder / name).mkdir(exist_ok=True)
                for seed in range(per_class):
                    file = f"{name}/{name}_{seed:02d}.glb"
                    (folder / file).write_bytes(make_object(name, seed).export(file_type="glb"))
                    writer.writerow([file, name])
                    count += 1
    except OSError as error:
        raise CollectionError(f"{folder} cannot be written: {error.strerror}", code="folder_not_writable") from error
    return count
