"""A mesh as GLB, to be turned about in a browser: made smaller where it has more triangles than one can see."""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial

from mvrender.mesh import Mesh, normalize
from mvrender.shading import CLAY

MAX_FACES = 200_000
"""A phone turns that many smoothly, and at the size of a screen more cannot be told apart."""
MAX_TEXTURE_SIDE = 1024


def to_glb(mesh: Mesh, max_faces: int = MAX_FACES) -> bytes:
    """A mesh in the unit sphere with +Y up, both sides of its faces visible.

    Args:
        mesh: with +Y up.
        max_faces: a larger mesh is decimated; its texture then becomes colours of its vertices.

    Raises:
        MeshError: see `normalize`.
    """
    mesh = normalize(mesh)
    if len(mesh.faces) > max_faces:
        mesh = decimated(mesh, max_faces)
    scene = trimesh.Scene()
    of_face = np.full(len(mesh.faces), -1) if mesh.face_texture is None else mesh.face_texture
    for texture in np.unique(of_face):
        scene.add_geometry(_part(mesh, mesh.faces[of_face == texture], int(texture)))
    glb: bytes = scene.export(file_type="glb")
    return glb


def decimated(mesh: Mesh, max_faces: int) -> Mesh:
    """About `max_faces` triangles of the same shape, each vertex in the colour of the nearest one that was there."""
    import fast_simplification
    from scipy.spatial import KDTree

    share = 1 - max_faces / len(mesh.faces)
    points, faces = fast_simplification.simplify(mesh.vertices, mesh.faces, target_reduction=share)
    colors = None
    if mesh.has_color:
        used = np.unique(mesh.faces)
        _, near = KDTree(mesh.vertices[used]).query(points)
        colors = _painted(mesh)[used[near]]
    return Mesh(points.astype(np.float32), faces.astype(np.int32), colors)


def _part(mesh: Mesh, faces: NDArray[np.int32], texture: int) -> trimesh.Trimesh:
    """The faces with one texture, or with none for -1."""
    used, corners = np.unique(faces, return_inverse=True)
    tint = _plain(mesh, textured=texture >= 0)[used]
    material = PBRMaterial(metallicFactor=0.0, roughnessFactor=0.9, doubleSided=True)
    is_plain = bool((tint == tint[0]).all())
    if texture >= 0 and mesh.uv is not None:
        picture = Image.fromarray(mesh.textures[texture])
        picture.thumbnail((MAX_TEXTURE_SIDE, MAX_TEXTURE_SIDE))
        material.baseColorTexture = picture
        material.baseColorFactor = [*_to_linear(tint[0]), 255]  # of the first corner: viewers multiply by one colour
        visual = TextureVisuals(uv=mesh.uv[used], material=material)
    elif is_plain:
        material.baseColorFactor = [*_to_linear(tint[0]), 255]
        visual = TextureVisuals(material=material)
    else:
        visual = ColorVisuals(vertex_colors=np.column_stack([_to_linear(tint), np.full(len(tint), 255, np.uint8)]))
    return trimesh.Trimesh(mesh.vertices[used], corners.reshape(-1, 3), visual=visual, process=False)


def _painted(mesh: Mesh) -> NDArray[np.uint8]:
    """(n, 3) colour of each vertex, read from the texture of a face that it belongs to."""
    colors = _plain(mesh, textured=False)
    if mesh.face_texture is None or mesh.uv is None:
        return colors
    for i, texture in enumerate(mesh.textures):
        used = np.unique(mesh.faces[mesh.face_texture == i])
        height, width = texture.shape[:2]
        uv = mesh.uv[used]
        across, up = np.where((uv >= 0) & (uv <= 1), uv, uv % 1).T  # an edge at 1 is not the one at 0
        rows = ((1 - up) * height).astype(int).clip(0, height - 1)
        columns = (across * width).astype(int).clip(0, width - 1)
        texels = texture[rows, columns]
        colors[used] = np.rint(_plain(mesh, textured=True)[used].astype(np.float32) * texels / 255).astype(np.uint8)
    return colors


def _plain(mesh: Mesh, textured: bool) -> NDArray[np.uint8]:
    """(n, 3) colour of each vertex without its texture, which multiplies it: white, or clay where there is none."""
    if mesh.vertex_colors is not None:
        return mesh.vertex_colors.copy()
    return np.tile(np.full(3, 255, np.uint8) if textured else CLAY.astype(np.uint8), (len(mesh.vertices), 1))


def _to_linear(colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours of a picture as the linear light that glTF means."""
    srgb = np.arange(256) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.rint(linear * 255).astype(np.uint8)[colors])
