"""The OpenGL backend for GPUs: all views of a mesh in one framebuffer, read back at once. Shading constants as in `shading`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import moderngl
import numpy as np
from numpy.typing import NDArray

from mvrender.backends.gl_mesh import GLMesh
from mvrender.backends.gl_platform import open_context
from mvrender.backends.shader_source import SHIFTS, shader_sources, uniform_values
from mvrender.cameras import Rig
from mvrender.errors import BackendError
from mvrender.mesh import Mesh
from mvrender.renderer import BackendName, Views, check_size
from mvrender.shading import BACKGROUND, Style

_SAMPLES = 4
_RGBA = 4
# Blends a texture over the framebuffer.
_OVERLAY_VERTEX = """#version 400 core
void main() {
    gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0);
}
"""
_OVERLAY_FRAGMENT = """#version 400 core
uniform sampler2D image;
out vec4 pixel;
void main() {
    pixel = vec4(texelFetch(image, ivec2(gl_FragCoord.xy), 0).rgb, 0.5);
}
"""
# Pixels of one framebuffer, with 40 bytes each.
_MAX_PIXELS = 1 << 22


@dataclass(frozen=True)
class _Part:
    """Faces with one program and texture: vertex array, program, texture or None, and range of indices."""

    array: Any
    program: Any
    texture: Any
    first: int
    count: int


class _Frame:
    """Framebuffers for images stacked vertically: multisampled, and resolved once per shift."""

    def __init__(self, context: Any, size: int, n_images: int) -> None:
        """Allocate for `n_images` square images of `size` pixels."""
        self.shape = (size, n_images)
        extent = (size, size * n_images)
        colors = context.renderbuffer(extent, 4, samples=_SAMPLES)
        self.samples = context.framebuffer(colors, context.depth_renderbuffer(extent, samples=_SAMPLES))
        self.resolved = [context.texture(extent, 4) for _ in SHIFTS]
        self.pixels = [context.framebuffer(texture) for texture in self.resolved]


class GLRenderer:
    """OpenGL `Renderer`. Not thread-safe: a GL context belongs to the thread that created it."""

    name: BackendName = "gl"

    def __init__(self) -> None:
        """Open a GL context.

        Not later, with the first mesh: a worker limits its address space after opening its renderer, and drivers reserve tens
        of gigabytes.

        Raises:
            BackendError: OpenGL is not available; the message names what to install.
        """
        self._context: Any = open_context()
        # Objects of a mesh are released by `gc`, which is called while this context is current.
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
            BackendError: OpenGL failed.
            MemoryError: the driver ran out of memory.
        """
        check_size(size)
        if self._context is None:
            raise BackendError("this renderer is closed: open another one", code="renderer_closed")
        with self._context:
            self._context.gc()
            try:
                views = self._draw(mesh, rig, styles, size)
            except moderngl.Error as error:
                self._check()
                raise BackendError(f"OpenGL failed while rendering: {error}", code="opengl_failed") from error
            self._check()
            self._context.gc()
        return views

    def close(self) -> None:
        """Release the GL context."""
        if self._context is not None:
            self._programs, self._frame, self._overlay, self._queries = {}, None, None, []
            self._context.release()
            self._context = None

    def _check(self) -> None:
        error = self._context.error
        if error == "GL_OUT_OF_MEMORY":
            raise MemoryError("OpenGL is out of memory")
        if error != "GL_NO_ERROR":
            raise BackendError(f"OpenGL failed while rendering: {error}", code="opengl_failed")

    def _draw(self, mesh: Mesh, rig: Rig, styles: Sequence[Style], size: int) -> Views:
        cameras = rig.cam_to_world
        gl_mesh = GLMesh(self._context, mesh, "texture" in styles, self._max_side)
        n_views, n_images = len(cameras), len(styles) * len(cameras)
        images = np.empty((len(styles), n_views, size, size, 3), np.uint8)
        flat = images.reshape(n_images, size, size, 3)
        queries = self._queries_for(n_views)
        batch = min(n_images, self._max_side // size, max(1, _MAX_PIXELS // size**2))
        frame = self._frame_for(size, batch)
        parts = [list(self._parts(gl_mesh, style)) for style in styles]
        self._check()  # reports a failed allocation before rendering
        to_cameras = np.linalg.inv(cameras.astype(np.float64)).astype("<f4")
        for start in range(0, n_images, batch):
            stop = min(start + batch, n_images)
            for k, shift in enumerate(SHIFTS):
                for part in itertools.chain.from_iterable(parts):
                    _set_uniforms(part.program, rig, size, shift)
                frame.samples.use()
                frame.samples.clear(*[BACKGROUND / 255] * 3)
                for image in range(start, stop):
                    style, view = divmod(image, n_views)
                    self._context.viewport = (0, (image - start) * size, size, size)
                    # The mask is the same in all styles.
                    with queries[view][k] if style == 0 else nullcontext():
                        _draw_parts(parts[style], to_cameras[view])
                self._context.copy_framebuffer(frame.pixels[k], frame.samples)
            self._average(frame)
            # OpenGL's rows go from the bottom up, and the vertex shader has flipped the image.
            frame.pixels[0].read_into(flat[start:stop], (0, 0, size, (stop - start) * size), 3, alignment=1)
        mask = [any(query.samples > 0 for query in of_view) for of_view in queries]
        return Views(images, np.array(mask), cameras)

    def _average(self, frame: _Frame) -> None:
        """Average the two resolved images into the first."""
        frame.pixels[0].use()
        frame.resolved[1].use()
        self._context.enable(moderngl.BLEND)
        self._overlay.render(vertices=3)
        self._context.disable(moderngl.BLEND)

    def _frame_for(self, size: int, n_images: int) -> _Frame:
        if self._frame is None or self._frame.shape != (size, n_images):
            self._frame = None
            self._context.gc()
            self._frame = _Frame(self._context, size, n_images)
        return self._frame

    def _queries_for(self, n_views: int) -> list[list[Any]]:
        """Occlusion queries for each view and shift. They are kept, because moderngl cannot release them."""
        while len(self._queries) < n_views:
            self._queries.append([self._context.query(samples=True) for _ in SHIFTS])
        return self._queries[:n_views]

    def _parts(self, mesh: GLMesh, style: Style) -> Iterator[_Part]:
        """Parts of a mesh for one style: one for each texture, and one for faces without texture."""
        if style == "texture" and not mesh.has_color:
            style = "clay"
        for texture, first, count in mesh.groups:
            if style != "texture" and texture is not None and texture.components < _RGBA:
                texture = None  # without holes, only its colours matter
            features = (style == "texture" and mesh.colors is not None, texture is not None)
            program = self._program(style, *features)
            yield _Part(mesh.array(program, *features), program, texture, first, count)

    def _program(self, style: Style, colored: bool, textured: bool) -> Any:
        key = (style, colored, textured)
        if key not in self._programs:
            vertex, fragment = shader_sources(style, colored, textured)
            self._programs[key] = self._context.program(vertex_shader=vertex, fragment_shader=fragment)
        return self._programs[key]


def _draw_parts(parts: list[_Part], to_camera: NDArray[np.float32]) -> None:
    for part in parts:
        part.program["to_camera"].write(to_camera.T.tobytes())
        if part.texture is not None:
            part.texture.use()
        part.array.render(vertices=part.count, first=part.first)


def _set_uniforms(program: Any, rig: Rig, size: int, shift: float) -> None:
    for name, value in uniform_values(rig, size, shift).items():
        if name in program:  # compilers remove unused uniforms
            program[name].value = value
