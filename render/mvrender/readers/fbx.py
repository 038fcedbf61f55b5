"""FBX, text and binary, in the pose of the file: read with ufbx.

Source: ufbx (https://github.com/ufbx/ufbx), which documents the format. Lists of vectors have buffers in its Python binding, those
of integers only iterate; `numpy.asarray` of either crashes in version 0.0.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import ufbx
from numpy.typing import NDArray
from PIL import Image

from mvrender.mesh import UpAxis
from mvrender.readers.parts import Color, Material, Part, Reading, color_bytes, placed
from mvrender.readers.polygons import triangulate
from mvrender.texture_images import Wrap, open_texture

_AXES: tuple[UpAxis, ...] = ("+x", "-x", "+y", "-y", "+z", "-z")
_MOST_LEVELS = 256


def read(data: bytes, reading: Reading) -> Iterator[Part]:
    """Read an FBX file.

    Raises:
        MeshError: a face uses a vertex that does not exist.
        ufbx.UfbxError: it is no FBX file, or damaged.
    """
    scene = ufbx.load_memory(
        data,
        file_format=ufbx.FileFormat.FBX,
        evaluate_skinning=True,
        ignore_animation=True,
        node_depth_limit=_MOST_LEVELS,
    )
    up = int(scene.settings.axes.up)
    reading.up = _AXES[up] if 0 <= up < len(_AXES) else None
    if len(scene.nurbs_surfaces):
        reading.note("NURBS surfaces are not rendered; convert them to polygons")
    materials = _Materials(reading)
    for node in scene.nodes:
        if node.mesh is not None and node.visible:
            yield from _parts(node, materials)


def _parts(node: Any, materials: _Materials) -> Iterator[Part]:
    mesh = node.mesh
    deformed = len(mesh.all_deformers) > 0 and mesh.skinned_position.exists
    position = mesh.skinned_position if deformed else mesh.vertex_position
    vertices = _reals(position.values, 3)
    if not (deformed and not mesh.skinned_is_local):  # else they are in the frame of the scene
        vertices = placed(vertices, _matrix(node.geometry_to_world))
    corners = _integers(position.indices)
    sizes = np.fromiter(
        (face.num_indices for face in mesh.faces), np.int64, len(mesh.faces)
    )  # one face after the other
    triangles, owner = triangulate(vertices, corners, sizes)
    uv, colors = _of_corners(mesh.vertex_uv, 2, len(corners)), _of_corners(mesh.vertex_color, 4, len(corners))
    of_face = _integers(mesh.face_material)
    which = of_face[owner] if len(of_face) == len(sizes) else np.zeros(len(owner), np.int64)
    own = list(node.materials) or list(mesh.materials)
    for i in np.unique(which):
        used = triangles[which == i].ravel()
        material, transform = materials.of(own[i]) if i < len(own) else (None, None)
        own_uv = None if uv is None else uv[used]
        if own_uv is not None and transform is not None:
            own_uv = own_uv @ transform[:2, :2].T + transform[:2, 3]
        painted = None if colors is None else color_bytes(colors[used].clip(0, 1))
        yield Part(vertices[corners[used]], np.arange(len(used)).reshape(-1, 3), painted, uv=own_uv, material=material)


class _Materials:
    """The materials of a file, each made once, with the transform of their texture coordinates."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._made: dict[int, tuple[Material, NDArray[np.float64] | None]] = {}

    def of(self, material: Any) -> tuple[Material, NDArray[np.float64] | None]:
        key = int(material.element_id)
        if key not in self._made:
            self._made[key] = self._make(material)
        return self._made[key]

    def _make(self, material: Any) -> tuple[Material, NDArray[np.float64] | None]:
        base = material.pbr.base_color  # ufbx fills it for all shading models
        color = _color(base, material.pbr.base_factor) if base.has_value else None
        texture = base.texture if base.texture_enabled else None
        if texture is not None and len(texture.file_textures):
            texture = texture.file_textures[0]  # of layers the first
        if texture is None:
            return Material(color), None
        wrap: tuple[Wrap, Wrap] = (_wrap(texture.wrap_u), _wrap(texture.wrap_v))
        transform = _matrix(texture.uv_to_texture) if texture.has_uv_transform else None
        image = self._image(texture)
        return Material(None if image is not None else color, image, wrap=wrap), transform

    def _image(self, texture: Any) -> Image.Image | None:
        content = bytes(texture.content)
        if content:
            image = open_texture(content)
            if image is None:
                self._reading.note(f"the embedded image of '{texture.name}' is not readable; rendered without it")
            return image
        names = [name for name in (texture.relative_filename, texture.filename, texture.absolute_filename) if name]
        if not names:
            return None
        found = next((name for name in names if self._reading.references.exists(name)), names[0])
        return self._reading.references.image(found)


def _color(base: Any, factor: Any) -> Color:
    share = float(factor.value_vec4.x) if factor.has_value else 1.0
    value = base.value_vec4
    rgb = np.nan_to_num(np.array([value.x, value.y, value.z]) * share).clip(0, 1)
    r, g, b = (int(channel) for channel in np.rint(255 * rgb))
    return r, g, b


def _wrap(mode: Any) -> Wrap:
    return "clamp" if mode == ufbx.WrapMode.CLAMP else "repeat"


def _of_corners(attribute: Any, width: int, n_corners: int) -> NDArray[np.float64] | None:
    """(corners, width) values of a vertex attribute; None if it has none or not for all corners."""
    if not attribute.exists:
        return None
    values, indices = _reals(attribute.values, width), _integers(attribute.indices)
    if len(indices) != n_corners or (len(indices) and indices.max() >= len(values)):
        return None
    return values[indices]


def _matrix(matrix: Any) -> NDArray[np.float64]:
    whole = np.eye(4)
    whole[:3] = np.array([tuple(column) for column in matrix]).T
    return whole


def _reals(values: Any, width: int) -> NDArray[np.float64]:
    if len(values) == 0:
        return np.empty((0, width))
    return np.frombuffer(values, np.float64).reshape(-1, width).copy()  # the buffer is gone with the scene


def _integers(values: Any) -> NDArray[np.int64]:
    return np.fromiter(values, np.int64, len(values))
