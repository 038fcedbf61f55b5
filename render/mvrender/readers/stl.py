"""STL, binary and text, with the colours that VisCAM and Magics write into the attribute bytes.

Source: 3D Systems, StereoLithography Interface Specification (1989), and https://en.wikipedia.org/wiki/STL_(file_format) for the
colours, which are not part of it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mvrender.errors import MeshError
from mvrender.readers.parts import Part, Reading
from mvrender.readers.text import decode, numbers_of
from mvrender.shading import CLAY

_HEADER_BYTES = 84
_FACET = np.dtype([("normal", "<f4", 3), ("vertices", "<f4", (3, 3)), ("attribute", "<u2")])
_OWN_COLOR = 1 << 15


def read(data: bytes, reading: Reading) -> Iterator[Part]:
    """Read an STL file.

    Raises:
        MeshError: it is truncated.
        ValueError: text that cannot be understood.
    """
    size = _HEADER_BYTES + _FACET.itemsize * int.from_bytes(data[80:84], "little")
    # The number of triangles in a binary header contains zero bytes, which text does not.
    is_utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if (is_utf_16 or b"\0" not in data[:_HEADER_BYTES]) and len(data) != size:
        yield from _read_text(decode(data))
        return
    if len(data) < size or len(data) < _HEADER_BYTES:
        raise MeshError("unreadable", f"a binary STL of {size:,} bytes, truncated after {len(data):,}; copy it again")
    facets = np.frombuffer(data[_HEADER_BYTES:size], _FACET)  # some exporters append bytes
    faces = np.arange(3 * len(facets)).reshape(-1, 3)
    vertices = facets["vertices"].reshape(-1, 3).astype(np.float64)
    yield Part(vertices, faces, face_colors=_colors(data[:80], facets["attribute"]))


def _colors(header: bytes, attributes: NDArray[np.uint16]) -> NDArray[np.uint8] | None:
    """(n, 3) colours of facets; None without."""
    own = (attributes & _OWN_COLOR) != 0
    low, middle, high = ((attributes >> shift & 31).astype(np.uint16) * 255 // 31 for shift in (0, 5, 10))
    magics = re.search(rb"COLOR=(.{4})", header, re.DOTALL)
    if magics is not None:  # red is low, and the bit says that the facet has the colour of the object
        rgb = np.stack([low, middle, high], axis=1).astype(np.uint8)
        rgb[own] = np.frombuffer(magics.group(1)[:3], np.uint8)
        return rgb
    if not own.any():
        return None
    rgb = np.stack([high, middle, low], axis=1).astype(np.uint8)
    rgb[~own] = CLAY.astype(np.uint8)
    return rgb


def _read_text(text: str) -> Iterator[Part]:
    """All solids of a text; a facet that is cut off is left out."""
    if re.match(r"\s*solid\b", text, re.IGNORECASE) is None:
        raise ValueError("neither a binary STL nor text that begins with 'solid'")
    rows = re.findall(r"\svertex\s+(\S+\s+\S+\s+\S+)", text, re.IGNORECASE)
    numbers = numbers_of(" ".join(rows), np.float64)
    if len(numbers) < 3 * (len(rows) - 1):
        raise ValueError("a vertex has a word that is not a number")
    n = len(numbers) // 9
    yield Part(numbers[: 9 * n].reshape(-1, 3), np.arange(3 * n).reshape(-1, 3))
