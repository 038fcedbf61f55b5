"""STEP and IGES: surfaces made into triangles by OpenCASCADE.

Source: ISO 10303-21, -203, -214, -242 and IGES 5.3. cascadio writes what it reads as glTF in memory, with its axes and colours.
"""

from __future__ import annotations

from collections.abc import Iterator

import cascadio

from mvrender.errors import MeshError
from mvrender.readers import gltf
from mvrender.readers.parts import Part, Reading

_IGES = (".igs", ".iges")
_DEVIATION = 0.004
"""Of an edge's length: below a pixel in a view of 224."""
_ANGLE_RAD = 0.25
"""Between neighbouring triangles: 25 around a cylinder. Its edges are not seen in a view of 224."""


def read(data: bytes, reading: Reading) -> Iterator[Part]:
    """Read a STEP or IGES file.

    Raises:
        MeshError: OpenCASCADE finds no shape in it.
    """
    kind = "iges" if reading.suffix in _IGES else "step"
    glb = cascadio.load(
        data, kind, tol_linear=_DEVIATION, tol_relative=True, tol_angular=_ANGLE_RAD, use_parallel=False
    )
    if not glb:
        raise MeshError("unreadable", f"OpenCASCADE finds no shape in the {kind.upper()} file; export it again")
    yield from gltf.read(glb, reading)
