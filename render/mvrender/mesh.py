"""Meshes for rendering: triangles, colours and textures; validation, up axis and normalization."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mvrender.errors import MeshError

UpAxis = Literal["+x", "-x", "+y", "-y", "+z", "-z"]
Fit = Literal["sphere", "extent"]

# Rotation matrices that map each axis to +Y.
_TO_Y_UP: dict[str, NDArray[np.float32]] = {
    "+y": np.eye(3, dtype=np.float32),
    "-y": np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1]], np.float32),
    "+z": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32),
    "-z": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.float32),
    "+x": np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]], np.float32),
    "-x": np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], np.float32),
}
UP_AXES = tuple(_TO_Y_UP)
NO_FACES = "the file has no triangles, and points and lines are not rendered; export its surfaces as a mesh"
"""Message of a file with points, lines or nothing."""


@dataclass(frozen=True)
class Limits:
    """Resources that one file may use; beyond them it fails.

    Attributes:
        max_file_bytes: size of the file.
        max_faces: triangles of the flattened scene.
        max_texture_pixels: pixels of one texture; larger ones are omitted with a note.
        seconds: time for loading and rendering.
        memory_bytes: memory that a worker may allocate.
    """

    max_file_bytes: int = 4 << 30
    max_faces: int = 12_000_000
    max_texture_pixels: int = 20_000 * 20_000
    seconds: float = 120.0
    memory_bytes: int = 8 << 30


@dataclass(frozen=True)
class Mesh:
    """Triangles with colours, in any coordinate frame.

    Attributes:
        vertices: (n, 3) float32.
        faces: (m, 3) int32.
        vertex_colors: (n, 3) uint8 sRGB, multiplied by the material colours; None if the file has no colours.
        uv: (n, 2) float32, v upwards, or None.
        face_texture: (m,) int32 index into `textures`, -1 for faces without texture; or None.
        textures: each (h, w, 3) uint8 sRGB, transparent parts composited over white; or (h, w, 4), with alpha 0 where the surface
            has holes, and 255 elsewhere.
        notes: what was omitted while loading, one sentence each.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    vertex_colors: NDArray[np.uint8] | None = None
    uv: NDArray[np.float32] | None = None
    face_texture: NDArray[np.int32] | None = None
    textures: tuple[NDArray[np.uint8], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def has_color(self) -> bool:
        """Whether the file has colours or textures."""
        return self.vertex_colors is not None or bool(self.textures)

    @property
    def has_holes(self) -> bool:
        """Whether a texture has holes."""
        return any(texture.shape[2] == 4 for texture in self.textures)


def check(mesh: Mesh) -> None:
    """Check that a mesh can be rendered.

    Raises:
        MeshError: no faces, indices out of range, or vertices that are NaN or infinite.
    """
    if len(mesh.faces) == 0:
        raise MeshError("no_faces", NO_FACES)
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise MeshError(
            "bad_indices",
            f"faces use vertices {mesh.faces.min()} to {mesh.faces.max()}, but there are {len(mesh.vertices)}",
        )
    bad = int((~np.isfinite(mesh.vertices).all(axis=1)).sum())
    if bad:
        raise MeshError(
            "not_finite",
            f"{bad} of {len(mesh.vertices)} vertices are NaN, infinite or beyond float32; repair the mesh in an editor",
        )


def rotate_to_y_up(mesh: Mesh, up: UpAxis) -> Mesh:
    """Rotate a mesh whose up axis is `up` so that +Y is up."""
    if up == "+y":
        return mesh
    return replace(mesh, vertices=np.ascontiguousarray(mesh.vertices @ _TO_Y_UP[up].T))


def normalize(mesh: Mesh, fit: Fit = "sphere") -> Mesh:
    """Centre and scale a mesh.

    Args:
        mesh: mesh in any coordinate frame.
        fit: `sphere` maps the smallest enclosing ball to the unit ball; `extent` maps the centre of the bounding box to the
            origin and its longest side to length 1, as in the open-set benchmarks.

    Raises:
        MeshError: see `check`; `degenerate` where all vertices coincide.
    """
    check(mesh)
    used = np.zeros(len(mesh.vertices), bool)
    used[mesh.faces.ravel()] = True
    points = mesh.vertices[used].astype(np.float64)
    if fit == "extent":
        low, high = points.min(axis=0), points.max(axis=0)
        centre, size = (low + high) / 2, float((high - low).max())
    else:
        centre, size = enclosing_ball(points)
    magnitude = float(np.abs(points).max())
    if size <= 1e-7 * magnitude or size == 0.0:
        raise MeshError("degenerate", "all vertices lie in one point, so there is nothing to render")
    # Vertices that no face uses do not count for the fit, and are not rendered.
    vertices = ((mesh.vertices - centre) / size).astype(np.float32)
    return replace(mesh, vertices=vertices)


def enclosing_ball(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Compute the smallest enclosing ball: centre (3,) and radius.

    Exact up to rounding, and therefore equivariant to rotations. Keeps a support of at most four points, and exchanges one
    for the farthest point outside until none is outside (Gärtner 1999, without move-to-front).
    """
    support = points[:1]
    centre, radius = points[0], 0.0
    for _ in range(100):  # grows strictly each time; about ten rounds in practice
        squared = ((points - centre) ** 2).sum(axis=1)
        far = int(squared.argmax())
        distance = float(np.sqrt(squared[far]))
        if distance <= radius * (1 + 1e-9):
            break
        support, centre, grown = _ball_of_few(np.vstack([support, points[far : far + 1]]))
        if grown <= radius:  # rounding: no further progress
            radius = distance
            break
        radius = grown
    return centre, radius


def _ball_of_few(
    points: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Smallest ball around up to five points, by trial of every possible support."""
    best: tuple[NDArray[np.float64], NDArray[np.float64], float] | None = None
    for count in range(1, min(4, len(points)) + 1):
        for chosen in combinations(range(len(points)), count):
            subset = points[list(chosen)]
            sides = subset[1:] - subset[0]
            # Circumcentre in the affine hull of the subset: the least-norm solution of 2 s.c = |s|^2.
            offset = np.linalg.lstsq(2 * sides, (sides**2).sum(axis=1), rcond=1e-12)[0] if count > 1 else np.zeros(3)
            centre = subset[0] + offset
            radius = float(np.linalg.norm(points - centre, axis=1).max())
            if best is None or radius < best[2]:
                best = (subset, centre, radius)
    assert best is not None
    return best
