"""The CPU rasterizer: no OpenGL, no display, the same image on every machine."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mvrender.backends import triangles
from mvrender.backends.compilation import disable_cache
from mvrender.backends.triangles import Appearance, Holes, Lighting, Triangles, draw, face_normals
from mvrender.cameras import Rig, ring
from mvrender.mesh import Mesh
from mvrender.renderer import BackendName, Views, check_size
from mvrender.shading import (
    AMBIENT,
    BACKGROUND,
    CLAY,
    DEPTH_FAR,
    DEPTH_NEAR,
    KNEE,
    KNEE_SLOPE,
    SILHOUETTE,
    STRENGTHS,
    TO_LIGHTS,
    Style,
)
from mvrender.textures import TexturePyramids

f4 = np.float32
_ONE_FACE = Mesh(np.eye(3, dtype=f4), np.array([[0, 1, 2]], np.int32))
_NO_BYTES, _NO_UV, _NO_INTS = np.zeros((0, 3), np.uint8), np.zeros((0, 2), f4), np.zeros(0, np.int32)
_KINDS: dict[Style, int] = {
    "texture": triangles.TEXTURE,
    "clay": triangles.CLAY,
    "depth": triangles.DEPTH,
    "normal": triangles.NORMAL,
    "silhouette": triangles.SILHOUETTE,
}
_LIGHTING = Lighting(
    TO_LIGHTS,
    STRENGTHS,
    f4(AMBIENT),
    f4(KNEE),
    f4(KNEE_SLOPE),
    CLAY,
    f4(DEPTH_NEAR),
    f4(DEPTH_FAR - DEPTH_NEAR),
    f4(255 * SILHOUETTE),
    f4(BACKGROUND),
)
_NO_TABLE = np.zeros((0, 1, 3), np.int64)


class RasterRenderer:
    """CPU `Renderer`, compiled by numba: eight samples per pixel, textures, deterministic."""

    name: BackendName = "raster"

    def __init__(self) -> None:
        """Compile the kernels: seconds the first time on a machine, later they are read from disk."""
        try:
            self.render(_ONE_FACE, ring(1), ("texture",), 64)
        except OSError:
            disable_cache()
            self.render(_ONE_FACE, ring(1), ("texture",), 64)

    def render(self, mesh: Mesh, rig: Rig, styles: Sequence[Style], size: int) -> Views:
        """See `Renderer.render`."""
        check_size(size)
        return draw_views(mesh, rig, styles, size)

    def close(self) -> None:
        """Do nothing: the renderer holds no resources."""


def draw_views(mesh: Mesh, rig: Rig, styles: Sequence[Style], size: int) -> Views:
    """`Renderer.render` without the size limits; benchmarks render large reference images."""
    cameras = rig.cam_to_world
    images = np.full((rig.n_views, len(styles), size, size, 3), BACKGROUND, np.uint8)
    vertices, faces = np.ascontiguousarray(mesh.vertices, f4), np.ascontiguousarray(mesh.faces, np.int32)
    mask = draw(
        Triangles(vertices, faces, face_normals(vertices, faces)),
        _appearance(mesh, "texture" in styles),
        _holes(mesh),
        _LIGHTING,
        np.ascontiguousarray(cameras, f4),
        f4(math.tan(math.radians(rig.fov_y_deg) / 2)),
        f4(rig.distance),
        np.array([_KINDS[style] for style in styles], np.int32),
        images,
    )
    return Views(np.ascontiguousarray(images.swapaxes(0, 1)), mask, cameras)


def _appearance(mesh: Mesh, with_colors: bool) -> Appearance:
    if not with_colors or not mesh.has_color:
        return Appearance(False, _NO_BYTES, _NO_UV, _NO_INTS, _NO_TABLE, _NO_BYTES)
    colors = _NO_BYTES if mesh.vertex_colors is None else np.ascontiguousarray(mesh.vertex_colors, np.uint8)
    if not mesh.textures or mesh.uv is None or mesh.face_texture is None:
        return Appearance(True, colors, _NO_UV, _NO_INTS, _NO_TABLE, _NO_BYTES)
    pyramids = TexturePyramids(mesh.textures)
    uv, texture = np.ascontiguousarray(mesh.uv, f4), np.ascontiguousarray(mesh.face_texture, np.int32)
    return Appearance(True, colors, uv, texture, pyramids.table, pyramids.texels)


def _holes(mesh: Mesh) -> Holes:
    if not mesh.has_holes or mesh.uv is None or mesh.face_texture is None:
        return Holes(_NO_UV, _NO_INTS, _NO_TABLE[:, 0], _NO_BYTES[:, 0])
    table, opacity, start = np.full((len(mesh.textures), 3), -1, np.int64), [], 0
    for k, texture in enumerate(mesh.textures):
        if texture.shape[2] == 4:
            table[k] = start, *texture.shape[:2]
            opacity.append(texture[..., 3].ravel())
            start += opacity[-1].size
    of_face = np.ascontiguousarray(mesh.face_texture, np.int32)
    of_face = np.where((of_face >= 0) & (table[of_face, 0] >= 0), of_face, np.int32(-1))
    return Holes(np.ascontiguousarray(mesh.uv, f4), of_face, table, np.concatenate(opacity))
