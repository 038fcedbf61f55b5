"""Meshes made in code, objects without meshes, and the configuration of a fast describer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from mvretrieval.describe import DescriberConfig
from mvretrieval.store.store import NewObject

SMALL = DescriberConfig(encoder="builtin:", rig="ring:3@30", size=64)


def box(*extents: float) -> trimesh.Trimesh:
    return trimesh.creation.box(extents=extents)


def shape(n: int) -> trimesh.Trimesh:
    """Shape n: boxes, balls, cones and rings of many proportions, all different."""
    size = 1 + n // 4 * 0.37
    makers = (
        lambda: box(1, size, 0.4),
        lambda: trimesh.creation.icosphere(subdivisions=1).apply_scale([1, size, 0.7]),
        lambda: trimesh.creation.cone(radius=0.5, height=size, sections=12),
        lambda: trimesh.creation.torus(major_radius=size, minor_radius=0.3, major_sections=12, minor_sections=6),
    )
    return makers[n % 4]()


def write_shapes(folder: Path, numbers: Iterable[int], suffix: str = "ply") -> list[Path]:
    """Write one file per number: `shape-003.ply`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"shape-{n:03d}.{suffix}" for n in numbers]
    for n, path in zip(numbers, paths, strict=True):
        shape(n).export(path)
    return paths


def new_object(name: str, vector: Iterable[float] = (1.0, 0.0), faces: int | None = 12) -> NewObject:
    """An object to be stored, as if a file `name` had been rendered and encoded."""
    values: NDArray[np.float32] = np.array(list(vector), np.float32)
    return NewObject(
        id=name,
        path=f"/meshes/{name}",
        content_hash=f"content of {name}",
        stat="[[1, 2]]",
        facts={"format": "ply", "faces": faces, "vertices": 8, "textured": False, "up": "+y"},
        notes=(),
        vector=values,
        view_vectors=np.ones((1, 3, len(values)), np.float16),
        view_mask=np.array([True, True, False]),
        strip=b"",
    )


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)
