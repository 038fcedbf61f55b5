"""Join the parts of an object to one `Mesh`: one index of vertices, one list of textures, colours over white."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvrender.errors import MeshError
from mvrender.mesh import NO_FACES, Mesh
from mvrender.readers.parts import Color, Material, Part, Reading, over_white
from mvrender.shading import CLAY
from mvrender.texture_images import Tiles, small_pixels, tiles_of, unrolled, unrolled_uv

_WHITE: Color = (255, 255, 255)


@dataclass
class _Assembly:
    """Arrays of the parts that have been added so far."""

    reading: Reading
    vertices: list[NDArray[np.float64]] = field(default_factory=list)
    faces: list[NDArray[np.int64]] = field(default_factory=list)
    colors: list[NDArray[np.uint8]] = field(default_factory=list)
    uv: list[NDArray[np.float32]] = field(default_factory=list)
    face_texture: list[NDArray[np.int32]] = field(default_factory=list)
    textures: list[NDArray[np.uint8]] = field(default_factory=list)
    # With the image itself: ids of objects that are gone are used again.
    texture_index: dict[tuple[int, Color, bool, float | None, tuple[Tiles, Tiles]], tuple[int, Image.Image]] = field(
        default_factory=dict
    )
    n_vertices: int = 0
    n_faces: int = 0
    has_color: bool = False


def assemble(parts: Iterable[Part], reading: Reading) -> Mesh:
    """Join all parts.

    Args:
        parts: as a reader returns them; taken one at a time, so that a limit stops the reader.
        reading: its limits, and where notes go.

    Raises:
        MeshError: more faces than `limits.max_faces`, indices out of range, or no triangles.
    """
    whole = _Assembly(reading)
    for part in parts:
        if len(part.faces):
            _add(whole, part)
    if not whole.faces:
        raise MeshError("no_faces", NO_FACES)
    vertices, faces = np.concatenate(whole.vertices), np.concatenate(whole.faces)
    face_texture = np.concatenate(whole.face_texture)
    is_placed = np.asarray(np.isfinite(vertices).all(axis=1))
    is_drawn = is_placed[faces].all(axis=1)
    if is_drawn.any() and not is_drawn.all():
        reading.note(
            f"{(~is_drawn).sum()} of {len(faces)} faces have a coordinate that is no number; rendered without them"
        )
        faces, face_texture = faces[is_drawn], face_texture[is_drawn]
    is_used = np.zeros(len(vertices), bool)
    is_used[faces] = True
    # Centred in float64: float32 would lose the detail of an object far from the origin.
    finite = vertices[is_used & np.isfinite(vertices).all(axis=1)]
    if len(finite):
        vertices -= finite.min(axis=0) / 2 + finite.max(axis=0) / 2
    vertices[~is_used] = 0  # wherever they are, and whatever they hold
    with np.errstate(over="ignore"):
        vertices32 = vertices.astype(np.float32)
    return Mesh(
        vertices=vertices32,
        faces=faces.astype(np.int32),
        vertex_colors=np.concatenate(whole.colors) if whole.has_color else None,
        uv=np.concatenate(whole.uv) if whole.textures else None,
        face_texture=face_texture if whole.textures else None,
        textures=tuple(whole.textures),
    )


def _add(whole: _Assembly, part: Part) -> None:
    limits = whole.reading.limits
    whole.n_faces += len(part.faces)
    if whole.n_faces > limits.max_faces:
        raise MeshError(
            "too_large",
            f"more than {limits.max_faces:,} faces; decimate the mesh, or raise --max-faces and give --retry",
        )
    vertices, faces = np.asarray(part.vertices, np.float64), np.asarray(part.faces, np.int64)
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise MeshError(
            "bad_indices", f"faces use vertices {faces.min()} to {faces.max()}, but there are {len(vertices)}"
        )
    colors, uv = part.colors, part.uv
    if part.face_colors is not None:
        # With one colour per face, each corner becomes a vertex of its own.
        vertices, colors = vertices[faces.ravel()], np.repeat(part.face_colors, 3, axis=0)
        uv = None if uv is None else uv[faces.ravel()]
        faces = np.arange(3 * len(faces)).reshape(-1, 3)
    colors = None if colors is None else over_white(colors)
    material = part.material or Material()
    texture = -1
    if material.image is not None and uv is not None:
        uv = np.nan_to_num(uv)
        tiles = tiles_of(uv[:, 0], material.wrap[0]), tiles_of(uv[:, 1], material.wrap[1])
        texture = _texture(whole, material.image, material, tiles)
        uv = unrolled_uv(uv, tiles)
    if texture >= 0:
        colors = np.full((len(vertices), 3), 255, np.uint8) if colors is None else colors
    elif material.color is not None:
        if colors is None:
            colors = np.tile(np.array(material.color, np.uint8), (len(vertices), 1))
        else:
            colors = (colors * (np.array(material.color, np.float32) / 255)).astype(np.uint8)
    whole.has_color |= colors is not None
    if colors is None:
        colors = np.tile(CLAY.astype(np.uint8), (len(vertices), 1))
    flat = uv is None or texture < 0
    whole.vertices.append(vertices)
    whole.faces.append(faces + whole.n_vertices)
    whole.colors.append(colors)
    whole.uv.append(np.zeros((len(vertices), 2), np.float32) if flat else np.asarray(uv, np.float32))
    whole.face_texture.append(np.full(len(faces), texture, np.int32))
    whole.n_vertices += len(vertices)


def _texture(whole: _Assembly, image: Image.Image, material: Material, tiles: tuple[Tiles, Tiles]) -> int:
    """Add an image, multiplied by its material's colour, to the textures. Returns its index; -1 if it cannot be read."""
    color = material.color or _WHITE
    key = (id(image), color, material.opaque, material.cutoff, tiles)
    if key in whole.texture_index:
        return whole.texture_index[key][0]
    index = -1
    width, height = image.size
    most = whole.reading.limits.max_texture_pixels
    if width * height > most:
        whole.reading.note(f"texture of {width} x {height} pixels omitted: over the limit of {most} pixels")
    else:
        try:
            pixels = unrolled(small_pixels(image, material.opaque, material.cutoff), tiles)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's plugins raise anything on a damaged file
            whole.reading.note(f"texture unreadable, rendered without it: {error}")
        else:
            if color != _WHITE:
                pixels = pixels.copy()
                pixels[..., :3] = pixels[..., :3] * (np.array(color, np.float32) / 255)
            index = len(whole.textures)
            whole.textures.append(pixels)
    whole.texture_index[key] = (index, image)
    return index
