"""GLB export: same shape and colours, in the unit sphere, large meshes decimated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from PIL import Image

from mvrender.backends.selection import open_renderer
from mvrender.cameras import parse_rig
from mvrender.errors import MeshError
from mvrender.glb import decimated, to_glb
from mvrender.jobs import RenderJob, RenderSpec
from mvrender.loading import load
from mvrender.mesh import Mesh, normalize
from mvrender.pool import RenderPool
from mvrender.readers.gltf_file import parse

RIG = parse_rig("ring:4@20")


def rendered(mesh: Mesh) -> NDArray[np.float32]:
    renderer = open_renderer("raster")
    return renderer.render(normalize(mesh), RIG, ("texture",), 96).images.astype(np.float32)


def round_trip(mesh: Mesh, folder: Path) -> Mesh:
    """The mesh that a viewer reads."""
    (folder / "a.glb").write_bytes(to_glb(mesh))
    return load(folder / "a.glb").mesh


def coloured_ball(subdivisions: int = 3) -> Mesh:
    ball = trimesh.creation.icosphere(subdivisions=subdivisions)
    colors = np.where(ball.vertices[:, [0]] > 0, [[200, 30, 30]], [[20, 60, 220]])
    return Mesh(ball.vertices.astype(np.float32) * 3 + 5, ball.faces.astype(np.int32), colors.astype(np.uint8))


def textured_quad() -> Mesh:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32] = (250, 200, 0)
    image[32:, 32:] = (0, 90, 200)
    vertices = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
    return Mesh(
        vertices,
        np.array([[0, 1, 2], [0, 2, 3]], np.int32),
        uv=np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32),
        textures=(image,),
        face_texture=np.zeros(2, np.int32),
    )


@pytest.mark.parametrize(
    "make", [coloured_ball, textured_quad, lambda: Mesh(coloured_ball().vertices, coloured_ball().faces)]
)
def test_the_glb_looks_like_the_mesh(make: object, tmp_path: Path) -> None:
    mesh = make()  # type: ignore[operator]
    found = round_trip(mesh, tmp_path)
    assert np.abs(found.vertices).max() <= 1 + 1e-6 and len(found.faces) == len(mesh.faces)
    assert np.abs(rendered(found) - rendered(mesh)).mean() < 1.0


def test_vertex_colours_are_no_metal() -> None:
    """glTF's default material is metal, which viewers draw almost black."""
    tree, _ = parse(to_glb(coloured_ball()), ".glb")
    (material,) = tree["materials"]
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0 and material["doubleSided"]
    assert all(primitive["material"] == 0 for mesh in tree["meshes"] for primitive in mesh["primitives"])


def test_both_sides_of_a_face_are_visible(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(to_glb(textured_quad()))
    scene = trimesh.load(tmp_path / "a.glb")
    assert all(part.visual.material.doubleSided for part in scene.geometry.values())


def test_holes_stay_holes(tmp_path: Path) -> None:
    corners = np.array([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], np.float32)
    texture = np.full((32, 32, 4), (255, 0, 0, 255), np.uint8)
    texture[8:24, 8:24, 3] = 0
    card = Mesh(
        corners,
        np.array([(0, 1, 2), (0, 2, 3)], np.int32),
        uv=((corners[:, :2] + 1) / 2).astype(np.float32),
        face_texture=np.zeros(2, np.int32),
        textures=(texture,),
    )
    seen = round_trip(card, tmp_path)
    assert seen.has_holes
    assert np.abs(rendered(seen) - rendered(card)).mean() < 0.5


def test_a_large_mesh_is_decimated_and_looks_the_same() -> None:
    mesh = coloured_ball(6)
    small = decimated(mesh, 4000)
    assert len(mesh.faces) == 81_920 and 3000 < len(small.faces) <= 4400
    assert np.abs(rendered(small) - rendered(mesh)).mean() < 3.0
    assert len(to_glb(mesh)) > 5 * len(to_glb(mesh, max_faces=4000))


def test_a_decimated_texture_becomes_colours() -> None:
    quad = textured_quad()
    vertices, faces = quad.vertices, quad.faces
    for _ in range(6):
        vertices, faces = trimesh.remesh.subdivide(vertices, faces)
    uv = ((vertices[:, :2] + 1) / 2).clip(0, 1).astype(np.float32)
    texture = np.zeros(len(faces), np.int32)
    mesh = Mesh(
        vertices.astype(np.float32), faces.astype(np.int32), uv=uv, textures=quad.textures, face_texture=texture
    )
    small = decimated(mesh, len(faces) // 2)
    assert small.vertex_colors is not None
    top, bottom_right = small.vertices[:, 1] > 0.1, (small.vertices[:, 1] < -0.1) & (small.vertices[:, 0] > 0.1)
    assert (small.vertex_colors[top] == (250, 200, 0)).all() and (
        small.vertex_colors[bottom_right] == (0, 90, 200)
    ).all()


def test_large_textures_shrink(tmp_path: Path) -> None:
    quad = textured_quad()
    large = np.asarray(Image.fromarray(quad.textures[0]).resize((3000, 1500), Image.Resampling.NEAREST))
    mesh = Mesh(quad.vertices, quad.faces, uv=quad.uv, textures=(large,), face_texture=quad.face_texture)
    found = round_trip(mesh, tmp_path)
    assert found.textures[0].shape[:2] == (512, 1024)


def test_a_worker_converts_in_its_sandbox(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(subdivisions=2)
    ball.export(tmp_path / "ball.stl")
    (tmp_path / "bad.stl").write_text("solid")
    with RenderPool(RenderSpec(rig=RIG, size=64), n_workers=1) as pool:
        with pytest.raises(MeshError):
            pool.convert(RenderJob(tmp_path / "bad.stl"))
        converted = pool.convert(RenderJob(tmp_path / "ball.stl"))
        assert pool.render(RenderJob(tmp_path / "ball.stl")).views is not None
    scene = trimesh.load(trimesh.util.wrap_as_stream(converted.glb), file_type="glb", force="mesh")
    assert len(scene.faces) == len(ball.faces) and converted.opened.facts["faces"] == len(ball.faces)
