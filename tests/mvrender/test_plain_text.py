"""Texts from files reach messages and terminals without control characters, and cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mvrender.errors import MeshError
from mvrender.loading import load
from mvrender.plain_text import printable, printable_lines, shortened


def test_control_characters_are_escaped() -> None:
    assert printable("chair 椅子.glb") == "chair 椅子.glb"
    assert printable("a\x1b[31m\nb\udc80") == "a\\x1b[31m\\nb\\udc80"
    assert printable_lines("a\x07\nb") == "a\\x07\nb"


@pytest.mark.parametrize("text", ["a" * 300, "\x1b" * 300, "short\n" + "b" * 300])
def test_long_texts_are_cut(text: str) -> None:
    found = shortened(text, 100)
    assert len(found) == 100 and "…" in found and found.isprintable()
    assert shortened("as it is", 100) == "as it is"


def with_buffer(name: str) -> str:
    """A glTF file with a triangle in another file."""
    tree = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": 36, "uri": name}],
        "bufferViews": [{"buffer": 0, "byteLength": 36}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "nodes": [{"mesh": 0}],
    }
    return json.dumps(tree)


def test_names_of_other_files_are_cut_and_escaped(tmp_path: Path) -> None:
    for name in ("a" * 100_000 + ".bin", "\x1b[31m.bin", "../" * 30_000 + "a", "https://" + "a" * 100_000):
        (tmp_path / "a.gltf").write_text(with_buffer(name))
        with pytest.raises(MeshError) as caught:
            load(tmp_path / "a.gltf")
        message = caught.value.message
        assert len(message) < 250 + len(str(tmp_path)) and message.isprintable()
        assert name[:5].replace("\x1b", "\\x1b")[:5] in message


def test_notes_are_not_without_end(tmp_path: Path) -> None:
    materials = "".join(f"newmtl m{i}\nmap_Kd {i}-{'x' * 5000}\n" for i in range(80))
    (tmp_path / "a.mtl").write_text(materials)
    faces = "".join(f"usemtl m{i}\nf 1/1 2/1 3/1\n" for i in range(80))
    (tmp_path / "a.obj").write_text(f"mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\n{faces}")
    notes = load(tmp_path / "a.obj").mesh.notes
    assert len(notes) == 51 and notes[-1] == "30 more notes are left out"
    assert max(map(len, notes)) < 200
