"""Convert a trimesh scene to one `Mesh`: apply transforms, and unify the colours and textures of all formats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

from mvrender.errors import MeshError
from mvrender.mesh import NO_FACES, Limits, Mesh
from mvrender.shading import CLAY

# Views are at most 1024 pixels wide: a larger texture adds no visible detail.
_MAX_TEXTURE_SIDE = 2048
# trimesh's default for a material without colours.
_TRIMESH_DEFAULT_DIFFUSE = (102, 102, 102)


@dataclass
class _Parts:
    """Arrays of the parts that have been added so far."""

    vertices: list[NDArray[np.float64]] = field(default_factory=list)
    faces: list[NDArray[np.int64]] = field(default_factory=list)
    colors: list[NDArray[np.uint8]] = field(default_factory=list)
    uv: list[NDArray[np.float32]] = field(default_factory=list)
    face_texture: list[NDArray[np.int32]] = field(default_factory=list)
    textures: list[NDArray[np.uint8]] = field(default_factory=list)
    texture_index: dict[tuple[int, tuple[int, int, int], bool], int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    n_vertices: int = 0
    n_faces: int = 0
    has_color: bool = False


def flatten(scene: trimesh.Scene, limits: Limits, *, linear_light: bool = False) -> Mesh:
    """Collect all triangles of a scene in one mesh.

    Args:
        scene: as trimesh loaded it.
        limits: resources that the mesh may use.
        linear_light: the scene's colours (but not its textures) are linear, as in glTF; else sRGB.

    Raises:
        MeshError: more faces than `limits.max_faces`, or no triangles.
    """
    parts = _Parts()
    for geometry, transform in _placed(scene):
        if isinstance(geometry, trimesh.Trimesh) and len(geometry.faces):
            _add(parts, geometry, transform, limits, linear_light)
    if not parts.faces:
        raise MeshError("no_faces", NO_FACES)
    vertices = np.concatenate(parts.vertices)
    # Centred in float64: float32 would lose the detail of an object far from the origin.
    finite = vertices[np.isfinite(vertices).all(axis=1)]
    if len(finite):
        vertices -= finite.min(axis=0) / 2 + finite.max(axis=0) / 2
    with np.errstate(over="ignore"):
        vertices32 = vertices.astype(np.float32)
    return Mesh(
        vertices=vertices32,
        faces=np.concatenate(parts.faces).astype(np.int32),
        vertex_colors=np.concatenate(parts.colors) if parts.has_color else None,
        uv=np.concatenate(parts.uv) if parts.textures else None,
        face_texture=np.concatenate(parts.face_texture) if parts.textures else None,
        textures=tuple(parts.textures),
        notes=tuple(dict.fromkeys(parts.notes)),
    )


def _placed(scene: trimesh.Scene) -> Iterator[tuple[Any, NDArray[np.float64]]]:
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        yield scene.geometry[name], np.asarray(transform, np.float64)


def _add(
    parts: _Parts, geometry: trimesh.Trimesh, transform: NDArray[np.float64], limits: Limits, linear_light: bool
) -> None:
    parts.n_faces += len(geometry.faces)
    if parts.n_faces > limits.max_faces:
        raise MeshError(
            "too_large",
            f"more than {limits.max_faces:,} faces; decimate the mesh, or raise --max-faces and give --retry",
        )
    vertices = np.asarray(geometry.vertices, np.float64)
    faces = np.asarray(geometry.faces, np.int64)
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise MeshError(
            "bad_indices", f"faces use vertices {faces.min()} to {faces.max()}, but there are {len(vertices)}"
        )
    if not np.array_equal(transform, np.eye(4)):
        vertices = vertices @ transform[:3, :3].T + transform[:3, 3]
    visual: Any = geometry.visual
    colors, uv, texture = np.tile(CLAY.astype(np.uint8), (len(vertices), 1)), None, -1
    if visual.kind == "face":
        # With one colour per face, each corner becomes a vertex of its own.
        face_colors = _over_white(np.asarray(visual.face_colors))
        vertices, colors = vertices[faces.ravel()], np.repeat(face_colors, 3, axis=0)
        faces = np.arange(3 * len(faces)).reshape(-1, 3)
        parts.has_color = True
    elif visual.kind == "vertex":
        colors = _over_white(np.asarray(visual.vertex_colors))
        if linear_light:
            colors = _linear_to_srgb(colors)
        parts.has_color = True
    elif visual.kind == "texture":
        texture, colors, uv = _material(parts, visual, colors, limits, linear_light)
    parts.vertices.append(vertices)
    parts.faces.append(faces + parts.n_vertices)
    parts.colors.append(colors)
    parts.uv.append(np.zeros((len(vertices), 2), np.float32) if uv is None else uv)
    parts.face_texture.append(np.full(len(faces), texture, np.int32))
    parts.n_vertices += len(vertices)


def _material(
    parts: _Parts, visual: Any, colors: NDArray[np.uint8], limits: Limits, linear_light: bool
) -> tuple[int, NDArray[np.uint8], NDArray[np.float32] | None]:
    """Texture index (-1: none), vertex colours and uv of a part whose visual is a material."""
    material = visual.material
    is_pbr = hasattr(material, "baseColorFactor")
    image = material.baseColorTexture if is_pbr else getattr(material, "image", None)
    if image is not None and image.format is None and image.size == (2, 2):
        image = None  # trimesh's placeholder for files with uv and no material; images from files have a format
    # In an opaque glTF material (the default) alpha is meaningless and may have any value.
    opaque = linear_light and is_pbr and material.alphaMode in (None, "OPAQUE")
    factor = _factor(material, is_pbr, opaque, linear_light)
    vertex_colors = _vertex_colors(visual, len(colors), linear_light)
    uv = visual.uv
    if uv is not None and len(uv) == len(colors) and image is not None:
        uv = np.nan_to_num(np.asarray(uv, np.float32)[:, :2])
        texture = _texture(parts, image, (255, 255, 255) if factor is None else factor, opaque, limits)
        if texture >= 0:
            parts.has_color = True
            return texture, np.full_like(colors, 255) if vertex_colors is None else vertex_colors, uv
    if vertex_colors is not None:
        parts.has_color = True
        if factor is not None:
            vertex_colors = (vertex_colors * (np.array(factor, np.float32) / 255)).astype(np.uint8)
        return -1, vertex_colors, None
    if factor is not None:
        parts.has_color = True
        return -1, np.tile(np.array(factor, np.uint8), (len(colors), 1)), None
    return -1, colors, None


def _vertex_colors(visual: Any, n_vertices: int, linear_light: bool) -> NDArray[np.uint8] | None:
    """(n, 3) sRGB vertex colours beside a material, which multiply it; None without."""
    colors = getattr(visual, "vertex_attributes", {}).get("color")
    if colors is None or len(colors) != n_vertices:
        return None
    colors = np.asarray(colors)
    if colors.dtype.kind == "f":
        colors = (colors.clip(0, 1) * 255).astype(np.uint8)
    elif colors.dtype.itemsize > 1:
        colors = (colors >> 8 * (colors.dtype.itemsize - 1)).astype(np.uint8)
    rgb = _over_white(colors)
    return _linear_to_srgb(rgb) if linear_light else rgb


def _factor(material: Any, is_pbr: bool, opaque: bool, linear_light: bool) -> tuple[int, int, int] | None:
    """Base colour of a material as sRGB, or None if it has none."""
    if is_pbr:
        if material.baseColorFactor is None:
            return None
        # trimesh returns it as bytes without conversion.
        rgba = np.asarray(material.baseColorFactor, np.uint8).reshape(1, -1)
        rgb = rgba[:, :3] if opaque else _over_white(rgba)
        r, g, b = (_linear_to_srgb(rgb) if linear_light else rgb)[0]
        return int(r), int(g), int(b)
    diffuse = getattr(material, "diffuse", None)
    explicit = "kd" in getattr(material, "kwargs", {})  # an MTL file may name trimesh's default explicitly
    if diffuse is None or (not explicit and tuple(np.asarray(diffuse)[:3]) == _TRIMESH_DEFAULT_DIFFUSE):
        return None
    r, g, b = _over_white(np.asarray(diffuse, np.uint8).reshape(1, -1))[0]
    return int(r), int(g), int(b)


def _texture(parts: _Parts, image: Image.Image, factor: tuple[int, int, int], opaque: bool, limits: Limits) -> int:
    """Add an image, multiplied by its material's colour, to the textures. Returns its index; -1 if it cannot be read."""
    key = (id(image), factor, opaque)
    if key in parts.texture_index:
        return parts.texture_index[key]
    index = -1
    width, height = image.size
    if width * height > limits.max_texture_pixels:
        parts.notes.append(
            f"texture of {width} x {height} pixels omitted: over the limit of {limits.max_texture_pixels} pixels"
        )
    else:
        try:
            pixels = _small_rgb(image, opaque)
        except (OSError, ValueError, SyntaxError) as error:
            parts.notes.append(f"texture unreadable, rendered without it: {error}")
        else:
            if factor != (255, 255, 255):
                pixels = (pixels * (np.array(factor, np.float32) / 255)).astype(np.uint8)
            index = len(parts.textures)
            parts.textures.append(pixels)
    parts.texture_index[key] = index
    return index


def _small_rgb(image: Image.Image, opaque: bool) -> NDArray[np.uint8]:
    """(h, w, 3) pixels of at most `_MAX_TEXTURE_SIDE`, transparent parts composited over white unless `opaque`."""
    image.draft("RGB", (_MAX_TEXTURE_SIDE, _MAX_TEXTURE_SIDE))  # decodes JPEG at a fraction of its size
    shrink = -(-max(image.size) // _MAX_TEXTURE_SIDE)
    if shrink > 1:
        if image.mode == "P":
            image = image.convert("RGBA")
        image = image.reduce(shrink)
    if opaque:
        return np.asarray(image.convert("RGB"))
    if image.mode in ("RGBA", "LA", "PA", "P") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return np.asarray(image.convert("RGB"))


def _over_white(rgba: NDArray[Any]) -> NDArray[np.uint8]:
    """Composite colours (N, 3 or 4) over white, to (N, 3)."""
    rgba = np.asarray(rgba, np.uint8)
    if rgba.shape[1] == 3:
        return rgba
    alpha = rgba[:, 3:4].astype(np.float32) / 255
    return np.asarray(rgba[:, :3] * alpha + 255 * (1 - alpha), np.uint8)


def _linear_to_srgb(colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert bytes of linear colours to sRGB (IEC 61966-2-1)."""
    linear = np.arange(256) / 255
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(srgb * 255).astype(np.uint8)[colors])
