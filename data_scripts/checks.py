"""Quick checks of file contents, enough to find an HTML error page or a truncated file. Each returns the problem, or None."""

from __future__ import annotations

import io
import warnings

from PIL import Image


def off(data: bytes) -> str | None:
    """Check the header of an OFF file, and that it has enough lines for its counts.

    Some ModelNet40 files have the counts directly behind the magic word: `OFF490 518 0`.
    """
    if data[:3].upper() != b"OFF":
        return f"is not an OFF file: it begins with {data[:16]!r}"
    lines = [line for line in data[3:].splitlines() if line.strip() and not line.lstrip().startswith(b"#")]
    try:
        n_vertices, n_faces = (int(number) for number in lines[0].split()[:2])
    except (IndexError, ValueError):
        return "has no vertex and face counts"
    if n_faces == 0 or n_vertices == 0:
        return "has no faces"
    if len(lines) > n_vertices + n_faces:
        return None
    # Some writers put several vertices on a line.
    numbers, needed = sum(len(line.split()) for line in lines[1:]), 3 * n_vertices + 4 * n_faces
    return None if numbers >= needed else f"is truncated: {numbers:,} of {needed:,} numbers"


def glb(data: bytes) -> str | None:
    """Check the magic number and the length of a binary glTF file."""
    if data[:4] != b"glTF":
        if data[:40].startswith(b"version https://git-lfs"):
            return "is a Git LFS pointer: run 'git lfs pull' in its repository"
        return f"is not a GLB file: it begins with {data[:16]!r}"
    stated = int.from_bytes(data[8:12], "little")
    return None if len(data) >= stated else f"is truncated: {len(data):,} of {stated:,} bytes"


def obj(data: bytes) -> str | None:
    """Check that a Wavefront OBJ file has vertices and faces."""
    if b"\0" in data[:4096]:
        return "is not an OBJ file: it is not text"
    has = [data.startswith(mark) or b"\n" + mark in data for mark in (b"v ", b"f ")]
    return None if all(has) else f"has no {'faces' if has[0] else 'vertices'}"


def image(data: bytes) -> str | None:
    """Check that an image decodes completely."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as opened:
                opened.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"is not a readable image: {error}"
    return None
