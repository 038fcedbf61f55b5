"""pyrender as in its examples: one renderer, a scene per mesh, and a camera that moves together with its light."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("PYOPENGL_PLATFORM", "egl")

import numpy as np
import pyrender
import trimesh
from numpy.typing import NDArray

from mvrender.cameras import Rig
from mvrender.mesh import Mesh


class PlainPyrender:
    """Renders clay-like images of one size with four samples per pixel."""

    def __init__(self, size: int) -> None:
        self._renderer: Any = pyrender.OffscreenRenderer(size, size)

    def draw(self, mesh: Mesh, rig: Rig) -> list[NDArray[np.uint8]]:
        """One image (size, size, 3) per camera."""
        self._renderer._platform.make_current()  # there may be two renderers
        scene = pyrender.Scene(bg_color=np.ones(4), ambient_light=np.full(3, 0.3))
        surface = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
        scene.add(pyrender.Mesh.from_trimesh(surface, smooth=False))
        eye = scene.add(pyrender.PerspectiveCamera(yfov=np.radians(rig.fov_y_deg)), pose=np.eye(4))
        light = scene.add(pyrender.DirectionalLight(intensity=3.0), pose=np.eye(4))
        images = []
        for pose in rig.cam_to_world:
            scene.set_pose(eye, pose)
            scene.set_pose(light, pose)
            images.append(self._renderer.render(scene)[0])
        return images
