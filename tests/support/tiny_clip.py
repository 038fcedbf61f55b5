"""A tiny CLIP model with random weights."""

from __future__ import annotations

import json
from pathlib import Path

NAME = "ViT-tiny-with-text"
CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 64, "layers": 1, "width": 64, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def tiny_clip(folder: Path) -> str:
    """Write the model into `folder`, register it with open_clip in this process, and return its encoder id."""
    import open_clip
    import torch

    (folder / f"{NAME}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    torch.save(open_clip.create_model(NAME).state_dict(), folder / "clip.pt")
    return f"open_clip:{NAME}@{folder / 'clip.pt'}"
