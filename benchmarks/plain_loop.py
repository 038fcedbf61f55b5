"""Baseline: the simplest loop over meshes with trimesh, one pyrender renderer and the unmodified encoder.

python benchmarks/plain_loop.py FOLDER mobilenet|vit WEIGHTS
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("PYOPENGL_PLATFORM", "egl")

import numpy as np
import pyrender
import torch
import trimesh
from torch import Tensor

from mvrender.cameras import ring
from mvretrieval.encoders.image_only import read_weights


def mobilenet(weights: Path) -> Callable[[Tensor], Tensor]:
    """Torchvision's network, up to global average pooling."""
    from torchvision.models import mobilenet_v2

    network = mobilenet_v2(weights=None)
    network.load_state_dict(read_weights(weights), strict=False)
    features = network.features.eval()
    return lambda pixels: features(pixels * 2 - 1).mean(dim=(2, 3))


def vit(weights: Path) -> Callable[[Tensor], Tensor]:
    """open_clip's ViT-B/32 in float32, images normalized as CLIP requires."""
    import open_clip

    network = open_clip.create_model("ViT-B-32")
    network.load_state_dict(read_weights(weights))
    network.eval()
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN).view(1, 3, 1, 1)
    std = torch.tensor(open_clip.OPENAI_DATASET_STD).view(1, 3, 1, 1)
    return lambda pixels: network.encode_image((pixels - mean) / std)


def main() -> None:
    """Views and vectors of every mesh of a folder."""
    folder, weights = Path(sys.argv[1]), Path(sys.argv[3])
    torch.set_num_threads(os.cpu_count() or 1)
    encode = {"mobilenet": mobilenet, "vit": vit}[sys.argv[2]](weights)
    renderer = pyrender.OffscreenRenderer(224, 224)
    rig = ring(12, 30.0)
    camera = pyrender.PerspectiveCamera(yfov=np.radians(rig.fov_y_deg))
    files = sorted(folder.glob("*.off"))
    vectors = []
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
            pixels = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float() / 255
            vectors.append(encode(pixels).mean(dim=0).numpy())


if __name__ == "__main__":
    main()
