"""Images of strangers: few formats, and no helper program, wherever an image is opened."""

from __future__ import annotations

import ast
import os
import stat
from pathlib import Path

import pytest
from doc_pages import ROOT
from error_codes import raises_code
from PIL import Image

from mvrender.image_formats import IMAGE_FORMATS, open_image
from mvrender.loading import load
from mvretrieval.errors import QueryError
from mvretrieval.images import load_image

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) print\nshowpage\n%%EOF\n"


@pytest.fixture
def gs_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists once a program called `gs` was started."""
    calls = tmp_path / "calls"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\necho 9.56\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # Pillow looks for it once
    return calls


def test_the_helper_would_be_found(gs_calls: Path, tmp_path: Path) -> None:
    (tmp_path / "a.eps").write_bytes(EPS)
    with pytest.raises(OSError), Image.open(tmp_path / "a.eps") as opened:
        opened.load()
    assert gs_calls.exists()


@pytest.mark.parametrize("name", ["a.eps", "a.png", "a.jpg"])
def test_no_helper_is_started_for_a_query(name: str, gs_calls: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(EPS)
    with raises_code(QueryError, "unknown_image_format", name):
        load_image(tmp_path / name, 32)
    assert not gs_calls.exists()


def test_no_helper_is_started_for_a_texture(gs_calls: Path, tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(
        "mtllib a.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
    )
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd t.png\n")
    (tmp_path / "t.png").write_bytes(EPS)
    mesh = load(tmp_path / "a.obj").mesh
    assert not mesh.textures and "t.png" in mesh.notes[0] and not gs_calls.exists()


def test_the_formats_are_opened(tmp_path: Path) -> None:
    for name in IMAGE_FORMATS:
        path = tmp_path / "image"
        Image.new("RGB", (4, 4), (200, 10, 10)).save(path, name)
        with open_image(path) as opened:
            assert opened.convert("RGB").size == (4, 4)


def test_images_are_opened_at_one_place() -> None:
    found = []
    for folder in ("mvretrieval", "render", "training", "data_scripts"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and node.attr == "open" and ast.unparse(node.value) == "Image":
                    found.append(file.name)
    assert found == ["image_formats.py"]
