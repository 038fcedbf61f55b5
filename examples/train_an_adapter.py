"""Train an adapter on some classes and compare collections with and without it on the others, with a significance test.

    python examples/train_an_adapter.py [FOLDER]

Both collections hold the same view vectors. Nothing is rendered or encoded for the second one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from mvretrieval.procedural_shapes import write_objects

SEEN = "label in ('bottle', 'car', 'chair', 'gear', 'house', 'tree')"
UNSEEN = "label in ('lamp', 'mug', 'plane', 'rocket', 'snowman', 'table')"


def main(folder: Path) -> None:
    meshes, things, adapted = folder / "meshes", folder / "things", folder / "adapted"
    write_objects(meshes, per_kind=6)
    mvr(
        "index",
        things,
        meshes,
        "--labels",
        meshes / "labels.csv",
        "--encoder",
        "builtin:",
        "--rig",
        "ring:3@30",
        "--size",
        "64",
    )

    # Classes are held out in turn to choose the number of steps.
    mvr("train", things, "--by", "label", "--where", SEEN, "--max-steps", "100", "--out", folder / "adapter")

    shutil.copytree(things, adapted)
    mvr("reindex", adapted, "--adapter", folder / "adapter")
    mvr("eval", adapted, "--where", UNSEEN, "--compare", things)


def mvr(*arguments: object) -> None:
    """Run a command; its table goes to stdout."""
    print("$ mvr", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "mvretrieval", *map(str, arguments)], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("example"))
