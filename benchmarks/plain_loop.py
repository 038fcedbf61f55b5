"""What one would write first: trimesh, one pyrender renderer, the encoder as it comes. Prints its seconds as JSON.

python benchmarks/plain_loop.py FOLDER WEIGHTS
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("PYOPENGL_PLATFORM", "egl")

import numpy as np
import pyrender
import torch
import trimesh
from torchvision.models import mobilenet_v2

from mvrender.cameras import ring
from mvretrieval.encoders.image_only import read_weights


def main() -> None:
    """Views and vectors of every mesh of a folder."""
    folder, weights = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(2)
    network = mobilenet_v2(weights=None)
    network.load_state_dict(read_weights(weights), strict=False)
    network = network.features.eval()
    renderer = pyrender.OffscreenRenderer(224, 224)
    rig = ring(12, 30.0)
    camera = pyrender.PerspectiveCamera(yfov=np.radians(rig.fov_y_deg))
    files = sorted(folder.glob("*.off"))
    vectors = []
    started = time.monotonic()
    for file in files:
        mesh = trimesh.load(file)
        mesh.apply_translation(-mesh.bounds.mean(axis=0))
        mesh.apply_scale(1 / np.linalg.norm(mesh.vertices, axis=1).max())
        scene = pyrender.Scene(bg_color=np.ones(4), ambient_light=np.full(3, 0.3))
        scene.add(pyrender.Mesh.from_trimesh(mesh))
        eye = scene.add(camera, pose=np.eye(4))
        light = scene.add(pyrender.DirectionalLight(intensity=3.0), pose=np.eye(4))
        views = []
        for pose in rig.cam_to_world:
            scene.set_pose(eye, pose)
            scene.set_pose(light, pose)
            color, _ = renderer.render(scene)
            views.append(color)
        with torch.inference_mode():
            pixels = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float() / 127.5 - 1
            vectors.append(network(pixels).mean(dim=(2, 3)).mean(dim=0).numpy())
    print(json.dumps({"seconds": time.monotonic() - started, "meshes": len(vectors)}))


if __name__ == "__main__":
    main()
