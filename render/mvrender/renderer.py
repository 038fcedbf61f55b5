"""The interface of all render backends: `Renderer` turns a mesh and a rig into `Views`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mvrender.cameras import Rig
from mvrender.errors import RigError
from mvrender.mesh import Mesh
from mvrender.shading import Style

NamedBackend = Literal["raster", "gl", "pyrender"]
BackendName: TypeAlias = str
"""A `NamedBackend`, or the name of a plug-in (see `plugins`)."""
MIN_SIZE, MAX_SIZE = 64, 1024


@dataclass(frozen=True)
class Views:
    """Rendered images of one mesh.

    Attributes:
        images: (S, V, H, W, 3) uint8 sRGB on a white background; S styles, V views in the rig's order.
        mask: (V,) bool, False where no part of the mesh is visible (a plane seen edge-on).
        cameras: (V, 4, 4) float32 camera-to-world.
    """

    images: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    cameras: NDArray[np.float32]


class Renderer(Protocol):
    """Renders a normalized mesh from every camera of a rig."""

    name: BackendName

    def render(self, mesh: Mesh, rig: Rig, styles: Sequence[Style], size: int) -> Views:
        """Render all views.

        Args:
            mesh: normalized with `rig.fit`.
            rig: V cameras.
            styles: S styles.
            size: width and height of a view in pixels.

        Raises:
            RigError: the size is out of range.
            BackendError: the backend failed.
        """
        ...

    def close(self) -> None:
        """Release the renderer's resources."""
        ...


def check_size(size: int) -> int:
    """Return `size` if it is a valid view size in pixels.

    Raises:
        RigError: it is out of range.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise RigError(f"view size {size} is out of range: give {MIN_SIZE} to {MAX_SIZE} pixels", code="bad_view_size")
    return size
