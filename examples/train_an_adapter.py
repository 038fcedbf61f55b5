"""Train an adapter and compare collections with and without it, query by query, with a significance test.

    python examples/train_an_adapter.py [FOLDER]

Both collections hold the same view vectors. Nothing is rendered or encoded for the second one.
"""

from __future__ import annotations

import csv
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from mvretrieval.procedural_shapes import write_objects


def main(folder: Path) -> None:
    meshes, things, adapted = folder / "meshes", folder / "things", folder / "adapted"
    write_objects(meshes, per_class=8)
    split_labels(meshes / "labels.csv")
    views = ("--encoder", "builtin:", "--rig", "ring:3@30", "--size", "64")
    mvr("index", things, meshes, "--labels", meshes / "labels.csv", *views)

    # Classes are held out in turn to choose the number of steps.
    options = ("--whiten", "16", "--max-steps", "100")  # 16 dimensions: far fewer than the 144 training views
    mvr("train", things, "--by", "label", "--where", "split = 'train'", *options, "--out", folder / "adapter")

    shutil.copytree(things, adapted)
    mvr("reindex", adapted, "--adapter", folder / "adapter")
    mvr("eval", adapted, "--where", "split = 'test'", "--compare", things)


def split_labels(path: Path) -> None:
    """Add a column `split`: every second object is for training."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["file", "label", "split"])
        writer.writeheader()
        writer.writerows({**row, "split": "train" if i % 2 else "test"} for i, row in enumerate(rows))


def mvr(*arguments: object) -> None:
    """Run a command; its table goes to stdout."""
    print("$ mvr", shlex.join(map(str, arguments)), flush=True)
    subprocess.run([sys.executable, "-m", "mvretrieval", *map(str, arguments)], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("example"))
