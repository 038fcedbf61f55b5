"""The triangles of a 3MF file that lib3mf refuses, read with trimesh."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import numpy as np
import trimesh

from mvrender.readers.parts import Part, Reading, placed


def read(data: bytes, reading: Reading) -> Iterator[Part]:
    """Read the triangles of a file, without colours.

    Args:
        data: of the file.
        reading: see `Reading`.

    Raises:
        Exception: trimesh raises anything on a damaged file.
    """
    logging.getLogger("trimesh").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scene = trimesh.load_scene(
            trimesh.util.wrap_as_stream(data), file_type=reading.suffix[1:], process=False, allow_remote=False
        )
    for node in scene.graph.nodes_geometry:
        transform, name = scene.graph[node]
        geometry = scene.geometry[name]
        if isinstance(geometry, trimesh.Trimesh) and len(geometry.faces):
            vertices = placed(np.asarray(geometry.vertices, np.float64), np.asarray(transform, np.float64))
            yield Part(vertices, np.asarray(geometry.faces, np.int64))
