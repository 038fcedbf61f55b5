"""Images of strangers: few formats, and no helper program, wherever an image is opened."""

from __future__ import annotations

import ast
import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from doc_pages import ROOT
from error_codes import raises_code
from PIL import Image

from mvrender.cameras import parse_rig
from mvrender.errors import MeshError
from mvrender.image_formats import IMAGE_FORMATS, open_image, small_rgba
from mvrender.jobs import RenderSpec
from mvrender.loading import load
from mvrender.mesh import Limits
from mvrender.pool import RenderPool
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
    for folder in ("mvretrieval", "render", "training"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and node.attr == "open" and ast.unparse(node.value) == "Image":
                    found.append(file.name)
    assert found == ["image_formats.py"]


def test_a_worker_decodes_an_image_as_this_process_does(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 90, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels[..., :3]).save(tmp_path / "b.jpg")
    (tmp_path / "c.png").write_bytes(EPS)
    (tmp_path / "d.png").write_bytes((tmp_path / "a.png").read_bytes()[:500])
    with RenderPool(RenderSpec(rig=parse_rig("ring:1"), size=64), 1) as pool:
        for name in ("a.png", "b.jpg"):
            for side in (500, 30):
                np.testing.assert_array_equal(
                    pool.decode_image(tmp_path / name, side), small_rgba(tmp_path / name, side)
                )
        for name in ("c.png", "d.png", "missing.png"):
            with raises_code(MeshError, "unreadable", name):
                pool.decode_image(tmp_path / name, 30)
        assert pool.decode_image(tmp_path / "a.png", 30).shape == (13, 30, 4)  # the worker lives


def test_an_image_that_takes_too_long_ends_its_worker_alone(tmp_path: Path) -> None:
    Image.new("L", (12_000, 12_000)).save(tmp_path / "large.png")
    spec = RenderSpec(rig=parse_rig("ring:1"), size=64, limits=Limits(seconds=0.05))
    with RenderPool(spec, 1) as pool:
        with raises_code(MeshError, "timeout"):
            pool.decode_image(tmp_path / "large.png", 500)
    with RenderPool(replace(spec, limits=Limits(memory_bytes=50 << 20)), 1) as pool:
        with raises_code(MeshError, "out_of_memory"):
            pool.decode_image(tmp_path / "large.png", 500)
