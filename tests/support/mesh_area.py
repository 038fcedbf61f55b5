"""The surface of a mesh, by which tests of readers tell what was read."""

from __future__ import annotations

import numpy as np

from mvrender.mesh import Mesh


def areas(mesh: Mesh) -> float:
    """Sum of the areas of all faces."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(float) for i in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)
