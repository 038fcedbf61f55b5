"""The commands of `mvr`: names, one-line summaries, modules. Imports nothing heavy."""

from __future__ import annotations

import importlib
from typing import Any

COMMANDS = {
    "index": "render and embed meshes (or embed given view images), and add them to a collection",
    "import": "make a collection of vectors that were computed elsewhere, without meshes",
    "search": "search a collection with a mesh, images, text, or a mixture",
    "render": "write the rendered views of meshes as images",
    "train": "train an adapter (view weighting and a linear layer) on the labels of a collection",
    "tune": "fine-tune the encoder on labeled meshes",
    "eval": "evaluate retrieval on a labeled collection",
    "reproduce": "reproduce the rows of a published table",
    "reindex": "re-embed a collection: other pooling, whitening, adapter, styles or encoder",
    "calibrate": "fit a confidence calibration, so that hits have a probability",
    "serve": "serve a collection: search page and REST API",
    "export": "write the object vectors of a collection as a FAISS index",
    "copy": "copy a collection while it is in use, for backups",
    "check": "check a collection for damage, and repair what can be",
    "remove": "remove objects from a collection",
    "info": "show what a collection holds and which files failed",
    "doctor": "check the installation and print the fix for each problem",
    "demo": "build a collection of procedural shapes and a page of searches",
}

# Subcommands. A collection in a folder with such a name is given as ./zero-shot.
SUBCOMMANDS = {
    "eval": {
        "zero-shot": "zero-shot classification by class names",
        "text-to-3d": "text-to-3D retrieval, by class names or captions",
        "image-to-3d": "image-to-3D retrieval",
    },
}


class UsageError(Exception):
    """A command line that cannot be parsed."""

    code = "wrong_use"


_ELSEWHERE = {"train": "mvtrain.cli", "tune": "mvtrain.tune_cli"}
_MODULES = {"import": "import_vectors"}  # a keyword cannot be the name of a module


def command_names() -> dict[str, str]:
    """Every command with its summary; subcommands as `eval zero-shot`."""
    names: dict[str, str] = {}
    for name, summary in COMMANDS.items():
        names[name] = summary
        names |= {f"{name} {second}": text for second, text in SUBCOMMANDS.get(name, {}).items()}
    return names


def command_module(name: str) -> Any:
    """Import the module of a command. It has `Options`, a frozen dataclass, and `run(options) -> exit code`."""
    file = _MODULES.get(name, name.replace(" ", "_").replace("-", "_"))
    return importlib.import_module(_ELSEWHERE.get(name, f"mvretrieval.cli.{file}"))
