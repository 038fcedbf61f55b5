"""Synthetic view datasets, and a CLIP model small enough to be tuned in a second."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mvrender.cameras import parse_rig
from mvretrieval.encoders.network import NetworkEncoder
from mvretrieval.encoders.registry import open_encoder
from mvtrain.view_dataset import ViewDataset

CLIP = "ViT-tiny-for-tests"
_CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
VIEWS = 6


def write_clip(folder: Path) -> str:
    """Register the model with open_clip, write random weights, and return its encoder id."""
    import open_clip

    if not (folder / f"{CLIP}.json").exists():
        (folder / f"{CLIP}.json").write_text(json.dumps(_CONFIG))
    open_clip.add_model_config(folder)
    path = folder / "clip.pt"
    if not path.exists():
        torch.manual_seed(0)
        torch.save(open_clip.create_model(CLIP).state_dict(), path)
    return f"open_clip:{CLIP}@{path}"


def open_network(encoder_id: str) -> NetworkEncoder:
    """Open an encoder on the CPU in float32."""
    encoder = open_encoder(encoder_id, "cpu", "float32")
    assert isinstance(encoder, NetworkEncoder)
    return encoder


def synthetic_views(
    folder: Path, n_classes: int = 4, per_class: int = 4, styles: int = 1, noise: int = 60
) -> ViewDataset:
    """Colour patterns by class, with noise by object and view. Some views are masked."""
    rng = np.random.default_rng(0)
    views = VIEWS
    class_patterns = rng.integers(0, 256, (n_classes, 5, 5, 3))
    keys, labels, masks = [], [], []
    for i in range(n_classes * per_class):
        own = rng.integers(-noise, noise, (styles, views, 5, 5, 3))
        small = (class_patterns[i // per_class] + own).clip(0, 255).astype(np.uint8)
        images = [Image.fromarray(s).resize((64, 64), Image.Resampling.BICUBIC) for s in small.reshape(-1, 5, 5, 3)]
        mask = np.ones(views, bool)
        mask[i % views] = i % 3 != 0
        key = f"{i:032x}"
        path = folder / key[:2] / f"{key}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            np.save(path, np.stack([np.asarray(image) for image in images]).reshape(styles, views, 64, 64, 3))
            np.save(path.with_suffix(".mask.npy"), mask)
        keys.append(key)
        labels.append(f"class-{i // per_class}")
        masks.append(mask)
    ids = tuple(f"object-{i}" for i in range(len(keys)))
    rig = f"ring:{views}@30"
    assert parse_rig(rig).n_views == views
    kinds = ("texture", "clay", "depth")[:styles]
    return ViewDataset(folder, ids, tuple(labels), tuple(keys), rig, kinds, 64, np.stack(masks))  # type: ignore[arg-type]
