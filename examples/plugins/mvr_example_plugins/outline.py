"""A renderer of line drawings: the edges of normals and of the silhouette, black on white."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mvrender.backends.raster import RasterRenderer
from mvrender.cameras import Rig
from mvrender.mesh import Mesh
from mvrender.renderer import Views
from mvrender.shading import Style

_EDGE = 40  # smallest difference of neighbouring normals, of 255


class OutlineRenderer:
    """Every style is drawn in the same way."""

    name = "outline"
    fingerprint = "1"  # increase it when the images change

    def __init__(self) -> None:
        self._raster = RasterRenderer()

    def render(self, mesh: Mesh, rig: Rig, styles: Sequence[Style], size: int) -> Views:
        """See `Renderer`."""
        views = self._raster.render(mesh, rig, ["normal"], size)
        normals = views.images[0].astype(np.int16)  # (V, H, W, 3)
        edges = np.zeros(normals.shape[:3], bool)
        edges[:, :-1] |= np.abs(normals[:, 1:] - normals[:, :-1]).max(axis=3) > _EDGE
        edges[:, :, :-1] |= np.abs(normals[:, :, 1:] - normals[:, :, :-1]).max(axis=3) > _EDGE
        drawn = np.where(edges[..., None], 0, 255).astype(np.uint8).repeat(3, axis=3)
        return Views(np.stack([drawn] * len(styles)), views.mask, views.cameras)

    def close(self) -> None:
        """Release the renderer."""
        self._raster.close()
