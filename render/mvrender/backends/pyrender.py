"""OpenGL with pyrender's context, buffers and cameras, and our own shaders: the styles are those of `shading.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvrender import shading
from mvrender.backends.gl_platform import open_offscreen
from mvrender.cameras import Rig
from mvrender.errors import BackendError
from mvrender.mesh import Mesh
from mvrender.renderer import MIN_SIZE, BackendName, Views, check_size
from mvrender.shading import Style

_SHADERS = Path(__file__).parent / "shaders"
# The unit sphere fits between the clipping planes with this much air.
_CLIP_MARGIN = 0.02


class PyrenderRenderer:
    """`Renderer` on OpenGL. For one thread: a GL context belongs to the thread that made it."""

    name: BackendName = "pyrender"

    def __init__(self) -> None:
        """Open a GL context now rather than at the first mesh.

        A worker limits its memory once its renderer is open, and drivers reserve tens of gigabytes of addresses.

        Raises:
            BackendError: there is no OpenGL here; the message says what to install.
        """
        self._offscreen = open_offscreen(MIN_SIZE)
        import pyrender
        from pyrender.shader_program import ShaderProgramCache

        self._pyrender = pyrender
        self._programs = _Programs(ShaderProgramCache(shader_dir=str(_SHADERS)))
        self._offscreen._renderer._program_cache = self._programs
        _set_state()

    def render(self, mesh: Mesh, rig: Rig, styles: Sequence[Style], size: int) -> Views:
        """See `Renderer.render`.

        Raises:
            BackendError: OpenGL refused to draw.
            MemoryError: the driver ran out of memory.
        """
        from OpenGL.error import GLError
        from OpenGL.GL import GL_OUT_OF_MEMORY

        check_size(size)
        if self._offscreen is None:
            raise BackendError("this renderer was closed; open another")
        self._offscreen._platform.make_current()
        primitives = list(_primitives(self._pyrender, mesh, "texture" in styles))
        try:
            return self._draw(primitives, mesh.has_color, rig, styles, size)
        except GLError as error:
            if error.err == GL_OUT_OF_MEMORY:
                raise MemoryError("OpenGL is out of memory") from error
            raise BackendError(f"OpenGL failed while drawing: {error.description or error.err}") from error
        finally:
            self._free(primitives)

    def close(self) -> None:
        """Give the GL context back."""
        if self._offscreen is not None:
            self._offscreen.delete()
            self._offscreen = None

    def _draw(self, primitives: list[Any], has_color: bool, rig: Rig, styles: Sequence[Style], size: int) -> Views:
        pyrender = self._pyrender
        # White, and transparent where nothing is drawn. An array: pyrender takes a list of whole numbers for bytes.
        scene = pyrender.Scene(bg_color=np.array([shading.BACKGROUND / 255] * 3 + [0.0]))
        scene.add(pyrender.Mesh(primitives))
        near, far = rig.distance - 1 - _CLIP_MARGIN, rig.distance + 1 + _CLIP_MARGIN
        camera = scene.add(pyrender.PerspectiveCamera(math.radians(rig.fov_y_deg), near, far, aspectRatio=1.0))
        self._offscreen.viewport_width = self._offscreen.viewport_height = size
        self._programs.constants = _constants(rig, size)
        cameras = rig.cam_to_world
        images = np.empty((len(styles), rig.n_views, size, size, 3), np.uint8)
        mask = np.zeros(rig.n_views, bool)
        flags = pyrender.RenderFlags.RGBA | pyrender.RenderFlags.SKIP_CULL_FACES
        for v, cam_to_world in enumerate(cameras):
            scene.set_pose(camera, cam_to_world.astype(np.float64))
            for s, style in enumerate(styles):
                self._programs.style = "clay" if style == "texture" and not has_color else style
                rgba, _ = self._offscreen.render(scene, flags)
                images[s, v] = rgba[::-1, :, :3]  # the vertex shader says why it draws upside down
            # Colour cannot tell: a white face in full light is as white as the ground.
            mask[v] = rgba[..., 3].any()
        return Views(images, mask, cameras)

    def _free(self, primitives: list[Any]) -> None:
        """Empty the GPU of a mesh; pyrender would keep it until it draws the next, and after a failure for good."""
        for primitive in primitives:
            primitive.delete()
            for texture in primitive.material.textures:
                texture.delete()
        self._offscreen._renderer._meshes = set()
        self._offscreen._renderer._mesh_textures = set()


@dataclass
class _Programs:
    """Stands in pyrender's place for shaders: the programs it asks for are made of ours, for the style now drawn.

    Attributes:
        cache: pyrender's own, pointed at our shaders.
        constants: text for each MVR_ name in the shaders.
        style: what to draw next.
    """

    cache: Any
    constants: dict[str, str] = field(default_factory=dict)
    style: Style = "clay"

    def get_program(
        self, vertex_shader: str, fragment_shader: str, geometry_shader: str | None = None, defines: Any = None
    ) -> Any:
        """Program for one primitive; `defines` say which vertex attributes and texture it has."""
        ours = {**(defines or {}), **self.constants, f"MVR_STYLE_{self.style.upper()}": "1"}
        return self.cache.get_program(vertex_shader, fragment_shader, geometry_shader, ours)

    def clear(self) -> None:
        """Forget all programs; pyrender calls it when its context ends."""
        self.cache.clear()


def _constants(rig: Rig, size: int) -> dict[str, str]:
    """Text for each MVR_ name in the shaders: the numbers of `shading`, and those of this rig."""
    lights = []
    for direction, strength in shading.LIGHTS:
        unit = np.array(direction) / np.linalg.norm(direction)
        lights.append(_vector(*unit, strength))
    return {
        "MVR_AMBIENT": _number(shading.AMBIENT),
        "MVR_LIGHTS": ", ".join(lights),
        "MVR_KNEE_AT": _number(shading.KNEE / 255),
        "MVR_KNEE_SLOPE": _number(shading.KNEE_SLOPE),
        "MVR_CLAY": _vector(*shading.CLAY / 255),
        "MVR_GREY_NEAR": _number(shading.DEPTH_NEAR),
        "MVR_GREY_FAR": _number(shading.DEPTH_FAR),
        "MVR_SILHOUETTE_GREY": _number(shading.SILHOUETTE),
        "MVR_DEPTH_RANGE": _vector(rig.distance - 1, rig.distance + 1),
        "MVR_PIXEL_AT_UNIT_DEPTH": _number(2 * math.tan(math.radians(rig.fov_y_deg) / 2) / size),
    }


def _number(value: float) -> str:
    """GLSL for a float; nine digits are all that float32 holds, and the point keeps GLSL from reading an int."""
    return f"{float(value):.9f}"


def _vector(*values: float) -> str:
    return f"vec{len(values)}({', '.join(map(_number, values))})"


def _primitives(pyrender: Any, mesh: Mesh, colored: bool) -> Iterator[Any]:
    """One pyrender primitive for each texture, and one for the faces that have none."""
    has_texture = colored and mesh.uv is not None and mesh.face_texture is not None and bool(mesh.textures)
    if not has_texture:
        yield _primitive(pyrender, mesh, mesh.faces, -1, colored)
        return
    assert mesh.face_texture is not None
    order = np.argsort(mesh.face_texture, kind="stable")
    textures, starts = np.unique(mesh.face_texture[order], return_index=True)
    for texture, group in zip(textures, np.split(order, starts[1:]), strict=True):
        yield _primitive(pyrender, mesh, mesh.faces[group], int(texture), colored)


def _primitive(pyrender: Any, mesh: Mesh, faces: NDArray[np.int32], texture: int, colored: bool) -> Any:
    # Only the vertices that these faces use: pyrender uploads a primitive's own copy, and there may be many textures.
    used = np.zeros(len(mesh.vertices), bool)
    used[faces] = True
    material = pyrender.MetallicRoughnessMaterial()
    if texture >= 0:
        # Nearest level, as `TexturePyramids` reads it.
        sampler = pyrender.Sampler(
            magFilter=pyrender.GLTF.LINEAR,
            minFilter=pyrender.GLTF.LINEAR_MIPMAP_NEAREST,
            wrapS=pyrender.GLTF.REPEAT,
            wrapT=pyrender.GLTF.REPEAT,
        )
        material.baseColorTexture = pyrender.Texture(
            source=mesh.textures[texture], source_channels="RGB", sampler=sampler
        )
    primitive = pyrender.Primitive(
        positions=mesh.vertices[used],
        texcoord_0=mesh.uv[used] if texture >= 0 and mesh.uv is not None else None,
        color_0=mesh.vertex_colors[used] if colored and mesh.vertex_colors is not None else None,
        material=material,
    )
    # Past pyrender's setter, which goes through float32 and so confuses vertices beyond 2**24.
    primitive._indices = (np.cumsum(used, dtype=np.uint32) - 1)[faces]
    return primitive


def _set_state() -> None:
    """Set what pyrender leaves as it finds it."""
    from OpenGL import GL

    # Rows of RGB texels need not fill whole words; with GL's default, a texture of odd width is sheared.
    GL.glPixelStorei(GL.GL_UNPACK_ALIGNMENT, 1)
    # Run the shader for each of a pixel's four samples, where the driver can (OpenGL 4). Run once for a pixel, it
    # carries a face on to the pixel's centre even where the face does not reach it, and fine textures shimmer.
    if GL.glMinSampleShading:
        GL.glEnable(GL.GL_SAMPLE_SHADING)
        GL.glMinSampleShading(1.0)
