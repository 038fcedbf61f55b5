"""Miniature archives with the layout of the released ones, and readers of the output."""

from __future__ import annotations

import csv
import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

OFF = b"OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n"


def off(shift: int = 0) -> bytes:
    """A tetrahedron as OFF; `shift` makes it distinct."""
    return OFF.replace(b"\n1 0 0", b"\n%d 0 0" % (1 + shift))


def glb(shift: int = 0) -> bytes:
    """A triangle as GLB; `shift` makes it distinct."""
    points = struct.pack("<9f", 0, 0, 0, 1 + shift, 0, 0, 0, 1, 0)
    text = (
        '{"asset":{"version":"2.0"},"scene":0,"scenes":[{"nodes":[0]}],"nodes":[{"mesh":0}],'
        '"meshes":[{"primitives":[{"attributes":{"POSITION":0}}]}],'
        '"accessors":[{"bufferView":0,"componentType":5126,"count":3,"type":"VEC3",'
        f'"min":[0,0,0],"max":[{1 + shift},1,0]}}],"bufferViews":[{{"buffer":0,"byteLength":36}}],"buffers":[{{"byteLength":36}}]}}'
    ).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(points), b"BIN\0") + points
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def image(grey: int = 100, suffix: str = "JPEG") -> bytes:
    """A small grey image."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (grey, grey, grey)).save(file, suffix)
    return file.getvalue()


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a zip without compression, with the clutter that macOS adds."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        first = next(iter(files))
        archive.writestr(f"__MACOSX/{first.rsplit('/', 1)[0]}/._{first.rsplit('/', 1)[-1]}", b"clutter")
    return path


def write_tar(path: Path, files: Mapping[str, bytes], mode: str = "w:gz") -> Path:
    """Write a tar."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write files to a folder."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def damage(archive: Path, content: bytes) -> None:
    """Change the content of a stored member, but not its checksum."""
    data = archive.read_bytes()
    assert data.count(content) >= 1
    archive.write_bytes(data.replace(content, bytes(255 - b for b in content), 1))


def table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of each file of a folder; they change when a file is rewritten."""
    found = {path: path.stat() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {path.relative_to(folder).as_posix(): (info.st_ino, info.st_mtime_ns) for path, info in found.items()}


def check_error(capsys: pytest.CaptureFixture[str], code: str, *contains: str) -> None:
    """Check that a script has printed one error with this code and these values, last of all."""
    printed = capsys.readouterr()
    error = printed.err.strip()
    assert "error: " in error and error.endswith(f"[{code}]"), printed
    for text in contains:
        assert text in error, f"{text!r} is not in: {error}"
