"""Files referenced by a mesh file: read only from within one folder, hashed, and never fetched from the network."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from PIL import Image
from trimesh.resolvers import Resolver

from mvrender.errors import MeshError

_MAX_REFERENCE_BYTES = 2 << 30
_IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".tga", ".gif", ".tif", ".tiff", ".webp", ".dds"}


def as_utf8(text: bytes) -> bytes:
    """Convert text to UTF-8. For other encodings trimesh needs an optional package.

    Latin-1 decodes any bytes, and keywords and numbers are the same in every encoding of mesh files.
    """
    try:
        text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1").encode()
    return text


class FolderReferences(Resolver):  # type: ignore[misc]  # trimesh is not typed everywhere
    """trimesh resolver that reads only files within `root`.

    A name is resolved relative to the mesh. Of an absolute or Windows path (common in MTL files from other machines) the last
    part is tried beside the mesh. Paths that leave `root`, also through a symlink, are refused.

    Attributes:
        used: sha256 by path of each reference that was read.
        missing: names that were not found.
        refused: names outside of the folder, and URLs.
        broken: names of images that cannot be opened.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder.resolve()
        self.root = root.resolve()
        self.used: dict[Path, str] = {}
        self.missing: list[str] = []
        self.refused: list[str] = []
        self.broken: list[str] = []

    def get(self, name: str) -> bytes:
        """Read the file called `name`.

        Raises:
            MeshError: it is refused (`outside_reference`) or missing (`missing_reference`).
        """
        name = str(name).strip()
        if "://" in name:
            self._note(self.refused, name)
            raise MeshError("outside_reference", f"'{name}' is a URL, and only local files are read")
        for candidate in self._candidates(name):
            try:
                real = candidate.resolve()
                if not real.is_relative_to(self.root):
                    continue
                if real.is_file() and real.stat().st_size <= _MAX_REFERENCE_BYTES:
                    data = real.read_bytes()
                    self.used[real] = hashlib.sha256(data).hexdigest()
                    return self._prepared(name, data)
            except (OSError, ValueError, RuntimeError):  # no permission, NUL in the name, symlink loop
                continue
        if self._is_outside(name):
            self._note(self.refused, name)
            raise MeshError("outside_reference", f"'{name}' is outside of {self.root} and was not read")
        self._note(self.missing, name)
        raise MeshError("missing_reference", f"'{name}' is not in {self.folder}")

    def keys(self) -> list[str]:
        """List the names in the mesh's folder."""
        return [p.name for p in self.folder.iterdir()]

    def namespaced(self, namespace: str) -> FolderReferences:
        """Resolver of a sub-folder with the same rules and shared records."""
        inner = FolderReferences(self.folder / namespace, self.root)
        inner.used, inner.missing, inner.refused, inner.broken = self.used, self.missing, self.refused, self.broken
        return inner

    def write(self, name: str, data: object) -> None:
        """Refuse to write.

        Raises:
            PermissionError: always.
        """
        raise PermissionError(f"loading a mesh must not write files ('{name}')")

    def _prepared(self, name: str, data: bytes) -> bytes:
        """Content as trimesh can read it. Notes unreadable images, which trimesh ignores silently."""
        suffix = PureWindowsPath(name).suffix.lower()
        if suffix == ".mtl":
            return as_utf8(data)
        if suffix in _IMAGES:
            try:
                Image.open(io.BytesIO(data)).close()
            except (OSError, ValueError, SyntaxError):
                self._note(self.broken, name)
        return data

    def _candidates(self, name: str) -> list[Path]:
        parts = [name, unquote(name), name.replace("\\", "/")]
        last = PureWindowsPath(name).name
        return [self.folder / part for part in dict.fromkeys([*parts, last]) if part]

    def _is_outside(self, name: str) -> bool:
        plain = name.replace("\\", "/")
        if PurePosixPath(plain).is_absolute() or PureWindowsPath(name).is_absolute():
            return True
        try:
            return not (self.folder / plain).resolve().is_relative_to(self.root)
        except (OSError, ValueError, RuntimeError):
            return True

    @staticmethod
    def _note(names: list[str], name: str) -> None:
        if name not in names:
            names.append(name)
