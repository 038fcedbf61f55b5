"""Whether the bytes of a file look like its format: enough to find an error page or a file that was cut off."""

from __future__ import annotations

import io
import warnings

from PIL import Image


def off(data: bytes) -> str | None:
    """OFF: its head, and a number of lines that its counts allow.

    ModelNet40 has files whose counts stand right behind the word: `OFF490 518 0`.
    """
    if data[:3].upper() != b"OFF":
        return f"is no OFF file, it begins with {data[:16]!r}"
    lines = [line for line in data[3:].splitlines() if line.strip() and not line.lstrip().startswith(b"#")]
    try:
        n_vertices, n_faces = (int(number) for number in lines[0].split()[:2])
    except (IndexError, ValueError):
        return "has no counts of vertices and faces"
    if n_faces == 0 or n_vertices == 0:
        return "holds no faces"
    if len(lines) > n_vertices + n_faces:
        return None
    # Some writers put several vertices on a line.
    numbers, needed = sum(len(line.split()) for line in lines[1:]), 3 * n_vertices + 4 * n_faces
    return None if numbers >= needed else f"ends early: {numbers:,} of {needed:,} numbers"


def glb(data: bytes) -> str | None:
    """Binary glTF: its mark, and the length that it states."""
    if data[:4] != b"glTF":
        if data[:40].startswith(b"version https://git-lfs"):
            return "is a pointer of Git LFS, not the file: run 'git lfs pull' in the copy that it came from"
        return f"is no GLB file, it begins with {data[:16]!r}"
    stated = int.from_bytes(data[8:12], "little")
    return None if len(data) >= stated else f"ends early: {len(data):,} of {stated:,} bytes"


def obj(data: bytes) -> str | None:
    """Wavefront OBJ: vertices and faces."""
    if b"\0" in data[:4096]:
        return "is no OBJ file: it is not text"
    has = [data.startswith(mark) or b"\n" + mark in data for mark in (b"v ", b"f ")]
    return None if all(has) else f"holds no {'faces' if has[0] else 'vertices'}"


def picture(data: bytes) -> str | None:
    """A picture that can be decoded to its last row."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"is no picture: {error}"
    return None
