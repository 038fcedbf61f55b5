"""Files that a mesh file names: read only from its folder or archive, hashed, and never fetched from the network."""

from __future__ import annotations

import hashlib
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from PIL import Image

from mvrender.errors import MeshError
from mvrender.plain_text import shortened
from mvrender.texture_images import open_texture

_MAX_REFERENCE_BYTES = 2 << 30
_LONGEST_NAME = 100


class References:
    """Finds and reads named files.

    A name is resolved relative to the mesh. Of an absolute or Windows path (common in files from other machines) the last part
    is tried beside the mesh. The case of a name does not matter if no file has its own.

    Attributes:
        used: sha256 by path of each file of the file system that was read.
        missing: names that were not found; like the other names, as they are shown in notes.
        refused: names outside of the folder or archive, and URLs.
        broken: names of images that cannot be opened.
    """

    def __init__(self) -> None:
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
            _note(self.refused, name)
            raise MeshError("outside_reference", f"'{_shown(name)}' is a URL, and only local files are read")
        data = self._read(name)
        if data is not None:
            return data
        if self._is_outside(name):
            _note(self.refused, name)
            raise MeshError("outside_reference", f"'{_shown(name)}' is outside of {self.place} and was not read")
        _note(self.missing, name)
        raise MeshError("missing_reference", f"'{_shown(name)}' is not in {self.place}")

    def image(self, name: str, folder: str = "") -> Image.Image | None:
        """Open the image called `name`; None, and a record of the reason, if it cannot be opened.

        Args:
            name: as the file has it.
            folder: of the file that names it, relative to that of the mesh. It is looked for there first.
        """
        beside = f"{folder}/{name}"
        inner = beside if folder not in ("", ".") and self.exists(beside) else name
        if inner not in self._images:
            image = None
            try:
                image = open_texture(self.get(inner))
                if image is None:
                    _note(self.broken, name)
            except MeshError:
                pass  # recorded
            self._images[inner] = image
        return self._images[inner]

    @property
    def place(self) -> str:
        """The folder or archive, for messages."""
        raise NotImplementedError

    def exists(self, name: str) -> bool:
        """Whether a file of this name could be read."""
        raise NotImplementedError

    def _read(self, name: str) -> bytes | None:
        """The content of a file; None if it is not there or outside."""
        raise NotImplementedError

    def _is_outside(self, name: str) -> bool:
        raise NotImplementedError


class FolderReferences(References):
    """Files below a folder. Paths that leave it, also through a symlink, are refused."""

    def __init__(self, folder: Path, root: Path) -> None:
        """Read files of `folder`, the mesh's, and others below `root`."""
        super().__init__()
        self.folder = folder.resolve()
        self.root = root.resolve()

    @property
    def place(self) -> str:
        """See `References`."""
        return str(self.root)

    def exists(self, name: str) -> bool:
        """See `References`."""
        return any(self._is_readable(candidate) for candidate in self._candidates(name))

    def _read(self, name: str) -> bytes | None:
        for candidate in self._candidates(name):
            if not self._is_readable(candidate):
                continue
            try:
                real = candidate.resolve()
                data = real.read_bytes()
            except (OSError, ValueError, RuntimeError):  # no permission
                continue
            self.used[real] = hashlib.sha256(data).hexdigest()
            return data
        return None

    def _is_readable(self, path: Path) -> bool:
        try:
            real = path.resolve()
            return real.is_relative_to(self.root) and real.is_file() and real.stat().st_size <= _MAX_REFERENCE_BYTES
        except (OSError, ValueError, RuntimeError):  # no permission, NUL in the name, symlink loop
            return False

    def _candidates(self, name: str) -> Iterator[Path]:
        paths = [self.folder / part for part in _spellings(name)]
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


class ArchiveReferences(References):
    """Members of a ZIP archive, beside the one that holds the mesh."""

    def __init__(self, archive: zipfile.ZipFile, member: str) -> None:
        """Read members of an open archive; `member` is that of the mesh."""
        super().__init__()
        self._archive = archive
        self._folder = posixpath.dirname(_normal(member))
        self._members = {_normal(info.filename): info for info in archive.infolist() if not info.is_dir()}
        self._by_folded = {name.casefold(): info for name, info in self._members.items()}

    @property
    def place(self) -> str:
        """See `References`."""
        return "the archive"

    def exists(self, name: str) -> bool:
        """See `References`."""
        return self._find(name) is not None

    def _find(self, name: str) -> zipfile.ZipInfo | None:
        paths = [posixpath.normpath(posixpath.join(self._folder, part)) for part in _spellings(name)]
        for path in paths:
            if path in self._members:
                return self._members[path]
        for path in paths:
            if path.casefold() in self._by_folded:
                return self._by_folded[path.casefold()]
        # Textures are often in a folder of their own, which only the program knew that wrote the mesh.
        last = posixpath.basename(paths[-1]).casefold() if paths else ""
        same = [info for name, info in self._by_folded.items() if posixpath.basename(name) == last]
        return same[0] if len(same) == 1 and not self._is_outside(name) else None

    def _read(self, name: str) -> bytes | None:
        info = self._find(name)
        if info is None or info.file_size > _MAX_REFERENCE_BYTES:
            return None
        try:
            return self._archive.read(info)
        except (
            zipfile.BadZipFile,
            zlib.error,
            OSError,
            RuntimeError,
            NotImplementedError,
            ValueError,
        ):  # damaged, or encrypted
            return None

    def _is_outside(self, name: str) -> bool:
        plain = name.replace("\\", "/")
        joined = posixpath.normpath(posixpath.join(self._folder, plain))
        return PurePosixPath(plain).is_absolute() or PureWindowsPath(name).is_absolute() or joined.startswith("..")


def _spellings(name: str) -> list[str]:
    """A name as it is and as other systems write it; last its last part alone."""
    name = _without_file_scheme(name)
    parts = [name, unquote(name), name.replace("\\", "/"), PureWindowsPath(unquote(name)).name]
    return [part for part in dict.fromkeys(parts) if part]


def _without_file_scheme(name: str) -> str:
    """`file:///C:/maps/t.png` as `C:/maps/t.png`, `file:///maps/t.png` as `/maps/t.png`."""
    match = re.match(r"file:/{0,2}(?:localhost)?(?=/)", name, re.IGNORECASE)
    if match is None:
        return name
    path = name[match.end() :]
    return path[1:] if re.match(r"/[A-Za-z]:", path) else path


def _normal(name: str) -> str:
    """The name of a member with slashes, and without `.` and `..`."""
    return posixpath.normpath(name.replace("\\", "/"))


def _note(names: list[str], name: str) -> None:
    if (shown := _shown(name)) not in names:
        names.append(shown)


def _shown(name: str) -> str:
    return shortened(name, _LONGEST_NAME)
