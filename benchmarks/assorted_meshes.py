"""Forty meshes of every kind that renderers treat differently: closed, coloured, textured, open and with tiny parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import trimesh
from numpy.random import Generator
from numpy.typing import NDArray
from trimesh import creation

from mvrender.mesh import Mesh, normalize

N_MESHES = 40


def assorted_meshes() -> Iterator[tuple[str, Mesh]]:
    """Names and normalized meshes; the same each time."""
    for kind, make in (
        ("closed", _closed),
        ("colored", _colored),
        ("textured", _textured),
        ("open", _open),
        ("tiny", _tiny),
    ):
        for seed in range(N_MESHES // 5):
            yield f"{kind}-{seed}", normalize(make(np.random.default_rng([seed, *kind.encode()]), seed))


def _mesh(surface: trimesh.Trimesh, **attributes: Any) -> Mesh:
    return Mesh(surface.vertices.astype(np.float32), surface.faces.astype(np.int32), **attributes)


def _turned(surface: trimesh.Trimesh, rng: Generator) -> trimesh.Trimesh:
    surface.apply_transform(trimesh.transformations.random_rotation_matrix(rng.random(3)))
    return surface


def _solid(rng: Generator, seed: int) -> trimesh.Trimesh:
    """Two solids that intersect."""
    kinds = (
        creation.box(rng.uniform(0.3, 1.5, 3)),
        creation.icosphere(3, rng.uniform(0.3, 0.8)),
        creation.cylinder(rng.uniform(0.2, 0.6), rng.uniform(0.5, 2), sections=24),
        creation.torus(rng.uniform(0.6, 0.9), rng.uniform(0.1, 0.4)),
        creation.cone(rng.uniform(0.3, 0.8), rng.uniform(0.5, 1.5), sections=24),
        creation.capsule(rng.uniform(0.5, 1.5), rng.uniform(0.2, 0.5)),
    )
    other = kinds[(seed + 2) % len(kinds)]
    other.apply_translation(rng.uniform(-0.5, 0.5, 3))
    made: trimesh.Trimesh = _turned(kinds[seed % len(kinds)], rng) + _turned(other, rng)
    return made


def _closed(rng: Generator, seed: int) -> Mesh:
    mesh = _mesh(_solid(rng, seed))
    faces = mesh.faces.copy()
    faces[::3] = faces[::3, ::-1]  # mixed winding
    return replace(mesh, faces=faces)


def _colored(rng: Generator, seed: int) -> Mesh:
    surface = _solid(rng, seed)
    waves = np.sin(surface.vertices * rng.uniform(2, 9, 3) + rng.uniform(0, 6, 3))
    return _mesh(surface, vertex_colors=(127 + 127 * waves).astype(np.uint8))


def _textured(rng: Generator, seed: int) -> Mesh:
    """Corners with coordinates of their own, three smooth textures of odd sizes, and faces without texture."""
    surface = _solid(rng, seed)
    corners = surface.vertices[surface.faces].reshape(-1, 3)
    axis = np.abs(np.repeat(surface.face_normals, 3, axis=0)).argmax(axis=1)
    rows = np.arange(len(corners))
    uv = np.stack([corners[rows, (axis + 1) % 3], corners[rows, (axis + 2) % 3]], axis=1)
    return Mesh(
        corners.astype(np.float32),
        rows.reshape(-1, 3).astype(np.int32),
        vertex_colors=np.full((len(corners), 3), 255, np.uint8) if seed % 2 else None,
        uv=uv.astype(np.float32),
        face_texture=(rows[: len(surface.faces)] % 4 - 1).astype(np.int32),
        textures=tuple(_texture(rng) for _ in range(3)),
    )


def _texture(rng: Generator) -> NDArray[np.uint8]:
    height, width = rng.integers(17, 90, 2)
    down, across = np.mgrid[:height, :width]
    phases = (
        2
        * np.pi
        * (down[..., None] / height * rng.integers(0, 3, 3) + across[..., None] / width * rng.integers(1, 3, 3))
    )
    pixels: NDArray[np.uint8] = (127.5 + 127.5 * np.sin(phases + rng.uniform(0, 6, 3))).astype(np.uint8)
    return pixels


def _open(rng: Generator, seed: int) -> Mesh:
    """Height fields, shells with holes, and crossing sheets."""
    if seed % 2:
        surface = _solid(rng, seed)
        return _mesh(
            trimesh.Trimesh(surface.vertices, surface.faces[rng.random(len(surface.faces)) < 0.7], process=False)
        )
    n = 24
    down, across = np.mgrid[:n, :n] / (n - 1) - 0.5
    height = 0.2 * np.sin(7 * across + rng.uniform(0, 6)) * np.cos(5 * down + rng.uniform(0, 6))
    corner = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    first, second = np.stack([corner, corner + 1, corner + n], 1), np.stack([corner + 1, corner + n + 1, corner + n], 1)
    sheet = trimesh.Trimesh(
        np.stack([across, height, down], -1).reshape(-1, 3), np.concatenate([first, second]), process=False
    )
    return _mesh(sheet + _turned(sheet.copy(), rng))


def _tiny(rng: Generator, seed: int) -> Mesh:
    """A large part and fifty parts of a few pixels, or of less than one."""
    parts = [creation.box(rng.uniform(0.2, 1.0, 3))]
    for _ in range(50):
        part = (
            creation.box(rng.uniform(0.002, 0.05, 3)) if seed % 2 else creation.icosphere(1, rng.uniform(0.002, 0.03))
        )
        part.apply_translation(rng.uniform(-1, 1, 3))
        parts.append(part)
    return _mesh(trimesh.util.concatenate(parts))
