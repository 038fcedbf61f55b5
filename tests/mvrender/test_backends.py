"""Both backends draw the same picture: our rasteriser and OpenGL share the styles' numbers, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

import mvrender
from mvrender.backends.gl_platform import choose_platform
from mvrender.backends.raster import RasterRenderer
from mvrender.cameras import parse_rig
from mvrender.errors import BackendError
from mvrender.mesh import Mesh, normalise
from mvrender.pool import Job, RenderPool, RenderSpec
from mvrender.renderer import Renderer
from mvrender.shading import LIGHTS, STYLES, Style

RIG = parse_rig("ring:6@30")
SIZE = 224
# Of 255, over the whole picture. Measured with Mesa: at most 0.10 (a texture), silhouettes 0.003. Drivers may place a
# pixel's samples otherwise; with the pattern mirrored, the same meshes differ by up to 0.4.
MEAN_DIFFERENCE = 0.5


@pytest.fixture(scope="module")
def raster() -> RasterRenderer:
    return RasterRenderer()


@pytest.fixture(scope="module")
def pyrender() -> Iterator[Renderer]:
    pytest.importorskip("pyrender")
    try:
        os.environ.get("PYOPENGL_PLATFORM") or choose_platform()
    except BackendError as error:
        pytest.skip(str(error))
    from mvrender.backends.pyrender import PyrenderRenderer

    renderer = PyrenderRenderer()
    yield renderer
    renderer.close()


def _mesh(parts: trimesh.Trimesh, **looks: Any) -> Mesh:
    return normalise(Mesh(parts.vertices.astype(np.float32), parts.faces.astype(np.int32), **looks))


def colored_scene() -> Mesh:
    """A ball that a box cuts into, every vertex in a colour of its own."""
    box = trimesh.creation.box((1.2, 0.3, 0.8))
    box.apply_translation((0.3, -0.5, 0.1))
    parts = trimesh.creation.icosphere(3, 0.5) + box
    colors = 127 + 127 * np.sin(parts.vertices * [5, 7, 3] + [0, 1, 2])
    return _mesh(parts, vertex_colors=colors.astype(np.uint8))


def textured_cube() -> Mesh:
    """Faces with one of two repeating textures (one of odd width) or with none; vertex colours over them all."""
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
    """A torus; every n-th face wound the wrong way round."""
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
    """An 8 x 8 board of random colours."""
    board = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return board[(np.arange(height) * 8 // height)[:, None], np.arange(width) * 8 // width]


MESHES: dict[str, Callable[[], Mesh]] = {
    "scene": colored_scene,
    "cube": textured_cube,
    "plate": thin_plate,
    "mixed": lambda: torus(flip_every=2),
}


@pytest.mark.parametrize("name", MESHES)
@pytest.mark.parametrize("size", [SIZE, 225])  # rows of odd length are where GL's alignment bites
def test_both_backends_draw_the_same(name: str, size: int, raster: Renderer, pyrender: Renderer) -> None:
    mesh = MESHES[name]()
    ours, theirs = raster.render(mesh, RIG, STYLES, size), pyrender.render(mesh, RIG, STYLES, size)
    assert ours.images.shape == theirs.images.shape
    np.testing.assert_array_equal(ours.mask, theirs.mask)
    np.testing.assert_array_equal(ours.cameras, theirs.cameras)
    silhouette = STYLES.index("silhouette")
    a, b = ours.images[silhouette] < 128, theirs.images[silhouette] < 128
    assert (a & b).sum() / (a | b).sum() > 0.98
    difference = np.abs(ours.images.astype(int) - theirs.images).mean(axis=(1, 2, 3, 4))
    assert (difference < MEAN_DIFFERENCE).all(), dict(zip(STYLES, difference.round(3), strict=True))


@pytest.mark.parametrize("backend", ["raster", "pyrender"])
def test_winding_changes_nothing(backend: str, request: pytest.FixtureRequest) -> None:
    renderer: Renderer = request.getfixturevalue(backend)
    styles: list[Style] = ["clay", "normal"]
    right = renderer.render(torus(), RIG, styles, SIZE).images.astype(int)
    for every in (1, 2):
        wrong = renderer.render(torus(flip_every=every), RIG, styles, SIZE).images
        assert np.abs(right - wrong).mean() < 0.02  # a last bit of rounding may decide who is seen on an edge
    assert wrong[1, ..., 2].min() >= 127  # every normal looks towards the camera


@pytest.mark.parametrize("backend", ["raster", "pyrender"])
def test_textures_stand_upright_and_repeat(backend: str, request: pytest.FixtureRequest) -> None:
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


@pytest.mark.parametrize("backend", ["raster", "pyrender"])
def test_mask_tells_views_that_show_nothing(backend: str, request: pytest.FixtureRequest) -> None:
    renderer: Renderer = request.getfixturevalue(backend)
    white = square(np.full((4, 4, 3), 255, np.uint8))
    rig = parse_rig("cube")
    seen_face_on = np.abs(rig.directions[:, 2]) > 0.9
    views = renderer.render(white, rig, ["silhouette", "texture"], SIZE)
    np.testing.assert_array_equal(views.mask, seen_face_on)
    np.testing.assert_array_equal(views.images[0].min(axis=(1, 2, 3)), np.where(seen_face_on, 0, 255))


@pytest.mark.parametrize("backend", ["raster", "pyrender"])
def test_white_in_full_light_is_still_seen(backend: str, request: pytest.FixtureRequest) -> None:
    renderer: Renderer = request.getfixturevalue(backend)
    mesh = square(np.full((4, 4, 3), 255, np.uint8))
    towards_key = trimesh.geometry.align_vectors([0, 0, 1], LIGHTS[0][0])[:3, :3].astype(np.float32)  # type: ignore[no-untyped-call]
    mesh = replace(mesh, vertices=mesh.vertices @ towards_key.T)
    views = renderer.render(mesh, parse_rig("ring:1@0"), ["texture"], SIZE)
    assert 225 < views.images.min() < 250 and views.mask.all()


def test_nothing_stays_behind(pyrender: Renderer) -> None:
    from mvrender.backends.pyrender import PyrenderRenderer

    scene, cube = colored_scene(), textured_cube()
    first = pyrender.render(scene, RIG, STYLES, SIZE).images
    pyrender.render(cube, parse_rig("os3dor"), ["texture"], 301)
    np.testing.assert_array_equal(first, pyrender.render(scene, RIG, STYLES, SIZE).images)
    other = PyrenderRenderer()
    np.testing.assert_array_equal(first, other.render(scene, RIG, STYLES, SIZE).images)
    other.close()
    with pytest.raises(BackendError, match="closed"):
        other.render(scene, RIG, STYLES, SIZE)
    np.testing.assert_array_equal(first, pyrender.render(scene, RIG, STYLES, SIZE).images)


def test_worker_draws_the_same(pyrender: Renderer, tmp_path: Path) -> None:
    path = tmp_path / "torus.ply"
    mesh = torus()
    trimesh.Trimesh(mesh.vertices, mesh.faces).export(path)
    with RenderPool(RenderSpec(rig=RIG, styles=("clay", "depth"), backend="pyrender"), n_workers=1) as pool:
        views = pool.render(Job(path)).views
        assert views is not None
        again = pool.render(Job(path)).views
    here = pyrender.render(mesh, RIG, ["clay", "depth"], SIZE)
    assert np.abs(views.images.astype(int) - here.images).mean() < 0.02
    assert again is not None
    np.testing.assert_array_equal(views.images, again.images)


def _open_elsewhere(**environment: str) -> str:
    """What opening the backend says in a fresh process: PyOpenGL settles on one library for each process."""
    script = (
        "from mvrender.errors import BackendError\n"
        "from mvrender.renderer import open_renderer\n"
        "try:\n    renderer = open_renderer('pyrender')\n"
        "except BackendError as error:\n    print(error)\n"
        "else:\n    import os\n    renderer.close()\n    print('opened', os.environ['PYOPENGL_PLATFORM'])"
    )
    kept = {key: value for key, value in os.environ.items() if key not in ("PYOPENGL_PLATFORM", "EGL_DEVICE_ID")}
    kept["PYTHONPATH"] = str(Path(mvrender.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", script], env={**kept, **environment}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_machine_without_drivers_is_told_what_to_install() -> None:
    pytest.importorskip("pyrender")
    said = _open_elsewhere(PYOPENGL_PLATFORM="egl", __EGL_VENDOR_LIBRARY_FILENAMES="/nonexistent")
    assert "'egl' cannot start" in said and "apt-get install libegl1" in said
    said = _open_elsewhere(__EGL_VENDOR_LIBRARY_FILENAMES="/nonexistent")
    if find_library("OSMesa"):
        assert said == "opened osmesa"
    else:
        assert "EGL says" in said and "apt-get install libosmesa6" in said


def test_the_users_platform_is_respected() -> None:
    pytest.importorskip("pyrender")
    assert "'glx' cannot start" in _open_elsewhere(PYOPENGL_PLATFORM="glx")
