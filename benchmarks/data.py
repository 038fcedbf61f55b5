"""The data sets that figures are measured on, written out once under benchmarks/work."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.figures import Skipped

HERE = Path(__file__).parent
WORK = HERE / "work"


def shared() -> Path:
    """Folder of the shared data: MVR_SHARED, or shared/data beside the checkout.

    Raises:
        Skipped: it is not there.
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


def unseen_classes() -> Path:
    """File of PSB's test classes that the train split lacks, one a line."""
    with (meshes("psb") / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    seen = {row["label"] for row in rows if row["split"] == "train"}
    unseen = sorted({row["label"] for row in rows if row["split"] == "test"} - seen)
    path = WORK / "psb-unseen-classes.txt"
    path.write_text("\n".join(unseen) + "\n")
    return path


def fixed_psb(count: int, with_largest: int = 0) -> Path:
    """Folder with `count` PSB meshes, always the same: every n-th by name, the largest files among them if asked."""
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
