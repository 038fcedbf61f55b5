"""STEP and IGES: shape, axes and colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cad_files import iges_box, step_ball, step_box
from error_codes import raises_code
from mesh_area import areas

from mvrender.errors import MeshError
from mvrender.loading import Loaded, load

pytest.importorskip("cascadio", reason="the extra is not installed: pip install 'mvretrieval[cad]'")


def read(folder: Path, name: str, text: str) -> Loaded:
    (folder / name).write_text(text)
    return load(folder / name)


def extents(loaded: Loaded) -> list[float]:
    """In ratio to the smallest, with +Y up."""
    vertices = loaded.mesh.vertices
    found = vertices.max(axis=0) - vertices.min(axis=0)
    return [round(float(x / found.min()), 5) for x in found]


@pytest.mark.parametrize("name", ["a.step", "a.STP", "a.igs", "a.iges"])
def test_a_box_stands_on_its_z_axis(tmp_path: Path, name: str) -> None:
    size = (1, 2, 3)
    loaded = read(tmp_path, name, step_box(size) if "st" in name.lower() else iges_box(size))
    assert loaded.up == "+z" and loaded.facts["faces"] == 12 and loaded.mesh.notes == ()
    assert sorted(extents(loaded)) == [1, 2, 3] and extents(loaded)[1] == 3


def test_colors_of_the_solid_and_of_its_faces(tmp_path: Path) -> None:
    orange = read(tmp_path, "a.step", step_box((1, 1, 1), whole=(1, 0.5, 0))).mesh
    assert orange.vertex_colors is not None
    assert np.abs(orange.vertex_colors.astype(int) - (255, 128, 0)).max() <= 1  # not converted to linear light

    sides = read(tmp_path, "b.step", step_box((1, 1, 1), {0: (0, 0, 1), 1: (1, 0, 0)})).mesh
    assert sides.vertex_colors is not None
    height = sides.vertices[sides.faces][:, :, 1]
    colors = sides.vertex_colors[sides.faces[:, 0]]
    bottom, top = height.max(axis=1) == height.min(), height.min(axis=1) == height.max()
    assert bottom.sum() == top.sum() == 2
    assert (colors[bottom] == (0, 0, 255)).all() and (colors[top] == (255, 0, 0)).all()
    assert len(np.unique(colors[~bottom & ~top], axis=0)) == 1


@pytest.mark.parametrize("radius", [0.01, 1, 10_000])
def test_curved_surfaces_are_smooth_at_every_scale(tmp_path: Path, radius: float) -> None:
    mesh = read(tmp_path, "a.step", step_ball(radius)).mesh
    own = float(np.linalg.norm(mesh.vertices, axis=1).max())
    assert areas(mesh) / own**2 == pytest.approx(4 * np.pi, rel=0.005)
    assert 500 < len(mesh.faces) < 10_000


@pytest.mark.parametrize("name", ["a.step", "a.igs"])
@pytest.mark.parametrize("text", ["ISO-10303-21;", "solid x\n", "\0" * 500])
def test_damaged_files_are_unreadable(tmp_path: Path, name: str, text: str) -> None:
    with raises_code(MeshError, "unreadable"):
        read(tmp_path, name, text)


def test_half_a_file_is_no_crash(tmp_path: Path) -> None:
    for name, text in (("a.step", step_box((1, 2, 3))), ("a.igs", iges_box((1, 2, 3)))):
        for share in (0.3, 0.6, 0.9):
            try:
                loaded = read(tmp_path, name, text[: int(len(text) * share)])
            except MeshError as error:
                assert error.code in ("unreadable", "no_faces")
            else:
                assert 0 < loaded.facts["faces"] <= 12
