"""Convert a mesh to GLB for interactive viewers; large meshes are decimated."""

from __future__ import annotations

from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial

from mvrender.mesh import Mesh, normalize
from mvrender.shading import CLAY

MAX_FACES = 200_000
"""Phones render this many smoothly, and more are not visible at the size of a screen."""
MAX_TEXTURE_SIDE = 1024


def to_glb(mesh: Mesh, max_faces: int = MAX_FACES) -> bytes:
    """Encode a mesh as GLB: in the unit sphere, +Y up, faces visible from both sides.

    Args:
        mesh: with +Y up.
        max_faces: larger meshes are decimated, with vertex colours instead of textures.

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
    glb: bytes = scene.export(file_type="glb", tree_postprocessor=_complete_materials)
    return glb


def _complete_materials(tree: dict[str, Any]) -> None:
    """Give primitives with vertex colours a material. Without one they are metal, which is drawn almost black."""
    plain = [p for mesh in tree["meshes"] for p in mesh["primitives"] if "material" not in p]
    if not plain:
        return
    materials = tree.setdefault("materials", [])
    materials.append({"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.9}, "doubleSided": True})
    for primitive in plain:
        primitive["material"] = len(materials) - 1


def decimated(mesh: Mesh, max_faces: int) -> Mesh:
    """Decimate a mesh to about `max_faces` triangles; each vertex gets the colour of the nearest original vertex."""
    import fast_simplification
    from scipy.spatial import KDTree

    reduction = 1 - max_faces / len(mesh.faces)
    points, faces = fast_simplification.simplify(mesh.vertices, mesh.faces, target_reduction=reduction)
    colors = None
    if mesh.has_color:
        used = np.unique(mesh.faces)
        _, near = KDTree(mesh.vertices[used]).query(points)
        colors = _textured_colors(mesh)[used[near]]
    return Mesh(points.astype(np.float32), faces.astype(np.int32), colors)


def _part(mesh: Mesh, faces: NDArray[np.int32], texture: int) -> trimesh.Trimesh:
    """Faces with one texture, or for -1 those without texture."""
    used, corners = np.unique(faces, return_inverse=True)
    tint = _vertex_colors(mesh, textured=texture >= 0)[used]
    material = PBRMaterial(metallicFactor=0.0, roughnessFactor=0.9, doubleSided=True)
    is_uniform = bool((tint == tint[0]).all())
    if texture >= 0 and mesh.uv is not None:
        image = Image.fromarray(mesh.textures[texture])
        image.thumbnail((MAX_TEXTURE_SIDE, MAX_TEXTURE_SIDE))
        material.baseColorTexture = image
        material.alphaMode = "MASK" if image.mode == "RGBA" else "OPAQUE"
        material.baseColorFactor = [*_to_linear(tint[0]), 255]  # that of the first vertex: a material has one factor
        visual = TextureVisuals(uv=mesh.uv[used], material=material)
    elif is_uniform:
        material.baseColorFactor = [*_to_linear(tint[0]), 255]
        visual = TextureVisuals(material=material)
    else:
        visual = ColorVisuals(vertex_colors=np.column_stack([_to_linear(tint), np.full(len(tint), 255, np.uint8)]))
    return trimesh.Trimesh(mesh.vertices[used], corners.reshape(-1, 3), visual=visual, process=False)


def _textured_colors(mesh: Mesh) -> NDArray[np.uint8]:
    """(n, 3) colour of each vertex, sampled from the texture of one of its faces."""
    colors = _vertex_colors(mesh, textured=False)
    if mesh.face_texture is None or mesh.uv is None:
        return colors
    for i, texture in enumerate(mesh.textures):
        used = np.unique(mesh.faces[mesh.face_texture == i])
        height, width = texture.shape[:2]
        uv = mesh.uv[used]
        u, v = np.where((uv >= 0) & (uv <= 1), uv, uv % 1).T  # the edge at 1 must not wrap to that at 0
        rows = ((1 - v) * height).astype(int).clip(0, height - 1)
        columns = (u * width).astype(int).clip(0, width - 1)
        texels = texture[rows, columns, :3]
        factors = _vertex_colors(mesh, textured=True)[used].astype(np.float32)
        colors[used] = np.rint(factors * texels / 255).astype(np.uint8)
    return colors


def _vertex_colors(mesh: Mesh, textured: bool) -> NDArray[np.uint8]:
    """(n, 3) vertex colours without textures. Where the mesh has none: white below a texture, else clay."""
    if mesh.vertex_colors is not None:
        return mesh.vertex_colors.copy()
    return np.tile(np.full(3, 255, np.uint8) if textured else CLAY.astype(np.uint8), (len(mesh.vertices), 1))


def _to_linear(colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert sRGB bytes to the linear colours of glTF."""
    srgb = np.arange(256) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.rint(linear * 255).astype(np.uint8)[colors])
