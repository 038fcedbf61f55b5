"""Files that a mesh file names: read only from inside one folder, remembered, and never fetched from the network."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from PIL import Image
from trimesh.resolvers import Resolver

from mvrender.errors import MeshError

_MAX_REFERENCE_BYTES = 2 << 30
_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".tga", ".gif", ".tif", ".tiff", ".webp", ".dds"}


def as_utf8(text: bytes) -> bytes:
    """Text as UTF-8. Old files are not, and trimesh guesses with a package that need not be installed.

    Latin-1 reads any bytes, and keywords and numbers are the same in every encoding that mesh files come in.
    """
    try:
        text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1").encode()
    return text


class FolderReferences(Resolver):  # type: ignore[misc]  # trimesh is not typed everywhere
    """trimesh resolver that stays inside `root`.

    A name is looked up beside the mesh. An absolute path or a Windows path (common in MTL files from other people's
    machines) is tried by its last part beside the mesh; what leads out of `root`, also through a symlink, is refused.

    Attributes:
        used: file -> sha256 of each reference that was read.
        missing: names that were not found.
        refused: names that lead out of the folder or to a URL.
        broken: names of pictures that cannot be opened.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder.resolve()
        self.root = root.resolve()
        self.used: dict[Path, str] = {}
        self.missing: list[str] = []
        self.refused: list[str] = []
        self.broken: list[str] = []

    def get(self, name: str) -> bytes:
        """Content of the file called `name`.

        Raises:
            MeshError: it is refused (`outside_reference`) or not there (`missing_reference`).
        """
        name = str(name).strip()
        if "://" in name:
            self._note(self.refused, name)
            raise MeshError("outside_reference", f"'{name}' is a URL; nothing is fetched")
        for candidate in self._candidates(name):
            try:
                real = candidate.resolve()
                if not real.is_relative_to(self.root):
                    continue
                if real.is_file() and real.stat().st_size <= _MAX_REFERENCE_BYTES:
                    data = real.read_bytes()
                    self.used[real] = hashlib.sha256(data).hexdigest()
                    return self._readable(name, data)
            except (OSError, ValueError, RuntimeError):  # no permission, NUL in the name, symlink loop
                continue
        if self._leads_out(name):
            self._note(self.refused, name)
            raise MeshError("outside_reference", f"'{name}' lies outside of {self.root}; it was not read")
        self._note(self.missing, name)
        raise MeshError("missing_reference", f"'{name}' is not in {self.folder}")

    def keys(self) -> list[str]:
        """Names in the mesh's own folder."""
        return [p.name for p in self.folder.iterdir()]

    def namespaced(self, namespace: str) -> FolderReferences:
        """The same rules for a sub-folder; what it reads counts here too."""
        inner = FolderReferences(self.folder / namespace, self.root)
        inner.used, inner.missing, inner.refused, inner.broken = self.used, self.missing, self.refused, self.broken
        return inner

    def write(self, name: str, data: object) -> None:
        """Never: loading writes nothing."""
        raise PermissionError(f"loading a mesh writes nothing ('{name}')")

    def _readable(self, name: str, data: bytes) -> bytes:
        """`data` as trimesh can read it; it says nothing of pictures that it cannot."""
        suffix = PureWindowsPath(name).suffix.lower()
        if suffix == ".mtl":
            return as_utf8(data)
        if suffix in _PICTURES:
            try:
                Image.open(io.BytesIO(data)).close()
            except (OSError, ValueError, SyntaxError):
                self._note(self.broken, name)
        return data

    def _candidates(self, name: str) -> list[Path]:
        parts = [name, unquote(name), name.replace("\\", "/")]
        last = PureWindowsPath(name).name
        return [self.folder / part for part in dict.fromkeys([*parts, last]) if part]

    def _leads_out(self, name: str) -> bool:
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
