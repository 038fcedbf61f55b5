"""Files referenced by a mesh file: read only from within one folder, hashed, and never fetched from the network."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
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


def _without_file_scheme(name: str) -> str:
    """`file:///C:/maps/t.png` as `C:/maps/t.png`, `file:///maps/t.png` as `/maps/t.png`."""
    match = re.match(r"file:/{0,2}(?:localhost)?(?=/)", name, re.IGNORECASE)
    if match is None:
        return name
    path = name[match.end() :]
    return path[1:] if re.match(r"/[A-Za-z]:", path) else path


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
        self._images: dict[str, Image.Image | None] = {}

    def get(self, name: str) -> bytes:
        """Read the file called `name`.

        Raises:
            MeshError: it is refused (`outside_reference`) or missing (`missing_reference`).
        """
        name = _without_file_scheme(str(name).strip())
        if "://" in name:
            self._note(self.refused, name)
            raise MeshError("outside_reference", f"'{name}' is a URL, and only local files are read")
        for candidate in self._candidates(name):
            if not self._is_readable(candidate):
                continue
            try:
                real = candidate.resolve()
                data = real.read_bytes()
            except (OSError, ValueError, RuntimeError):  # no permission
                continue
            self.used[real] = hashlib.sha256(data).hexdigest()
            return self._prepared(name, data)
        if self._is_outside(name):
            self._note(self.refused, name)
            raise MeshError("outside_reference", f"'{name}' is outside of {self.root} and was not read")
        self._note(self.missing, name)
        raise MeshError("missing_reference", f"'{name}' is not in {self.folder}")

    def exists(self, name: str) -> bool:
        """Whether a file of this name could be read."""
        return any(self._is_readable(candidate) for candidate in self._candidates(name))

    def image(self, name: str, folder: str = "") -> Image.Image | None:
        """Open the image called `name`; None, and a record of the reason, if it cannot be opened.

        Args:
            name: as the file has it.
            folder: of the file that names it, relative to that of the mesh. It is looked for there first.
        """
        beside = f"{folder}/{name}"
        inner = beside if folder not in ("", ".") and self.exists(beside) else name
        if inner in self._images:
            return self._images[inner]
        image = None
        try:
            image = Image.open(io.BytesIO(self.get(inner)))
        except MeshError:
            pass  # recorded
        except (OSError, ValueError, SyntaxError):
            self._note(self.broken, name)
        self._images[inner] = image
        return image

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

    def _is_readable(self, path: Path) -> bool:
        try:
            real = path.resolve()
            return real.is_relative_to(self.root) and real.is_file() and real.stat().st_size <= _MAX_REFERENCE_BYTES
        except (OSError, ValueError, RuntimeError):  # no permission, NUL in the name, symlink loop
            return False

    def _candidates(self, name: str) -> Iterator[Path]:
        name = _without_file_scheme(name)
        parts = [name, unquote(name), name.replace("\\", "/"), PureWindowsPath(unquote(name)).name]
        paths = [self.folder / part for part in dict.fromkeys(parts) if part]
        yield from paths
        for path in paths:  # systems that ignore the case of names have written many files
            yield from self._in_any_case(path)

    def _in_any_case(self, path: Path) -> Iterator[Path]:
        """The file with this name in another case, in this folder or one below that is named in another case."""
        try:
            parts = path.relative_to(self.folder).parts
        except ValueError:
            return
        found = self.folder
        for part in parts:
            if part == ".." or not found.resolve().is_relative_to(self.root):
                return
            try:
                named = next(entry for entry in found.iterdir() if entry.name.casefold() == part.casefold())
            except (OSError, StopIteration, RuntimeError):
                return
            found = named
        yield found

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
