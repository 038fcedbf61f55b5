"""Formats that trimesh reads: from its scene to parts."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from mvrender.readers.parts import Color, Material, Part, Reading, linear_to_srgb, over_white, placed

# trimesh's default for a material without colours.
_DEFAULT_DIFFUSE = (102, 102, 102)


def read(data: bytes, reading: Reading, *, linear_light: bool = False) -> Iterator[Part]:
    """Read a file with trimesh.

    Args:
        data: of the file.
        reading: see `Reading`.
        linear_light: the file's colours (but not its textures) are linear, as in glTF; else sRGB.

    Raises:
        Exception: trimesh raises anything on a damaged file.
    """
    logging.getLogger("trimesh").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scene = trimesh.load_scene(
            trimesh.util.wrap_as_stream(data),
            file_type=reading.suffix[1:],
            process=False,
            allow_remote=False,
        )
    return parts_of(scene, linear_light=linear_light)


def parts_of(scene: trimesh.Scene, *, linear_light: bool = False) -> Iterator[Part]:
    """The triangles of a scene of trimesh."""
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        geometry = scene.geometry[name]
        if isinstance(geometry, trimesh.Trimesh) and len(geometry.faces):
            yield _part(geometry, np.asarray(transform, np.float64), linear_light)


def _part(geometry: trimesh.Trimesh, transform: NDArray[np.float64], linear_light: bool) -> Part:
    vertices = placed(np.asarray(geometry.vertices, np.float64), transform)
    faces = np.asarray(geometry.faces, np.int64)
    visual: Any = geometry.visual
    if visual.kind == "face":
        return Part(vertices, faces, face_colors=np.asarray(visual.face_colors))
    if visual.kind == "vertex":
        painted = over_white(np.asarray(visual.vertex_colors))
        return Part(vertices, faces, linear_to_srgb(painted) if linear_light else painted)
    if visual.kind != "texture":
        return Part(vertices, faces)
    uv = visual.uv
    if uv is not None:
        uv = np.asarray(uv)[:, :2] if len(uv) == len(vertices) else None
    colors = _vertex_colors(visual, len(vertices), linear_light)
    return Part(vertices, faces, colors, uv=uv, material=_material(visual.material, linear_light))


def _material(material: Any, linear_light: bool) -> Material:
    is_pbr = hasattr(material, "baseColorFactor")
    image = material.baseColorTexture if is_pbr else getattr(material, "image", None)
    if image is not None and image.format is None and image.size == (2, 2):
        image = None  # trimesh's placeholder for files with uv and no material; images from files have a format
    # In an opaque glTF material (the default) alpha is meaningless and may have any value.
    opaque = linear_light and is_pbr and material.alphaMode in (None, "OPAQUE")
    return Material(_color(material, is_pbr, opaque, linear_light), image, opaque)


def _vertex_colors(visual: Any, n_vertices: int, linear_light: bool) -> NDArray[np.uint8] | None:
    """(n, 3) sRGB vertex colours beside a material; None without."""
    colors = getattr(visual, "vertex_attributes", {}).get("color")
    if colors is None or len(colors) != n_vertices:
        return None
    colors = np.asarray(colors)
    if colors.dtype.kind == "f":
        colors = (colors.clip(0, 1) * 255).astype(np.uint8)
    elif colors.dtype.itemsize > 1:
        colors = (colors >> 8 * (colors.dtype.itemsize - 1)).astype(np.uint8)
    rgb = over_white(colors)
    return linear_to_srgb(rgb) if linear_light else rgb


def _color(material: Any, is_pbr: bool, opaque: bool, linear_light: bool) -> Color | None:
    """Base colour of a material as sRGB, or None if it has none."""
    if is_pbr:
        if material.baseColorFactor is None:
            return None
        # trimesh returns it as bytes without conversion.
        rgba = np.asarray(material.baseColorFactor, np.uint8).reshape(1, -1)
        rgb = rgba[:, :3] if opaque else over_white(rgba)
        r, g, b = (linear_to_srgb(rgb) if linear_light else rgb)[0]
        return int(r), int(g), int(b)
    diffuse = getattr(material, "diffuse", None)
    explicit = "kd" in getattr(material, "kwargs", {})  # an MTL file may name trimesh's default explicitly
    if diffuse is None or (not explicit and tuple(np.asarray(diffuse)[:3]) == _DEFAULT_DIFFUSE):
        return None
    r, g, b = over_white(np.asarray(diffuse, np.uint8).reshape(1, -1))[0]
    return int(r), int(g), int(b)
