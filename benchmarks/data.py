"""Data sets of the benchmarks, prepared once in benchmarks/work or in the folder MVR_BENCH_WORK."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.benchmark import Skipped

HERE = Path(__file__).parent
WORK = Path(os.environ.get("MVR_BENCH_WORK", HERE / "work"))


def shared() -> Path:
    """Folder of the shared data: MVR_SHARED, or shared/data beside the checkout.

    Raises:
        Skipped: it does not exist.
    """
    folder = Path(os.environ.get("MVR_SHARED", HERE.parent.parent / "shared" / "data"))
    if not (folder / "materialise.py").is_file():
        raise Skipped(f"no shared data at {folder}; set MVR_SHARED")
    return folder.resolve()


def meshes(name: str) -> Path:
    """Folder of a data set (`psb`, `base-meshes`, `quaternius`) as mesh files with a labels.csv."""
    folder = WORK / name
    if not (folder / "labels.csv").exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, str(shared() / "materialise.py"), name, str(folder)], check=True, stdout=subprocess.DEVNULL
        )
    return folder


def mobilenet() -> str:
    """Encoder id of the shared MobileNetV2."""
    return f"image_only:mobilenet_v2@{shared() / 'mobilenet_v2_imagenet.safetensors'}"


def text_embeddings() -> Path:
    """Write names of LVIS, Objects365 and COCO with CLIP ViT-B/32 text vectors, for `mvr train --text-embeddings`.

    Synonyms, and the parts of names like `Cabinet/shelf`, share a vector.
    """
    folder, path = shared() / "clip_vit_b32_text", WORK / "clip_vit_b32_names.npz"
    names: list[str] = []
    rows: list[NDArray[np.float32]] = []
    lvis = np.load(folder / "lvis_v1_clip_a+cname.npy").astype(np.float32)
    for category, vector in zip(json.loads((folder / "lvis_v1_train_cat_info.json").read_text()), lvis, strict=True):
        for name in category["synonyms"]:
            names.append(name)
            rows.append(vector)
    objects365 = np.load(folder / "o365_clip_a+cnamefix.npy").astype(np.float32)
    with (folder / "Objects365_names_fix.csv").open(newline="") as file:
        for (_, _, fixed), vector in zip(csv.reader(file), objects365, strict=True):
            for name in fixed.split("/"):
                names.append(name)
                rows.append(vector)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, names=np.array(names), vectors=np.stack(rows))
    return path


def unseen_classes() -> Path:
    """File with the PSB test classes that are not in the train split, one per line."""
    with (meshes("psb") / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    seen = {row["label"] for row in rows if row["split"] == "train"}
    unseen = sorted({row["label"] for row in rows if row["split"] == "test"} - seen)
    path = WORK / "psb-unseen-classes.txt"
    path.write_text("\n".join(unseen) + "\n")
    return path


def fixed_psb(count: int, with_largest: int = 0) -> Path:
    """Folder with a fixed selection of `count` PSB meshes: every n-th by name, plus the `with_largest` largest files."""
    files = sorted(meshes("psb").rglob("*.off"))
    largest = sorted(files, key=lambda file: file.stat().st_size)[len(files) - with_largest :]
    rest = [file for file in files if file not in largest]
    chosen = largest + [rest[i * len(rest) // (count - with_largest)] for i in range(count - with_largest)]
    folder = WORK / f"psb-{count}-{with_largest}"
    if not folder.exists():
        folder.mkdir(parents=True)
        for file in chosen:
            (folder / file.name).symlink_to(file)
    return folder


def clip(architecture: str = "ViT-B-32") -> str:
    """Encoder id of an open_clip model with random weights: as fast as trained weights, without a download."""
    path = WORK / f"{architecture}-random.safetensors"
    if not path.exists():
        import open_clip
        import torch
        from safetensors.torch import save_file

        torch.manual_seed(0)
        weights = open_clip.create_model(architecture).state_dict()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        save_file({name: tensor.clone().contiguous() for name, tensor in weights.items()}, part)
        part.replace(path)
    return f"open_clip:{architecture}@{path}"
