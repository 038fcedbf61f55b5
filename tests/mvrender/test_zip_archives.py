"""ZIP archives of one model are read in place."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import trimesh
from error_codes import raises_code
from PIL import Image

from mvrender.errors import MeshError
from mvrender.loading import load
from mvrender.mesh import Limits

OBJ = "mtllib m.mtl\nusemtl a\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
BOX = trimesh.creation.box().export(file_type="ply")


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (255, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def archive(path: Path, **members: str | bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/").replace("_DOT_", "."), content)
    return path


@pytest.mark.parametrize("texture", ["t.png", "maps/t.png", "MAPS/T.PNG", "..\\model\\maps\\t.png", "C:/x/t.png"])
def test_a_model_with_its_textures(texture: str, tmp_path: Path) -> None:
    members: dict[str, str | bytes] = {
        "model/thing.obj": OBJ,
        "model/m.mtl": f"newmtl a\nmap_Kd {texture}\n",
        "model/maps/t.png": png(),
        "model/t.png": png(),
    }
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    loaded = load(path)
    assert loaded.facts["format"] == "obj" and loaded.facts["textured"] and loaded.mesh.notes == ()
    assert loaded.references == ()  # all of it is in the archive


@pytest.mark.parametrize("prefix", ["./", "../", "source/", "a\\"])
def test_odd_names_of_members(prefix: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(f"{prefix}thing.obj", OBJ)
        file.writestr(f"{prefix}m.mtl", "newmtl a\nmap_Kd t.png\n")
        file.writestr("textures/t.png" if prefix == "source/" else f"{prefix}t.png", png())
    assert load(tmp_path / "a.zip").facts["textured"]


def test_the_richest_of_several_formats_is_read(tmp_path: Path) -> None:
    glb = trimesh.Scene(trimesh.creation.icosphere()).export(file_type="glb")
    path = archive(
        tmp_path / "a.zip", Thing_DOT_stl=trimesh.creation.box().export(file_type="stl"), other__thing_DOT_glb=glb
    )
    loaded = load(path)
    assert loaded.facts["format"] == "glb" and loaded.facts["faces"] == 1280 and loaded.up == "+y"
    assert load(archive(tmp_path / "b.zip", a_DOT_stl=trimesh.creation.box().export(file_type="stl"))).up == "+z"


def test_what_macos_adds_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.zae"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("thing.ply", BOX)
        file.writestr("__MACOSX/._thing.ply", b"nothing")
        file.writestr("thing/", b"")
    assert load(path).facts["faces"] == 12


@pytest.mark.parametrize(
    ("members", "code", "message"),
    [
        ({}, "no_model", "nothing"),
        ({"readme.txt": "x", "a.blend": "y"}, "no_model", "readme.txt, a.blend"),
        ({"a.ply": BOX, "b.ply": BOX}, "several_models", "2 mesh files (a.ply, b.ply)"),
        ({"inner.zip": "x"}, "no_model", "inner.zip"),
        ({"a.ply": b"ply\n"}, "unreadable", "PLY"),
    ],
)
def test_archives_that_hold_no_model(members: dict[str, str | bytes], code: str, message: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    with raises_code(MeshError, code, message):
        load(tmp_path / "a.zip")


def test_damaged_and_hostile_archives(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK\x03\x04 nothing")
    with raises_code(MeshError, "unreadable", "ZIP archive"):
        load(path)
    archive(path, a_DOT_ply=BOX)
    data = bytearray(path.read_bytes())
    data[60:70] = b"0123456789"
    path.write_bytes(bytes(data))
    with raises_code(MeshError, "unreadable", "a.ply"):
        load(path)
    archive(path, a_DOT_ply=BOX, zeros_DOT_bin=bytes(3_000_000))
    with raises_code(MeshError, "too_large", "unpacks to"):
        load(path, limits=Limits(memory_bytes=8_000_000))
    # A member that leads out of the archive is not followed.
    (tmp_path / "secret.mtl").write_text("newmtl a\nKd 1 0 0\n")
    archive(path, a_DOT_obj=OBJ.replace("m.mtl", "../secret.mtl"))
    loaded = load(path)
    assert loaded.mesh.vertex_colors is None and "outside of the folder" in loaded.mesh.notes[0]
