"""OpenGL, on a GPU: all views of a mesh in one frame buffer, read back at once; the styles are those of `shading.py`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import moderngl
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvrender import shading
from mvrender.backends.gl_platform import open_context
from mvrender.cameras import Rig
from mvrender.errors import BackendError
from mvrender.mesh import Mesh
from mvrender.renderer import BackendName, Views, check_size
from mvrender.shading import Style

_SHADERS = Path(__file__).parent / "shaders"
_SAMPLES = 4
# Every picture is drawn twice, a sixteenth of a pixel to either side along the diagonal, and averaged: all drivers have the same
# four samples, and so they make the eight of `triangles`, no two in one column or row.
_SHIFTS = (-1 / 16, 1 / 16)
# Adds a texture to what is drawn.
_OVERLAY_VERTEX = """#version 400 core
void main() {
    gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0);
}
"""
_OVERLAY_FRAGMENT = """#version 400 core
uniform sampler2D picture;
out vec4 pixel;
void main() {
    pixel = vec4(texelFetch(picture, ivec2(gl_FragCoord.xy), 0).rgb, 0.5);
}
"""
# Where shaders run: for each sample, or once for a pixel and face.
_AT: dict[Style, str] = {"texture": "sample", "depth": "sample", "clay": "", "normal": "", "silhouette": ""}
# The unit sphere fits between the clipping planes with this much air.
_CLIP_MARGIN = 0.02
# Pixels of one frame buffer, of which each holds 40 bytes.
_MAX_PIXELS = 1 << 22


@dataclass(frozen=True)
class _Part:
    """Faces that look alike: vertex array, uniforms of its program, texture or None, and where its indices lie."""

    array: Any
    program: Any
    texture: Any
    first: int
    count: int


class _Frame:
    """Room for pictures one above the other: with four samples a pixel, and resolved, once for each shift."""

    def __init__(self, context: Any, size: int, n_pictures: int) -> None:
        """Of `n_pictures` squares of `size` pixels."""
        self.shape = (size, n_pictures)
        room = (size, size * n_pictures)
        colors, depths = (
            context.renderbuffer(room, 4, samples=_SAMPLES),
            context.depth_renderbuffer(room, samples=_SAMPLES),
        )
        self.samples = context.framebuffer(colors, depths)
        self.resolved = [context.texture(room, 4) for _ in _SHIFTS]
        self.pixels = [context.framebuffer(texture) for texture in self.resolved]


class GLRenderer:
    """`Renderer` on OpenGL. For one thread: a GL context belongs to the thread that made it."""

    name: BackendName = "gl"

    def __init__(self) -> None:
        """Open a GL context now rather than at the first mesh.

        A worker limits its memory once its renderer is open, and drivers reserve tens of gigabytes of addresses.

        Raises:
            BackendError: there is no OpenGL here; the message says what to install.
        """
        self._context: Any = open_context()
        # What a mesh leaves on the GPU waits for `gc`, which is called when this context is the current one.
        self._context.gc_mode = "context_gc"
        self._context.enable_only(moderngl.DEPTH_TEST)
        self._context.blend_func = (moderngl.SRC_ALPHA, moderngl.ONE_MINUS_SRC_ALPHA)
        overlay = self._context.program(vertex_shader=_OVERLAY_VERTEX, fragment_shader=_OVERLAY_FRAGMENT)
        self._overlay = self._context.vertex_array(overlay, [])
        self._programs: dict[tuple[Style, bool, bool], Any] = {}
        self._frame: _Frame | None = None
        self._queries: list[list[Any]] = []
        info = self._context.info
        self._max_side = min(
            info["GL_MAX_TEXTURE_SIZE"], info["GL_MAX_RENDERBUFFER_SIZE"], *info["GL_MAX_VIEWPORT_DIMS"]
        )

    def render(self, mesh: Mesh, rig: Rig, styles: Sequence[Style], size: int) -> Views:
        """See `Renderer.render`.

        Raises:
            BackendError: OpenGL refused to draw.
            MemoryError: the driver ran out of memory.
        """
        check_size(size)
        if self._context is None:
            raise BackendError("this renderer was closed; open another")
        with self._context:
            self._context.gc()
            try:
                views = self._draw(mesh, rig, styles, size)
            except moderngl.Error as error:
                self._check()
                raise BackendError(f"OpenGL failed while drawing: {error}") from error
            self._check()
            self._context.gc()
        return views

    def close(self) -> None:
        """Give the GL context back."""
        if self._context is not None:
            self._programs, self._frame, self._overlay, self._queries = {}, None, None, []
            self._context.release()
            self._context = None

    def _check(self) -> None:
        said = self._context.error
        if said == "GL_OUT_OF_MEMORY":
            raise MemoryError("OpenGL is out of memory")
        if said != "GL_NO_ERROR":
            raise BackendError(f"OpenGL failed while drawing: {said}")

    def _draw(self, mesh: Mesh, rig: Rig, styles: Sequence[Style], size: int) -> Views:
        cameras = rig.cam_to_world
        uploaded = _Uploaded(self._context, mesh, "texture" in styles, self._max_side)
        n_views, n_pictures = len(cameras), len(styles) * len(cameras)
        images = np.empty((len(styles), n_views, size, size, 3), np.uint8)
        flat = images.reshape(n_pictures, size, size, 3)
        queries = self._queries_for(n_views)
        at_once = min(n_pictures, self._max_side // size, max(1, _MAX_PIXELS // size**2))
        frame = self._frame_for(size, at_once)
        parts = [list(self._parts(uploaded, style)) for style in styles]
        self._check()  # before a mesh is drawn that did not get its memory
        to_cameras = np.linalg.inv(cameras.astype(np.float64)).astype("<f4")
        for start in range(0, n_pictures, at_once):
            stop = min(start + at_once, n_pictures)
            for k, shift in enumerate(_SHIFTS):
                for part in itertools.chain.from_iterable(parts):
                    _set_uniforms(part.program, rig, size, shift)
                frame.samples.use()
                frame.samples.clear(*[shading.BACKGROUND / 255] * 3)
                for picture in range(start, stop):
                    style, view = divmod(picture, n_views)
                    self._context.viewport = (0, (picture - start) * size, size, size)
                    # What is seen in one style is seen in all.
                    with queries[view][k] if style == 0 else nullcontext():
                        _draw_parts(parts[style], to_cameras[view])
                self._context.copy_framebuffer(frame.pixels[k], frame.samples)
            self._average(frame)
            # Rows come from the bottom up, as the vertex shader has drawn them.
            frame.pixels[0].read_into(flat[start:stop], (0, 0, size, (stop - start) * size), 3, alignment=1)
        mask = [any(query.samples > 0 for query in of_view) for of_view in queries]
        return Views(images, np.array(mask), cameras)

    def _average(self, frame: _Frame) -> None:
        """Blend the second resolved picture into the first, half and half."""
        frame.pixels[0].use()
        frame.resolved[1].use()
        self._context.enable(moderngl.BLEND)
        self._overlay.render(vertices=3)
        self._context.disable(moderngl.BLEND)

    def _frame_for(self, size: int, n_pictures: int) -> _Frame:
        if self._frame is None or self._frame.shape != (size, n_pictures):
            self._frame = None
            self._context.gc()
            self._frame = _Frame(self._context, size, n_pictures)
        return self._frame

    def _queries_for(self, n_views: int) -> list[list[Any]]:
        """For each view and shift one that counts the samples drawn; kept, because moderngl cannot give them back."""
        while len(self._queries) < n_views:
            self._queries.append([self._context.query(samples=True) for _ in _SHIFTS])
        return self._queries[:n_views]

    def _parts(self, uploaded: _Uploaded, style: Style) -> Iterator[_Part]:
        """Parts of a mesh for one style: one for each texture, and one for the faces that have none."""
        if style != "texture" or not uploaded.has_color:
            program = self._program("clay" if style == "texture" else style, False, False)
            yield _Part(uploaded.array(program, False, False), program, None, 0, uploaded.n_indices)
            return
        for texture, first, count in uploaded.groups:
            looks = (uploaded.colors is not None, texture is not None)
            program = self._program("texture", *looks)
            yield _Part(uploaded.array(program, *looks), program, texture, first, count)

    def _program(self, style: Style, colored: bool, textured: bool) -> Any:
        key = (style, colored, textured)
        if key not in self._programs:
            names = {f"MVR_STYLE_{style.upper()}": "1", "MVR_AT": _AT[style], **_constants()}
            names |= {name: "1" for name, used in (("MVR_COLORED", colored), ("MVR_TEXTURED", textured)) if used}
            head = "\n".join(["#version 400 core", *(f"#define {name} {text}" for name, text in names.items()), ""])
            self._programs[key] = self._context.program(
                vertex_shader=head + (_SHADERS / "mesh.vert").read_text("utf-8"),
                fragment_shader=head + (_SHADERS / "mesh.frag").read_text("utf-8"),
            )
        return self._programs[key]


class _Uploaded:
    """A mesh on the GPU."""

    def __init__(self, context: Any, mesh: Mesh, colored: bool, max_side: int) -> None:
        """With its colours and textures if `colored`; textures wider or higher than `max_side` are halved until they fit."""
        self._context = context
        self.has_color, self.n_indices = mesh.has_color, mesh.faces.size
        self.colors = self._uv = None
        self._arrays: dict[int, Any] = {}
        self.groups: list[tuple[Any, int, int]] = [(None, 0, mesh.faces.size)]
        """Texture or None, first index and number of indices."""
        faces = mesh.faces
        if colored and mesh.vertex_colors is not None:
            self.colors = _buffer(context, mesh.vertex_colors, np.uint8)
        if colored and mesh.uv is not None and mesh.face_texture is not None and mesh.textures:
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
        """Vertex array that feeds a program."""
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
    texture = context.texture(pixels.shape[1::-1], 3, np.ascontiguousarray(pixels), alignment=1)
    texture.build_mipmaps()
    # Nearest level, as `TexturePyramids` reads it.
    texture.filter = (moderngl.LINEAR_MIPMAP_NEAREST, moderngl.LINEAR)
    return texture


def _draw_parts(parts: list[_Part], to_camera: NDArray[np.float32]) -> None:
    for part in parts:
        part.program["to_camera"].write(to_camera.T.tobytes())
        if part.texture is not None:
            part.texture.use()
        part.array.render(vertices=part.count, first=part.first)


def _set_uniforms(program: Any, rig: Rig, size: int, shift: float) -> None:
    tan_half_fov = math.tan(math.radians(rig.fov_y_deg) / 2)
    near, far = rig.distance - 1 - _CLIP_MARGIN, rig.distance + 1 + _CLIP_MARGIN
    values = {
        "zoom": 1 / tan_half_fov,
        "clip": ((near + far) / (near - far), 2 * near * far / (near - far)),
        "shift": 2 * shift / size,
        "depth_range": (rig.distance - 1, rig.distance + 1),
        "pixel_at_unit_depth": 2 * tan_half_fov / size,
    }
    for name, value in values.items():
        if name in program:  # a compiler leaves out what a style does not use
            program[name].value = value


def _constants() -> dict[str, str]:
    """Text for each MVR_ number in the shaders: those of `shading`."""
    lights = [
        _vector(*towards, strength) for towards, strength in zip(shading.TO_LIGHTS, shading.STRENGTHS, strict=True)
    ]
    return {
        "MVR_AMBIENT": _number(shading.AMBIENT),
        "MVR_LIGHTS": ", ".join(lights),
        "MVR_KNEE_AT": _number(shading.KNEE / 255),
        "MVR_KNEE_SLOPE": _number(shading.KNEE_SLOPE),
        "MVR_CLAY": _vector(*shading.CLAY / 255),
        "MVR_GREY_NEAR": _number(shading.DEPTH_NEAR),
        "MVR_GREY_FAR": _number(shading.DEPTH_FAR),
        "MVR_SILHOUETTE_GREY": _number(shading.SILHOUETTE),
    }


def _number(value: float) -> str:
    """GLSL for a float; nine digits are all that float32 holds, and the point keeps GLSL from reading an int."""
    return f"{float(value):.9f}"


def _vector(*values: float) -> str:
    return f"vec{len(values)}({', '.join(map(_number, values))})"
