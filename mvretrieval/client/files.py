"""Files of a request."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from mvrender.errors import FailureCode, MeshError
from mvrender.loading import load
from mvrender.mesh import UpAxis
from mvretrieval.search.query import Term

_MESHES_WITH_REFERENCES = {".obj", ".gltf", ".dae", ".ply"}
_CODES: tuple[tuple[type[OSError], FailureCode], ...] = (
    (FileNotFoundError, "missing_file"),
    (PermissionError, "no_permission"),
    (IsADirectoryError, "not_a_file"),
)


class RequestFiles:
    """Files of a request; closed with the stack."""

    def __init__(self, opened: ExitStack, up: UpAxis | None) -> None:
        self._opened = opened
        self._up = up
        self.parts: list[tuple[str, Any]] = []

    def add(self, path: Path, name: str) -> str:
        """Add a file under a name, and return the name.

        Raises:
            MeshError: the file cannot be read.
        """
        try:
            self.parts.append(("files", (name, self._opened.enter_context(path.open("rb")))))
        except OSError as error:
            code: FailureCode = next((code for kind, code in _CODES if isinstance(error, kind)), "unreadable")
            raise MeshError(code, f"{path} cannot be read: {error.strerror}") from error
        return name

    def add_mesh(self, path: Path, prefix: str) -> str:
        """Add a mesh, followed by the files in its folder that it references; return the name of the mesh."""
        name = self.add(path, f"{prefix}{path.name}")
        if path.suffix.lower() in _MESHES_WITH_REFERENCES:
            folder = path.parent.resolve()
            for reference in _references(path, self._up):
                if reference.is_relative_to(folder):
                    self.add(reference, f"{prefix}{reference.relative_to(folder).as_posix()}")
        return name


def _references(path: Path, up: UpAxis | None) -> Sequence[Path]:
    try:
        return [Path(name) for name in load(path, up=up).references]
    except MeshError:
        return []  # the service reports what is wrong with the mesh


def term_to_json(term: Term, index: int, files: RequestFiles) -> dict[str, Any]:
    """A term as the service reads it; its files are added to the request."""
    value = term.value
    if term.kind == "mesh":
        value = files.add_mesh(Path(value), f"{index}/")
    elif term.kind == "images":
        value = [files.add(Path(path), f"{index}/{i}/{Path(path).name}") for i, path in enumerate(value)]
    elif term.kind == "vector":
        value = np.asarray(value, np.float64).ravel().tolist()
    return {term.kind: value, "weight": term.weight}
