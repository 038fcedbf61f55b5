"""Images of the rasterizer: geometry, lighting, colours, textures, background."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import trimesh
from error_codes import raises_code
from numpy.typing import NDArray

from mvrender.backends.compilation import compiled
from mvrender.backends.raster import RasterRenderer
from mvrender.backends.selection import choose_backend, open_renderer
from mvrender.cameras import Rig, cube, parse_rig, ring
from mvrender.errors import BackendError, RigError
from mvrender.mesh import Mesh, normalize
from mvrender.renderer import MAX_SIZE, MIN_SIZE, Views, check_size
from mvrender.shading import AMBIENT, BACKGROUND, CLAY, DEPTH_FAR, KNEE, KNEE_SLOPE, LIGHTS, STYLES, Style, check_style

FRONT = parse_rig("ring:1@0")
RENDERER = RasterRenderer()


@dataclass(frozen=True)
class TurnedRig(Rig):
    """A rig that is rotated about the origin."""

    rotation: NDArray[np.float64] = field(default_factory=lambda: np.eye(3))

    @property
    def cam_to_world(self) -> NDArray[np.float32]:
        turn = np.eye(4)
        turn[:3, :3] = self.rotation
        return (turn @ super().cam_to_world).astype(np.float32)


def random_rotation(seed: int) -> NDArray[np.float64]:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return np.asarray(q * np.sign(np.linalg.det(q)))


def mesh_of(parts: trimesh.Trimesh, **attributes: Any) -> Mesh:
    return Mesh(parts.vertices.astype(np.float32), parts.faces.astype(np.int32), **attributes)


def lopsided() -> Mesh:
    """A ball with a box through it: no symmetry, and vertex colours."""
    box = trimesh.creation.box((1.2, 0.3, 0.8))
    box.apply_translation((0.3, -0.5, 0.1))
    parts = trimesh.creation.icosphere(3, 0.5) + box
    colors = 127 + 100 * np.sin(parts.vertices * [5, 7, 3] + [0, 1, 2])
    return normalize(mesh_of(parts, vertex_colors=colors.astype(np.uint8)))


def plate(color: tuple[int, int, int] | None = None, z: float = 0.0, side: float = 1.2) -> Mesh:
    """A square across the Z axis."""
    corners = np.array([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], np.float32) * (side / 2)
    corners[:, 2] += z
    colors = None if color is None else np.tile(np.array(color, np.uint8), (4, 1))
    return Mesh(corners.astype(np.float32), np.array([(0, 1, 2), (0, 2, 3)], np.int32), vertex_colors=colors)


def textured_plate(texture: NDArray[np.uint8]) -> Mesh:
    uv = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32)
    return replace(plate(), uv=uv, face_texture=np.zeros(2, np.int32), textures=(texture,))


def together(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0, *(len(m.vertices) for m in meshes)])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.faces + np.int32(start) for m, start in zip(meshes, starts, strict=False)]),
        np.concatenate([m.vertex_colors for m in meshes if m.vertex_colors is not None]),
    )


def look(mesh: Mesh, rig: Rig = FRONT, styles: tuple[Style, ...] = ("texture",), size: int = 96) -> Views:
    return RENDERER.render(mesh, rig, styles, size)


def facing(color: Any) -> NDArray[np.float32]:
    """A colour as it is lit on a surface that faces the camera."""
    light = AMBIENT + sum(strength * towards[2] / np.linalg.norm(towards) for towards, strength in LIGHTS)
    lit = np.asarray(color, np.float32) * np.float32(light)
    return np.asarray(np.minimum(lit, KNEE + KNEE_SLOPE * (lit - KNEE)), np.float32)


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.abs(a.astype(int) - b).mean())


@pytest.mark.parametrize("seed", range(4))
def test_rotating_mesh_and_rig_together_changes_no_image(seed: int) -> None:
    mesh, rig, rotation = lopsided(), ring(5, 25), random_rotation(seed)
    turned_mesh = replace(mesh, vertices=(mesh.vertices @ rotation.T).astype(np.float32))
    turned_rig = TurnedRig(rig.name, rig.directions, rotation=rotation)
    here, there = look(mesh, rig, STYLES), look(turned_mesh, turned_rig, STYLES)
    np.testing.assert_array_equal(here.mask, there.mask)
    # Not bit by bit: a sample on an edge may fall to either side. A mistake in a coordinate frame would change all pixels.
    assert difference(here.images, there.images) < 0.02
    assert difference(here.images, look(turned_mesh, rig, STYLES).images) > 2


def test_rotating_the_mesh_by_one_step_of_the_ring_shifts_the_views() -> None:
    mesh, rig = lopsided(), ring(6, 20)
    turn = trimesh.transformations.rotation_matrix(math.radians(60), [0, 1, 0])[:3, :3]
    turned = replace(mesh, vertices=(mesh.vertices @ turn.T).astype(np.float32))
    shifted = np.roll(look(mesh, rig, STYLES).images, 1, axis=1)
    assert difference(shifted, look(turned, rig, STYLES).images) < 0.02


def test_rendering_is_deterministic() -> None:
    a, b = (RasterRenderer().render(lopsided(), ring(4), STYLES, 100) for _ in range(2))
    np.testing.assert_array_equal(a.images, b.images)
    assert a.images.shape == (len(STYLES), 4, 100, 100, 3) and a.images.dtype == np.uint8
    np.testing.assert_array_equal(a.cameras, ring(4).cam_to_world)


@pytest.mark.parametrize("name", ["ring:3@30", "os3dor", "cube"])
def test_the_silhouette_of_a_ball_is_the_circle_of_perspective_projection(name: str) -> None:
    rig, size = parse_rig(name), 128
    ball = normalize(mesh_of(trimesh.creation.icosphere(4)), rig.fit)
    radius = 1.0 if rig.fit == "sphere" else 0.5
    views = look(ball, rig, ("silhouette",), size)
    tan = math.tan(math.asin(radius / rig.distance)) / math.tan(math.radians(rig.fov_y_deg / 2))
    areas = (255.0 - views.images[0, ..., 0]).sum(axis=(1, 2)) / 255
    np.testing.assert_allclose(areas, math.pi * (tan * size / 2) ** 2, rtol=0.005)
    # Centred, and not cropped.
    rows = np.asarray((views.images[0, ..., 0] < 255).any(axis=2))
    np.testing.assert_array_equal(rows, rows[:, ::-1])
    assert not rows[:, 0].any()


def test_the_background_is_white_and_all_styles_have_the_same_silhouette() -> None:
    images = look(lopsided(), ring(4), STYLES).images
    foreground = (images != BACKGROUND).any(axis=-1)
    outline = foreground[STYLES.index("silhouette")]
    assert 0.1 < outline.mean() < 0.9
    for style, one in zip(STYLES, foreground, strict=True):
        np.testing.assert_array_equal(one & ~outline, False, err_msg=style)
        # A few points may be white by chance.
        assert (outline & ~one).sum() < 0.002 * outline.sum(), style


def test_both_sides_of_a_face_are_lit() -> None:
    rig = ring(2, 0)  # in front and behind
    tilted = plate((180, 90, 40))
    front, back = look(tilted, rig).images[0]
    np.testing.assert_array_equal(front, back)
    flipped = replace(tilted, faces=tilted.faces[:, ::-1].copy())
    np.testing.assert_array_equal(look(flipped, rig).images[0, 0], front)
    np.testing.assert_allclose(front[48, 48], facing((180, 90, 40)), atol=1)


def test_depth_and_normals_of_known_surfaces() -> None:
    size, middle = 97, 48
    depth, normal = (look(plate(), FRONT, (style,), size).images[0, 0] for style in ("depth", "normal"))
    np.testing.assert_allclose(depth[middle, middle], 255 * DEPTH_FAR / 2, atol=1)
    np.testing.assert_allclose(normal[middle, middle], (127.5, 127.5, 255), atol=1)
    ball = normalize(mesh_of(trimesh.creation.icosphere(4)))
    depth, normal = (look(ball, FRONT, (style,), size).images[0, 0].astype(int) for style in ("depth", "normal"))
    np.testing.assert_allclose(depth[middle, middle], 0, atol=1)
    assert (np.diff(depth[middle, middle : middle + 44, 0]) >= 0).all()
    assert (np.diff(normal[middle, 4:-4, 0]) >= 0).all()  # red: to the right
    assert (np.diff(normal[4:-4, middle, 1]) <= 0).all()  # green: up
    inside = normal[np.hypot(*(np.indices((size, size)) - middle)) < 40] / 127.5 - 1
    np.testing.assert_allclose(np.linalg.norm(inside, axis=1), 1, atol=0.02)


def test_near_surfaces_hide_far_ones() -> None:
    mesh = together(plate((200, 0, 0), z=0.3, side=0.6), plate((0, 0, 200), z=-0.3))
    front, back = look(mesh, ring(2, 0)).images[0]
    assert front[48, 48].argmax() == 0 and back[48, 48].argmax() == 2
    assert front[48, 28].argmax() == 2


def test_a_mesh_without_colours_is_rendered_as_clay() -> None:
    bare = look(lopsided_without_colors(), ring(3), ("texture", "clay")).images
    np.testing.assert_array_equal(bare[0], bare[1])
    np.testing.assert_allclose(look(plate()).images[0, 0, 48, 48], facing(CLAY), atol=1)


def lopsided_without_colors() -> Mesh:
    return replace(lopsided(), vertex_colors=None)


def test_textures_have_u_to_the_right_and_v_upwards() -> None:
    texture = np.zeros((8, 8, 3), np.uint8)
    quadrants = {(0, 0): (200, 30, 30), (0, 1): (30, 200, 30), (1, 0): (30, 30, 200), (1, 1): (120, 120, 30)}
    for (row, column), color in quadrants.items():
        texture[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] = color
    image = look(textured_plate(texture)).images[0, 0]
    for (row, column), color in quadrants.items():
        seen = image[35 + 26 * row, 35 + 26 * column]
        np.testing.assert_allclose(seen, facing(color), atol=1)
    # From behind, left and right are swapped.
    behind = look(textured_plate(texture), ring(2, 0)).images[0, 1]
    np.testing.assert_allclose(behind[:, ::-1].astype(int), image, atol=3)


def test_fine_textures_are_averaged() -> None:
    checks = (np.indices((1024, 1024)).sum(axis=0) % 2 * 160).astype(np.uint8)
    image = look(textured_plate(np.repeat(checks[..., None], 3, axis=-1))).images[0, 0]
    inside = image[30:66, 30:66].astype(float)
    np.testing.assert_allclose(inside, facing((80, 80, 80))[0], atol=2)


def test_vertex_colours_multiply_textures_and_some_faces_may_have_no_texture() -> None:
    white = np.full((4, 4, 3), 255, np.uint8)
    colors = np.tile(np.array([(200, 100, 50)], np.uint8), (4, 1))
    image = look(replace(textured_plate(white), vertex_colors=colors)).images[0, 0]
    np.testing.assert_allclose(image[48, 48], facing((200, 100, 50)), atol=1)
    half = replace(
        textured_plate(np.zeros((4, 4, 3), np.uint8)), vertex_colors=colors, face_texture=np.array([0, -1], np.int32)
    )
    image = look(half).images[0, 0]
    np.testing.assert_allclose(image[60, 70], 0, atol=1)  # lower right: black texture
    np.testing.assert_allclose(image[36, 26], facing((200, 100, 50)), atol=1)


def test_vertex_colours_are_interpolated_over_a_face() -> None:
    colors = np.array([(0, 0, 0), (200, 0, 0), (200, 0, 0), (0, 0, 0)], np.uint8)
    row = look(replace(plate(), vertex_colors=colors)).images[0, 0, 48, :, 0].astype(int)
    inside = row[28:68]
    assert (np.diff(inside) >= 0).all() and inside[-1] - inside[0] > 80
    np.testing.assert_allclose(row[48], facing((102, 0, 0))[0], atol=3)


def test_a_plane_is_masked_where_it_is_seen_edge_on() -> None:
    rig = cube()
    views = look(plate((90, 90, 90)), rig, STYLES)
    np.testing.assert_array_equal(views.mask, np.abs(rig.directions[:, 2]) > 0.9)
    assert (views.images[:, ~views.mask] == BACKGROUND).all()
    assert (views.images[:, views.mask] != BACKGROUND).any(axis=(2, 3, 4)).all()


def test_degenerate_triangles_are_not_visible() -> None:
    line = Mesh(np.array([(-1, 0, 0), (0, 0, 0), (1, 0, 0)], np.float32), np.array([(0, 1, 2)], np.int32))
    views = look(line, cube())
    assert not views.mask.any() and (views.images == BACKGROUND).all()


def test_faces_without_area_change_nothing() -> None:
    mesh = lopsided()
    flat = np.array([(0, 0, 1), (5, 5, 5)], np.int32)
    assert (
        difference(look(mesh, ring(3)).images, look(replace(mesh, faces=np.vstack([mesh.faces, flat])), ring(3)).images)
        < 0.01
    )


def test_a_pixel_on_an_edge_is_as_dark_as_its_coverage() -> None:
    size = 96
    for side in np.linspace(0.9, 1.1, 23):
        image = 1 - look(plate(side=side), styles=("silhouette",), size=size).images[0, 0, ..., 0] / 255
        edge = size / 2 * (1 + side / 2 / FRONT.distance / math.tan(math.radians(15)))
        column, covered = int(edge), edge % 1
        # The samples are in eight columns and eight rows: coverage is exact to half of an eighth.
        assert image[size // 2, column] == pytest.approx(covered, abs=1 / 16 + 0.005)
        assert image[column, size // 2] == pytest.approx(covered, abs=1 / 16 + 0.005)


def test_two_faces_meet_without_a_gap() -> None:
    rng = np.random.default_rng(3)
    pinholes = 0
    for _ in range(8):
        corners = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]) + rng.normal(size=(4, 3)) * 0.15
        quad = normalize(Mesh(corners.astype(np.float32), np.array([[0, 1, 2], [0, 2, 3]], np.int32)))
        for image in RENDERER.render(quad, ring(4), ("silhouette",), MAX_SIZE).images[:, 0, ..., 0]:
            dark = image < 128
            steps = [np.roll(dark, step, axis) for step in (-3, -2, -1, 1, 2, 3) for axis in (0, 1)]
            pinholes += int(((image > 0) & dark & np.all(steps, axis=0)).sum())
    # Rounding may leave one of millions of samples uncovered. With accumulation along rows it was dozens.
    assert pinholes <= 4


def test_dense_faces_hide_what_is_behind_them() -> None:
    """Thousands of faces smaller than a pixel, in front of a plate and behind it."""
    ball = trimesh.creation.icosphere(6, 0.4)
    red = np.tile(np.array([(200, 0, 0)], np.uint8), (len(ball.vertices), 1))
    mesh = together(mesh_of(ball, vertex_colors=red), plate((0, 0, 200), z=0.0, side=0.4))
    image = look(mesh).images[0, 0].astype(int)
    foreground = (image != BACKGROUND).any(axis=-1)
    assert foreground.sum() > 800 and (image[foreground][:, 2] <= image[foreground][:, 0]).all()
    in_front = together(mesh_of(ball, vertex_colors=red), plate((0, 0, 200), z=0.5, side=0.4))
    np.testing.assert_allclose(look(in_front).images[0, 0, 48, 48], facing((0, 0, 200)), atol=1)


@pytest.mark.parametrize("size", [MIN_SIZE, 65, MAX_SIZE])
def test_sizes(size: int) -> None:
    images = look(plate(), styles=("silhouette",), size=size).images
    assert images.shape == (1, 1, size, size, 3)
    # The plate covers the same share of every image.
    expected = (1.2 / 2 / FRONT.distance / math.tan(math.radians(15))) ** 2
    assert 1 - images.mean() / 255 == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("size", [0, MIN_SIZE - 1, MAX_SIZE + 1])
def test_sizes_out_of_range_are_refused(size: int) -> None:
    with raises_code(RigError, "bad_view_size", f"{size} ", "64 to 1024 pixels"):
        check_size(size)
    with pytest.raises(RigError):
        look(plate(), size=size)


def test_names_of_styles_and_backends() -> None:
    assert [check_style(style) for style in STYLES] == list(STYLES)
    with raises_code(RigError, "unknown_style", "'wood'", "texture, clay"):
        check_style("wood")
    assert choose_backend("raster")[0] == "raster" == open_renderer("raster").name
    assert choose_backend()[0] in ("raster", "gl")


def test_a_backend_that_is_not_installed_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moderngl", None)  # makes the import fail
    monkeypatch.setattr("mvrender.backends.selection.has_gpu", lambda: True)
    with raises_code(BackendError, "backend_not_installed", "pip install 'mvretrieval[gl]'"):
        choose_backend("gl")
    with raises_code(BackendError, "backend_not_installed", "pip install 'mvretrieval[gl]'"):
        open_renderer("gl")
    assert choose_backend()[0] == "raster"


def test_opengl_is_chosen_only_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("moderngl")
    for here, best in ((False, "raster"), (True, "gl")):
        monkeypatch.setattr("mvrender.backends.selection.has_gpu", lambda here=here: here)
        assert choose_backend()[0] == best


@pytest.mark.parametrize("temporary", ["own", "another's", "missing"])
def test_compiled_code_is_cached_in_a_private_temporary_folder_if_no_other_is_writable(
    temporary: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither the package's folder nor the home folder is writable."""
    from numba.core import caching

    # The name has no underscore in later versions of numba.
    locator = getattr(caching, "UserProvidedCacheLocator", None) or caching._UserProvidedCacheLocator

    folder = tmp_path / ("none" if temporary == "missing" else "")
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [locator])
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    if temporary == "another's":
        (folder / f"mvrender-{os.getuid()}").mkdir(mode=0o777)
        (folder / f"mvrender-{os.getuid()}").chmod(0o777)
    assert compiled(next_one)(1) == 2
    assert bool(list(folder.rglob("*.nbi"))) == (temporary == "own")


def next_one(x: int) -> int:
    return x + 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no limit of files' sizes")
def test_compilation_works_with_a_full_disk(tmp_path: Path) -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from mvrender.backends.raster import RasterRenderer; RasterRenderer(); print('rendered')"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "rendered" and not list(tmp_path.rglob("*.nbc"))
