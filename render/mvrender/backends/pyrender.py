"""The pyrender backend: pyrender's context, scene and buffers with the shaders of the OpenGL backend, so all styles look the same.

pyrender is the renderer that most work on multi-view retrieval uses. It renders and reads back one image at a time, which is
slower than the other backends, and shares no code with them but the shaders: tests compare all three.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvrender.backends.pyrender_platform import open_offscreen
from mvrender.backends.shader_source import SHIFTS, clipping_planes, shader_sources, uniform_values
from mvrender.cameras import Rig
from mvrender.errors import BackendError
from mvrender.mesh import Mesh
from mvrender.renderer import MIN_SIZE, BackendName, Views, check_size
from mvrender.shading import BACKGROUND, Style

# pyrender's names of the uniforms in our shaders.
_UNIFORMS = {"V": "to_camera", "material.base_color_texture": "image"}
_RGBA = 4
# pyrender defines this for primitives with an occlusion texture, which ours have if they have holes.
_HOLES = "HAS_OCCLUSION_TEX"


class PyrenderRenderer:
    """`Renderer` with pyrender. Not thread-safe: a GL context belongs to the thread that created it."""

    name: BackendName = "pyrender"

    def __init__(self) -> None:
        """Open a GL context: not later, with the first mesh, for the reason given at `GLRenderer`.

        Raises:
            BackendError: pyrender or OpenGL is not available; the message names what to install.
        """
        self._offscreen = open_offscreen(MIN_SIZE)
        import pyrender
        from OpenGL import GL

        self._pyrender = pyrender
        self._programs = _Programs()
        self._offscreen._renderer._program_cache = self._programs
        self._offscreen._platform.make_current()
        # Rows of RGB texels need not fill whole words: with OpenGL's default, a texture of odd width is sheared.
        GL.glPixelStorei(GL.GL_UNPACK_ALIGNMENT, 1)

    def render(self, mesh: Mesh, rig: Rig, styles: Sequence[Style], size: int) -> Views:
        """See `Renderer.render`.

        Raises:
            BackendError: OpenGL failed.
            MemoryError: the driver ran out of memory.
        """
        from OpenGL.error import Error, GLError
        from OpenGL.GL import GL_OUT_OF_MEMORY

        check_size(size)
        if self._offscreen is None:
            raise BackendError("this renderer is closed: open another one", code="renderer_closed")
        self._offscreen._platform.make_current()
        primitives = list(_primitives(self._pyrender, mesh, "texture" in styles))
        try:
            return self._draw(primitives, mesh.has_color, rig, styles, size)
        except (Error, RuntimeError) as error:  # RuntimeError: a shader does not compile
            if isinstance(error, GLError) and error.err == GL_OUT_OF_MEMORY:
                raise MemoryError("OpenGL is out of memory") from error
            detail = " ".join(str(error).split())[:200]
            raise BackendError(f"OpenGL failed while rendering: {detail}", code="opengl_failed") from error
        finally:
            self._free(primitives)

    def close(self) -> None:
        """Release the GL context."""
        if self._offscreen is not None:
            self._offscreen.delete()
            self._offscreen = None

    def _draw(self, primitives: list[Any], has_color: bool, rig: Rig, styles: Sequence[Style], size: int) -> Views:
        # White, and transparent where nothing is drawn. An array: pyrender reads a list of whole numbers as bytes.
        scene = self._pyrender.Scene(bg_color=np.array([BACKGROUND / 255] * 3 + [0.0]))
        scene.add(self._pyrender.Mesh(primitives))
        near, far = clipping_planes(rig)
        lens = self._pyrender.PerspectiveCamera(math.radians(rig.fov_y_deg), near, far, aspectRatio=1.0)
        camera = scene.add(lens)
        self._offscreen.viewport_width = self._offscreen.viewport_height = size
        cameras = rig.cam_to_world
        images = np.empty((len(styles), rig.n_views, size, size, 3), np.uint8)
        mask = np.zeros(rig.n_views, bool)
        for v, cam_to_world in enumerate(cameras):
            scene.set_pose(camera, cam_to_world.astype(np.float64))
            for s, style in enumerate(styles):
                self._programs.style = "clay" if style == "texture" and not has_color else style
                images[s, v], mask[v] = self._average(scene, rig, size)
        return Views(images, mask, cameras)

    def _average(self, scene: Any, rig: Rig, size: int) -> tuple[NDArray[np.uint8], bool]:
        """One image, and whether anything was drawn. Colour cannot tell: a white face in full light equals the background."""
        flags = self._pyrender.RenderFlags.RGBA | self._pyrender.RenderFlags.SKIP_CULL_FACES
        total = np.zeros((size, size, 4), np.uint16)
        for shift in SHIFTS:
            self._programs.uniforms = uniform_values(rig, size, shift)
            # The vertex shader has flipped the image for readers of rows from the bottom up; pyrender flips it too.
            total += self._offscreen.render(scene, flags)[0][::-1]
        average = (total + 1) // 2
        return average[..., :3].astype(np.uint8), bool(average[..., 3].any())

    def _free(self, primitives: list[Any]) -> None:
        """Release a mesh's buffers; pyrender would keep them until the next mesh, and after a failure for good."""
        for primitive in primitives:
            primitive.delete()
            for texture in primitive.material.textures:
                texture.delete()
        self._offscreen._renderer._meshes = set()
        self._offscreen._renderer._mesh_textures = set()


class _Programs:
    """In the place of pyrender's shader cache: programs from our shaders.

    Attributes:
        style: of the images to draw.
        uniforms: values to set when a program is used.
    """

    def __init__(self) -> None:
        self.style: Style = "clay"
        self.uniforms: dict[str, Any] = {}
        self._made: dict[tuple[Style, bool, bool], Any] = {}

    def get_program(self, *_: Any, defines: dict[str, Any], **__: Any) -> Any:
        """Program for one primitive; pyrender's `defines` state its attributes and textures."""
        features = "COLOR_0_LOC" in defines, "TEXCOORD_0_LOC" in defines
        key = self.style, *(features if self.style == "texture" else (False, _HOLES in defines))
        if key not in self._made:
            self._made[key] = _program(self, key)
        return self._made[key]

    def clear(self) -> None:
        """Delete all programs; pyrender calls it when its context ends."""
        for program in self._made.values():
            program.delete()
        self._made = {}


def _program(programs: _Programs, key: tuple[Style, bool, bool]) -> Any:
    from pyrender.shader_program import ShaderProgram

    class Program(ShaderProgram):  # type: ignore[misc]  # pyrender has no types
        """A program of pyrender from source text, with our uniforms."""

        def _load(self, shader_filename: str) -> str:
            return shader_filename

        def _bind(self) -> None:
            super()._bind()
            for name, value in programs.uniforms.items():
                self.set_uniform(name, np.array(value) if isinstance(value, tuple) else value)

        def set_uniform(self, name: str, value: Any, unsigned: bool = False) -> None:
            super().set_uniform(_UNIFORMS.get(name, name), value, unsigned)

    return Program(*shader_sources(*key))


def _primitives(pyrender: Any, mesh: Mesh, colored: bool) -> Iterator[Any]:
    """One primitive for each texture, and one for the faces without texture."""
    used = colored or mesh.has_holes
    has_texture = used and mesh.uv is not None and mesh.face_texture is not None and bool(mesh.textures)
    if not has_texture:
        yield _primitive(pyrender, mesh, mesh.faces, -1, colored)
        return
    assert mesh.face_texture is not None
    order = np.argsort(mesh.face_texture, kind="stable")
    textures, starts = np.unique(mesh.face_texture[order], return_index=True)
    for texture, group in zip(textures, np.split(order, starts[1:]), strict=True):
        yield _primitive(pyrender, mesh, mesh.faces[group], int(texture), colored)


def _primitive(pyrender: Any, mesh: Mesh, faces: NDArray[np.int32], texture: int, colored: bool) -> Any:
    # Only the vertices of these faces: pyrender uploads a copy for each primitive, and there may be many textures.
    used = np.zeros(len(mesh.vertices), bool)
    used[faces] = True
    material = pyrender.MetallicRoughnessMaterial()
    if texture >= 0:
        # Nearest mipmap level, as in `TexturePyramids`.
        sampler = pyrender.Sampler(
            magFilter=pyrender.GLTF.LINEAR,
            minFilter=pyrender.GLTF.LINEAR_MIPMAP_NEAREST,
            wrapS=pyrender.GLTF.REPEAT,
            wrapT=pyrender.GLTF.REPEAT,
        )
        # pyrender uploads the lowest row first, the shader expects the highest.
        pixels = np.ascontiguousarray(mesh.textures[texture][::-1])
        channels = "RGBA" if pixels.shape[2] == _RGBA else "RGB"
        image = pyrender.Texture(source=pixels, source_channels=channels, sampler=sampler)
        material.baseColorTexture = image
        if channels == "RGBA":
            material.occlusionTexture = image  # see `_HOLES`
    primitive = pyrender.Primitive(
        positions=mesh.vertices[used],
        texcoord_0=mesh.uv[used] if texture >= 0 and mesh.uv is not None else None,
        color_0=mesh.vertex_colors[used] if colored and mesh.vertex_colors is not None else None,
        material=material,
    )
    # Not through pyrender's setter, which converts to float32 and confuses indices beyond 2**24.
    primitive._indices = (np.cumsum(used, dtype=np.uint32) - 1)[faces]
    return primitive
