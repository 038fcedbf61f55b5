"""A mesh as OpenGL buffers, textures and vertex arrays."""

from __future__ import annotations

from typing import Any

import moderngl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvrender.mesh import Mesh


class GLMesh:
    """A mesh on the GPU.

    Attributes:
        has_color: whether the mesh has colours or textures.
        n_indices: three per face.
        colors: buffer of vertex colours, or None.
        groups: texture or None, first index and number of indices of each group of faces. A texture of four components has holes.
    """

    def __init__(self, context: Any, mesh: Mesh, with_colors: bool, max_side: int) -> None:
        """Upload a mesh.

        Args:
            context: the current OpenGL context.
            mesh: normalized mesh.
            with_colors: also upload colours and textures.
            max_side: textures wider or higher than this are halved until they fit.
        """
        self._context = context
        self.has_color, self.n_indices = mesh.has_color, mesh.faces.size
        self.colors = self._uv = None
        self._arrays: dict[int, Any] = {}
        self.groups: list[tuple[Any, int, int]] = [(None, 0, mesh.faces.size)]
        faces = mesh.faces
        if with_colors and mesh.vertex_colors is not None:
            self.colors = _buffer(context, mesh.vertex_colors, np.uint8)
        if (with_colors or mesh.has_holes) and mesh.uv is not None and mesh.face_texture is not None and mesh.textures:
            order = np.argsort(mesh.face_texture, kind="stable")
            used, starts = np.unique(mesh.face_texture[order], return_index=True)
            ends = [*starts[1:], len(order)]
            textures = [_texture(context, mesh.textures[k], max_side) if k >= 0 else None for k in used]
            self.groups = [
                (texture, 3 * int(start), 3 * int(end - start))
                for texture, start, end in zip(textures, starts, ends, strict=True)
            ]
            faces = faces[order]
            self._uv = _buffer(context, mesh.uv, np.float32)
        self._vertices, self._indices = _buffer(context, mesh.vertices, np.float32), _buffer(context, faces, np.uint32)

    def array(self, program: Any, colored: bool, textured: bool) -> Any:
        """Vertex array for a program."""
        if program.glo in self._arrays:
            return self._arrays[program.glo]
        content = [(self._vertices, "3f4", "position")]
        if colored:
            content.append((self.colors, "3f1", "vertex_color"))
        if textured:
            content.append((self._uv, "2f4", "texcoord"))
        array = self._context.vertex_array(program, content, index_buffer=self._indices, index_element_size=4)
        self._arrays[program.glo] = array
        return array


def _buffer(context: Any, values: NDArray[Any], kind: type) -> Any:
    return context.buffer(np.ascontiguousarray(values, kind))


def _texture(context: Any, pixels: NDArray[np.uint8], max_side: int) -> Any:
    while max(pixels.shape) > max_side:
        pixels = np.asarray(Image.fromarray(pixels).reduce(2))
    texture = context.texture(pixels.shape[1::-1], pixels.shape[2], np.ascontiguousarray(pixels), alignment=1)
    texture.build_mipmaps()
    # Nearest mipmap level, as in `TexturePyramids`.
    texture.filter = (moderngl.LINEAR_MIPMAP_NEAREST, moderngl.LINEAR)
    return texture
