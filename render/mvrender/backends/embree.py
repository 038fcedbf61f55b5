"""Ray casting on the CPU with Embree: no GL, no display, the same picture on every machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh
from numpy.typing import NDArray

from mvrender.cameras import Rig
from mvrender.mesh import Mesh
from mvrender.renderer import BackendName, Views, check_size
from mvrender.shading import BACKGROUND, Style, shade
from mvrender.textures import TexturePyramids

# One ray through each pixel's centre; where neighbours differ by more than this (of 255), four more rays decide.
_CONTRAST = 10.0
# A rotated grid: four samples that are also four different columns and rows.
_SUBSAMPLES = np.array([(-0.125, -0.375), (0.375, -0.125), (0.125, 0.375), (-0.375, 0.125)], np.float32)


class EmbreeRenderer:
    """`Renderer` on embreex. Anti-aliased at edges, textured, deterministic."""

    name: BackendName = "embree"

    def render(self, mesh: Mesh, rig: Rig, styles: Sequence[Style], size: int) -> Views:
        """See `Renderer.render`."""
        check_size(size)
        surface = _Surface.of(mesh)
        camera = _Camera.of(rig, size)
        cameras = rig.cam_to_world
        images = np.full((len(styles), rig.n_views, size, size, 3), BACKGROUND, np.uint8)
        mask = np.zeros(rig.n_views, bool)
        for v, cam_to_world in enumerate(cameras):
            mask[v] = _draw(surface, camera, cam_to_world, styles, images[:, v])
        return Views(images, mask, cameras)

    def close(self) -> None:
        """Nothing is held between meshes."""


@dataclass(frozen=True)
class _Camera:
    size: int
    tan_half_fov: float
    depth_range: tuple[float, float]

    @classmethod
    def of(cls, rig: Rig, size: int) -> _Camera:
        return cls(size, math.tan(math.radians(rig.fov_y_deg) / 2), (rig.distance - 1, rig.distance + 1))

    def rays(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, 3) directions in the camera's frame through pixel coordinates; z is -1, so that ray length is depth."""
        scale = np.float32(2 * self.tan_half_fov / self.size)
        half = np.float32(self.size / 2)
        rays = np.empty((len(x), 3), np.float32)
        rays[:, 0], rays[:, 1], rays[:, 2] = (x - half) * scale, (half - y) * scale, -1
        return rays


@dataclass(frozen=True)
class _Surface:
    """A mesh, its ray-casting tree and what its points look like."""

    mesh: Mesh
    scene: rtcore_scene.EmbreeScene
    box: NDArray[np.float32]  # (8, 3) corners
    normals: NDArray[np.float32]  # (m, 3) unit, of the faces
    pyramids: TexturePyramids | None

    @classmethod
    def of(cls, mesh: Mesh) -> _Surface:
        scene = rtcore_scene.EmbreeScene()
        TriangleMesh(scene, np.ascontiguousarray(mesh.vertices), np.ascontiguousarray(mesh.faces))
        ends = np.stack([mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)])
        box = np.stack([ends[[i, j, k], [0, 1, 2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
        return cls(mesh, scene, box, _face_normals(mesh), TexturePyramids(mesh.textures) if mesh.textures else None)

    def colors(
        self, face: NDArray[np.int32], bary: NDArray[np.float32], world_per_pixel: float
    ) -> NDArray[np.float32] | None:
        """(N, 3) sRGB in 0..255 at points given by face and barycentric coordinates (N, 3)."""
        mesh = self.mesh
        if not mesh.has_color:
            return None
        corners = mesh.faces[face]
        if mesh.vertex_colors is None:
            colors = np.full((len(face), 3), 255, np.float32)
        else:
            colors = np.einsum("nk,nkc->nc", bary, mesh.vertex_colors[corners].astype(np.float32))
        if self.pyramids is None or mesh.uv is None or mesh.face_texture is None:
            return colors
        textured = np.flatnonzero(mesh.face_texture[face] >= 0)
        if len(textured) == 0:
            return colors
        face, corners = face[textured], corners[textured]
        texture = mesh.face_texture[face]
        corner_uv = mesh.uv[corners]
        uv = np.einsum("nk,nkc->nc", bary[textured], corner_uv)
        # Texels per pixel of each face seen straight on.
        height, width = self.pyramids.sizes[texture].T
        a, b = corner_uv[:, 1] - corner_uv[:, 0], corner_uv[:, 2] - corner_uv[:, 0]
        texels = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) * height * width
        p = mesh.vertices[corners]
        area = np.linalg.norm(np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]), axis=1)
        level = 0.5 * np.log2(np.maximum(texels / np.maximum(area, 1e-12), 1e-12)) + math.log2(world_per_pixel)
        colors[textured] *= self.pyramids.sample(texture, uv, level.astype(np.float32)) / 255
        return colors


def _draw(
    surface: _Surface,
    camera: _Camera,
    cam_to_world: NDArray[np.float32],
    styles: Sequence[Style],
    out: NDArray[np.uint8],
) -> bool:
    """Draw one view into `out` (S, size, size, 3), which holds the background. Tells whether anything was seen."""
    x0, y0, x1, y1 = _pixel_box(surface.box, camera, cam_to_world)
    if x0 >= x1 or y0 >= y1:
        return False
    grid = np.meshgrid(np.arange(x0, x1, dtype=np.float32), np.arange(y0, y1, dtype=np.float32))
    columns, rows = (axis.ravel() for axis in grid)
    pictures, seen = _look(surface, camera, cam_to_world, styles, columns + 0.5, rows + 0.5)
    pictures = pictures.reshape(len(styles), y1 - y0, x1 - x0, 3)
    edges = np.flatnonzero(_contrast(pictures) > _CONTRAST)
    if len(edges):
        x = columns[edges, None] + 0.5 + _SUBSAMPLES[:, 0]
        y = rows[edges, None] + 0.5 + _SUBSAMPLES[:, 1]
        finer, seen_finer = _look(surface, camera, cam_to_world, styles, x.ravel(), y.ravel())
        flat = pictures.reshape(len(styles), -1, 3)
        samples = finer.reshape(len(styles), len(edges), len(_SUBSAMPLES), 3)
        flat[:, edges] = sum(samples[:, :, k] for k in range(len(_SUBSAMPLES))) / np.float32(len(_SUBSAMPLES))
        seen = seen or seen_finer
    out[:, y0:y1, x0:x1] = np.rint(pictures).astype(np.uint8)
    return seen


def _face_normals(mesh: Mesh) -> NDArray[np.float32]:
    """(m, 3) unit normals; of a face without area, which no ray hits, anything."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    ab, ac = b - a, c - a
    normals = np.empty_like(ab)
    normals[:, 0] = ab[:, 1] * ac[:, 2] - ab[:, 2] * ac[:, 1]
    normals[:, 1] = ab[:, 2] * ac[:, 0] - ab[:, 0] * ac[:, 2]
    normals[:, 2] = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    length = np.sqrt(np.einsum("nc,nc->n", normals, normals))
    return np.asarray(normals / np.maximum(length, 1e-30)[:, None], np.float32)


def _pixel_box(
    box: NDArray[np.float32], camera: _Camera, cam_to_world: NDArray[np.float32]
) -> tuple[int, int, int, int]:
    """Pixels that the mesh's bounding box can touch (left, top, right, bottom), one pixel wider for anti-aliasing."""
    seen = (box - cam_to_world[:3, 3]) @ cam_to_world[:3, :3]
    depth = np.maximum(-seen[:, 2], 1e-3)
    scale = camera.size / (2 * camera.tan_half_fov)
    x, y = camera.size / 2 + seen[:, 0] / depth * scale, camera.size / 2 - seen[:, 1] / depth * scale
    low = np.floor([x.min() - 1, y.min() - 1]).clip(0, camera.size).astype(int)
    high = np.ceil([x.max() + 1, y.max() + 1]).clip(0, camera.size).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _look(
    surface: _Surface,
    camera: _Camera,
    cam_to_world: NDArray[np.float32],
    styles: Sequence[Style],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
) -> tuple[NDArray[np.float32], bool]:
    """Colours (S, N, 3) in 0..255 at pixel coordinates, and whether any ray hit."""
    pixels = np.full((len(styles), len(x), 3), BACKGROUND, np.float32)
    rays = camera.rays(x, y)
    rotation = cam_to_world[:3, :3]
    origins = np.broadcast_to(cam_to_world[:3, 3], rays.shape).astype(np.float32)
    found = surface.scene.run(origins, np.ascontiguousarray(rays @ rotation.T), query="INTERSECT", output=True)
    hit = np.flatnonzero(found["primID"] >= 0)
    if len(hit) == 0:
        return pixels, False
    face = found["primID"][hit]
    depth = found["tfar"][hit]
    normals = surface.normals[face] @ rotation
    # Turned to the side that is seen. (einsum: numpy sums a last axis of three an order of magnitude more slowly.)
    normals *= -np.sign(np.einsum("nc,nc->n", normals, rays[hit]))[:, None]
    colors = None
    if "texture" in styles:
        u, v = found["u"][hit], found["v"][hit]
        world_per_pixel = 2 * camera.tan_half_fov * float(np.median(depth)) / camera.size
        colors = surface.colors(face, np.stack([1 - u - v, u, v], axis=1), world_per_pixel)
    for s, style in enumerate(styles):
        pixels[s, hit] = shade(style, normals, depth, colors, camera.depth_range)
    return pixels, True


def _contrast(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H * W,) largest difference of each pixel of (S, H, W, 3) to its four neighbours, over styles and channels."""
    down = _largest(pictures[:, 1:] - pictures[:, :-1])
    right = _largest(pictures[:, :, 1:] - pictures[:, :, :-1])
    out = np.zeros(pictures.shape[1:3], np.float32)
    np.maximum(out[1:], down, out=out[1:])
    np.maximum(out[:-1], down, out=out[:-1])
    np.maximum(out[:, 1:], right, out=out[:, 1:])
    np.maximum(out[:, :-1], right, out=out[:, :-1])
    return out.ravel()


def _largest(difference: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) largest magnitude over styles and channels of (S, H, W, 3). By slices: numpy reduces short axes slowly."""
    size = np.abs(difference)
    parts = [size[s, ..., c] for s in range(len(size)) for c in range(3)]
    return np.asarray(np.maximum.reduce(parts), np.float32)
