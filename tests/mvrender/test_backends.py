"""All backends render the same images: the rasterizer shares only the shading constants with OpenGL and pyrender."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from ctypes.util import find_library
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from error_codes import raises_code
from numpy.typing import NDArray
from waiting import PATIENCE_S

from mvrender.backends.selection import open_renderer
from mvrender.cameras import parse_rig
from mvrender.errors import BackendError
from mvrender.jobs import RenderJob, RenderSpec
from mvrender.mesh import Mesh, normalize
from mvrender.pool import RenderPool
from mvrender.renderer import BackendName, Renderer
from mvrender.shading import LIGHTS, STYLES, Style

RIG = parse_rig("ring:6@30")
SIZE = 224
# Mean absolute difference of 255. Measured with Mesa: at most 0.14, silhouettes 0.003, or 0.09 with holes. Other drivers may have
# other sample positions: with the pattern mirrored, the same meshes differ by up to 0.4. Textures differ by 0.48: OpenGL reads
# them at each sample, the rasterizer once per pixel and face.
MEAN_DIFFERENCE, OF_TEXTURES = 0.25, 0.6


def _mesh(parts: trimesh.Trimesh, **attributes: Any) -> Mesh:
    return normalize(Mesh(parts.vertices.astype(np.float32), parts.faces.astype(np.int32), **attributes))


def colored_scene() -> Mesh:
    """A ball and a box that intersect, with vertex colours."""
    box = trimesh.creation.box((1.2, 0.3, 0.8))
    box.apply_translation((0.3, -0.5, 0.1))
    parts = trimesh.creation.icosphere(3, 0.5) + box
    colors = 127 + 127 * np.sin(parts.vertices * [5, 7, 3] + [0, 1, 2])
    return _mesh(parts, vertex_colors=colors.astype(np.uint8))


def textured_cube() -> Mesh:
    """Faces with one of two repeating textures (one of odd width) or with none, and vertex colours."""
    box = trimesh.creation.box((1, 1, 1))
    corners = box.vertices[box.faces].reshape(-1, 3)
    axis = np.abs(np.repeat(box.face_normals, 3, axis=0)).argmax(axis=1)
    rows = np.arange(36)
    uv = 1.7 * np.stack([corners[rows, (axis + 1) % 3], corners[rows, (axis + 2) % 3]], axis=1)
    colors = np.full((36, 3), 255, np.uint8)
    colors[::2] = (200, 255, 128)
    return _mesh(
        trimesh.Trimesh(corners, rows.reshape(12, 3), process=False),
        vertex_colors=colors,
        uv=uv.astype(np.float32),
        face_texture=(rows[:12] % 3 - 1).astype(np.int32),
        textures=(_checks(64, 64, seed=0), _checks(50, 37, seed=1)),
    )


def thin_plate() -> Mesh:
    return _mesh(trimesh.creation.box((1, 0.004, 1)))


def torus(flip_every: int | None = None) -> Mesh:
    """A torus, with the winding of every n-th face flipped."""
    mesh = _mesh(trimesh.creation.torus(0.6, 0.25))
    faces = mesh.faces.copy()
    if flip_every:
        faces[::flip_every] = faces[::flip_every, ::-1]
    return replace(mesh, faces=faces)


def square(texture: NDArray[np.uint8]) -> Mesh:
    """A textured square in the plane z = 0."""
    corners = np.array([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], np.float32)
    return Mesh(
        corners / np.float32(np.sqrt(2)),
        np.array([(0, 1, 2), (0, 2, 3)], np.int32),
        uv=np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32),
        face_texture=np.zeros(2, np.int32),
        textures=(texture,),
    )


def _checks(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """An 8 x 8 checkerboard of random colours."""
    board = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return board[(np.arange(height) * 8 // height)[:, None], np.arange(width) * 8 // width]


def leaves() -> Mesh:
    """A ball inside a box with round holes in its sides, two sides of which have a texture without holes."""
    box, ball = trimesh.creation.box((1, 1, 1)), trimesh.creation.icosphere(2, 0.4)
    ball.apply_translation((0.1, 0, 0.1))
    corners = box.vertices[box.faces].reshape(-1, 3)
    axis = np.abs(np.repeat(box.face_normals, 3, axis=0)).argmax(axis=1)
    rows = np.arange(36)
    uv = 0.9 * np.stack([corners[rows, (axis + 1) % 3], corners[rows, (axis + 2) % 3]], axis=1)
    y, x = np.mgrid[:61, :53] % 20 - 10
    holed = np.dstack([_checks(61, 53, seed=2), np.where(x * x + y * y < 40, 0, 255).astype(np.uint8)])
    return _mesh(
        trimesh.Trimesh(
            np.concatenate([corners, ball.vertices]),
            np.concatenate([rows.reshape(12, 3), ball.faces + 36]),
            process=False,
        ),
        uv=np.concatenate([uv, np.zeros((len(ball.vertices), 2))]).astype(np.float32),
        face_texture=np.concatenate([np.where(axis[::3] == 1, 1, 0), np.full(len(ball.faces), -1)]).astype(np.int32),
        textures=(holed, _checks(32, 32, seed=3)),
    )


MESHES: dict[str, Callable[[], Mesh]] = {
    "scene": colored_scene,
    "cube": textured_cube,
    "plate": thin_plate,
    "mixed": lambda: torus(flip_every=2),
    "leaves": leaves,
}


@pytest.mark.parametrize("name", MESHES)
@pytest.mark.parametrize("size", [SIZE, 225])  # odd row lengths reveal wrong alignment in OpenGL
@pytest.mark.parametrize("backend", ["gl", "pyrender"])
def test_backends_render_the_same_images(
    name: str, size: int, backend: str, raster: Renderer, request: pytest.FixtureRequest
) -> None:
    other: Renderer = request.getfixturevalue(backend)
    mesh = MESHES[name]()
    ours, theirs = raster.render(mesh, RIG, STYLES, size), other.render(mesh, RIG, STYLES, size)
    assert ours.images.shape == theirs.images.shape
    np.testing.assert_array_equal(ours.mask, theirs.mask)
    np.testing.assert_array_equal(ours.cameras, theirs.cameras)
    silhouette = STYLES.index("silhouette")
    a, b = ours.images[silhouette] < 128, theirs.images[silhouette] < 128
    assert (a & b).sum() / (a | b).sum() > 0.98
    difference = np.abs(ours.images.astype(int) - theirs.images).mean(axis=(1, 2, 3, 4))
    assert (difference < (OF_TEXTURES if mesh.textures else MEAN_DIFFERENCE)).all(), dict(
        zip(STYLES, difference.round(3), strict=True)
    )


@pytest.mark.parametrize("backend", ["raster", "gl", "pyrender"])
def test_winding_changes_nothing(backend: str, request: pytest.FixtureRequest) -> None:
    renderer: Renderer = request.getfixturevalue(backend)
    styles: list[Style] = ["clay", "normal"]
    right = renderer.render(torus(), RIG, styles, SIZE).images.astype(int)
    for every in (1, 2):
        wrong = renderer.render(torus(flip_every=every), RIG, styles, SIZE).images
        assert np.abs(right - wrong).mean() < 0.02  # rounding may decide which face is visible at an edge
    assert wrong[1, ..., 2].min() >= 127  # every normal points towards the camera


@pytest.mark.parametrize("backend", ["raster", "gl", "pyrender"])
def test_textures_are_upright_and_repeat(backend: str, request: pytest.FixtureRequest) -> None:
    renderer: Renderer = request.getfixturevalue(backend)
    texture = np.zeros((16, 15, 3), np.uint8)
    texture[:8, ..., 0], texture[8:, ..., 2], texture[:, 8:, 1] = 255, 255, 255  # red above blue, green at the right
    mesh = square(texture)
    front = parse_rig("ring:1@0")
    image = renderer.render(mesh, front, ["texture"], SIZE).images[0, 0]
    assert (image[80, 80] > 99).tolist() == [True, False, False]
    assert (image[144, 144] > 99).tolist() == [False, True, True]
    assert mesh.uv is not None
    moved_uv = mesh.uv + np.array([3, -2], np.float32)
    moved = renderer.render(replace(mesh, uv=moved_uv), front, ["texture"], SIZE).images[0, 0]
    np.testing.assert_array_equal(image, moved)


@pytest.mark.parametrize("backend", ["raster", "gl", "pyrender"])
def test_what_is_behind_a_hole_is_seen_in_every_style(backend: str, request: pytest.FixtureRequest) -> None:
    renderer: Renderer = request.getfixturevalue(backend)
    texture = np.full((16, 16, 4), 255, np.uint8)
    texture[..., 1:3] = 0
    texture[4:12, 4:12, 3] = 0
    card = square(texture)
    assert card.uv is not None and card.face_texture is not None
    wall = square(np.full((4, 4, 3), (0, 0, 255), np.uint8)).vertices * 0.5 - np.array([0, 0, 0.5], np.float32)
    both = Mesh(
        np.concatenate([card.vertices, wall.astype(np.float32)]),
        np.concatenate([card.faces, card.faces + 4]),
        uv=np.concatenate([card.uv, card.uv]),
        face_texture=np.concatenate([card.face_texture, card.face_texture + 1]),
        textures=(texture, np.full((4, 4, 3), (0, 0, 255), np.uint8)),
    )
    front, middle = parse_rig("ring:1@0"), SIZE // 2
    alone = renderer.render(card, front, STYLES, SIZE).images[:, 0]
    assert (alone[:, middle, middle] == 255).all()
    edge = int(SIZE * 0.25)
    assert not (alone[:, edge, middle] == 255).all(axis=1).any()
    texture_view, depth_view = (
        renderer.render(both, front, [style], SIZE).images[0, 0] for style in ("texture", "depth")
    )
    assert texture_view[middle, middle].argmax() == 2 and texture_view[edge, middle].argmax() == 0
    assert depth_view[middle, middle, 0] > depth_view[edge, middle, 0] + 20


@pytest.mark.parametrize("backend", ["raster", "gl", "pyrender"])
def test_the_mask_is_false_for_empty_views(backend: str, request: pytest.FixtureRequest) -> None:
    renderer: Renderer = request.getfixturevalue(backend)
    white = square(np.full((4, 4, 3), 255, np.uint8))
    rig = parse_rig("cube")
    seen_face_on = np.abs(rig.directions[:, 2]) > 0.9
    views = renderer.render(white, rig, ["silhouette", "texture"], SIZE)
    np.testing.assert_array_equal(views.mask, seen_face_on)
    np.testing.assert_array_equal(views.images[0].min(axis=(1, 2, 3)), np.where(seen_face_on, 0, 255))


@pytest.mark.parametrize("backend", ["raster", "gl", "pyrender"])
def test_a_white_object_in_full_light_differs_from_the_background(backend: str, request: pytest.FixtureRequest) -> None:
    renderer: Renderer = request.getfixturevalue(backend)
    mesh = square(np.full((4, 4, 3), 255, np.uint8))
    towards_key = trimesh.geometry.align_vectors([0, 0, 1], LIGHTS[0][0])[:3, :3].astype(np.float32)
    mesh = replace(mesh, vertices=mesh.vertices @ towards_key.T)
    views = renderer.render(mesh, parse_rig("ring:1@0"), ["texture"], SIZE)
    assert 225 < views.images.min() < 250 and views.mask.all()


@pytest.mark.parametrize("backend", ["gl", "pyrender"])
def test_renderings_do_not_affect_later_ones(backend: BackendName, request: pytest.FixtureRequest) -> None:
    gl: Renderer = request.getfixturevalue(backend)
    scene, cube = colored_scene(), textured_cube()
    first = gl.render(scene, RIG, STYLES, SIZE).images
    gl.render(cube, parse_rig("os3dor"), ["texture"], 301)
    np.testing.assert_array_equal(first, gl.render(scene, RIG, STYLES, SIZE).images)
    other = open_renderer(backend)
    np.testing.assert_array_equal(first, other.render(scene, RIG, STYLES, SIZE).images)
    other.close()
    with raises_code(BackendError, "renderer_closed"):
        other.render(scene, RIG, STYLES, SIZE)
    np.testing.assert_array_equal(first, gl.render(scene, RIG, STYLES, SIZE).images)


@pytest.mark.parametrize("backend", ["gl", "pyrender"])
def test_a_worker_renders_the_same_images(backend: BackendName, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    gl: Renderer = request.getfixturevalue(backend)
    path = tmp_path / "torus.ply"
    mesh = torus()
    trimesh.Trimesh(mesh.vertices, mesh.faces).export(path)
    with RenderPool(RenderSpec(rig=RIG, styles=("clay", "depth"), backend=backend), n_workers=1) as pool:
        views = pool.render(RenderJob(path)).views
        assert views is not None
        again = pool.render(RenderJob(path)).views
    here = gl.render(mesh, RIG, ["clay", "depth"], SIZE)
    assert np.abs(views.images.astype(int) - here.images).mean() < 0.02
    assert again is not None
    np.testing.assert_array_equal(views.images, again.images)


def test_a_rig_with_more_images_than_fit_into_the_framebuffer(
    raster: Renderer, gl: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mvrender.backends import gl as module

    mesh, rig = colored_scene(), parse_rig("ring:7@30")
    at_once = gl.render(mesh, rig, STYLES, 100)
    monkeypatch.setattr(module, "_MAX_PIXELS", 100 * 100 * 4)  # 35 images: eight full frames and a part
    in_parts = gl.render(mesh, rig, STYLES, 100)
    # Not bit by bit: interpolation is rounded depending on the position in the framebuffer.
    assert np.abs(at_once.images.astype(int) - in_parts.images).mean() < 0.002
    np.testing.assert_array_equal(at_once.mask, in_parts.mask)


def test_textures_too_large_for_the_device_are_halved(gl: Renderer) -> None:
    size = gl._max_side + 2  # type: ignore[attr-defined]
    texture = np.zeros((4, size, 3), np.uint8)
    texture[:, size // 2 :] = 255
    image = gl.render(square(texture), parse_rig("ring:1@0"), ["texture"], SIZE).images[0, 0]
    assert image[SIZE // 2, SIZE // 4].max() == 0 and image[SIZE // 2, 3 * SIZE // 4].min() > 200


def _open_in_new_process(backend: BackendName, **environment: str) -> str:
    """Output of opening the backend in a new process, since drivers are loaded once per process."""
    script = (
        "from mvrender.errors import BackendError\n"
        "from mvrender.backends.selection import open_renderer\n"
        f"try:\n    open_renderer({backend!r}).close()\n"
        "except BackendError as error:\n    print(f'{error.code}: {error}')\n"
        "else:\n    print('opened')"
    )
    chosen = ("GLCONTEXT_DEVICE_INDEX", "EGL_DEVICE_ID", "PYOPENGL_PLATFORM")
    kept = {key: value for key, value in os.environ.items() if key not in chosen}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**kept, **environment}, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(("backend", "package"), [("gl", "moderngl"), ("pyrender", "pyrender")])
def test_the_error_without_drivers_names_what_to_install(backend: BackendName, package: str) -> None:
    pytest.importorskip(package)
    # Otherwise pyrender uses OSMesa, where it is installed.
    environment = {"__EGL_VENDOR_LIBRARY_FILENAMES": "/nonexistent", "PYOPENGL_PLATFORM": "egl"}
    output = _open_in_new_process(backend, **environment)
    assert output.startswith("no_opengl: ") and "apt-get install libegl1" in output and "'raster'" in output


def test_the_device_of_the_environment_variable_is_used(gl: Renderer) -> None:
    assert "device index 31" in _open_in_new_process("gl", GLCONTEXT_DEVICE_INDEX="31")
    assert _open_in_new_process("gl") == "opened"


def test_pyrender_opens_on_the_platform_of_the_environment_variable(pyrender: Renderer) -> None:
    assert "set it to egl or osmesa" in _open_in_new_process("pyrender", PYOPENGL_PLATFORM="glx2")
    assert "31" in _open_in_new_process("pyrender", EGL_DEVICE_ID="31")
    assert _open_in_new_process("pyrender") == "opened"


def test_pyrender_renders_the_same_through_osmesa(pyrender: Renderer, tmp_path: Path) -> None:
    if not find_library("OSMesa"):
        pytest.skip("OSMesa is not installed: apt-get install libosmesa6")
    script = (
        "import sys, numpy as np\nfrom mvrender.backends.selection import open_renderer\n"
        "from mvrender.cameras import parse_rig\nfrom mvrender.shading import STYLES\n"
        "from test_backends import colored_scene\n"
        "views = open_renderer('pyrender').render(colored_scene(), parse_rig('ring:2@30'), STYLES, 128)\n"
        "np.save(sys.argv[1], views.images)\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYOPENGL_PLATFORM": "osmesa", "PYTHONPATH": paths}
    file = tmp_path / "images.npy"
    subprocess.run([sys.executable, "-c", script, file], env=environment, check=True, timeout=PATIENCE_S)
    here = pyrender.render(colored_scene(), parse_rig("ring:2@30"), STYLES, 128).images
    assert np.abs(here.astype(int) - np.load(file)).mean() < MEAN_DIFFERENCE
