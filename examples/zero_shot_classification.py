"""Classify objects by class names that were not in training, with an encoder that has no text tower.

    python examples/zero_shot_classification.py [FOLDER]

`mvr train --text-embeddings` fits a linear map from text embeddings of names to object vectors. Any text encoder can provide the
embeddings. Here, hand-written attributes stand in for one, so that the example runs offline. With nine training classes the map is
weak: over all sets of three unseen classes of these shapes, top-1 accuracy is about 0.5, where chance is 0.33.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvretrieval.procedural_shapes import write_objects

ATTRIBUTES = {
    "bottle": "hollow round tall",
    "car": "wheels horizontal roof",
    "chair": "legs flat backrest",
    "gear": "wheels round hollow",
    "house": "roof flat",
    "lamp": "stem tall round flat",
    "mug": "hollow handle round",
    "plane": "wings tail horizontal",
    "rocket": "wings tall round",
    "snowman": "spheres tall round",
    "table": "legs flat",
    "tree": "stem tall round",
}
UNSEEN = ("bottle", "car", "chair")


def main(folder: Path) -> None:
    meshes, things, adapter = folder / "meshes", folder / "things", folder / "adapter"
    write_objects(meshes, per_class=6)
    embeddings = folder / "names.npz"
    np.savez(embeddings, names=np.array(list(ATTRIBUTES)), vectors=attribute_vectors())
    names = ", ".join(f"'{name}'" for name in UNSEEN)

    mvr("index", things, meshes, "--labels", meshes / "labels.csv", "--encoder", "builtin:", "--size", "128")
    training = ("--where", f"label not in ({names})", "--pooling", "mean", "--no-linear", "--whiten", "32")
    mvr("train", things, *training, "--text-embeddings", embeddings, "--out", adapter)
    mvr("reindex", things, "--adapter", adapter)

    mvr("eval", "zero-shot", things, "--where", f"label in ({names})", "--per-class")
    mvr("search", things, "--text", "chair", "-k", "3")


def attribute_vectors() -> NDArray[np.float32]:
    """(N, E) one row per name: what a text encoder would return."""
    attributes = sorted({word for text in ATTRIBUTES.values() for word in text.split()})
    return np.array([[word in text.split() for word in attributes] for text in ATTRIBUTES.values()], np.float32)


def mvr(*arguments: object) -> None:
    """Run a command; its table goes to stdout."""
    print("$ mvr", shlex.join(map(str, arguments)), flush=True)
    subprocess.run([sys.executable, "-m", "mvretrieval", *map(str, arguments)], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("example"))
