"""Read-only access to a folder, a zip or a tar: names with sizes, and the bytes of each file.

Names that point outside the archive are refused; links and devices in a tar are ignored.
"""

from __future__ import annotations

import gzip
import lzma
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from data_scripts.errors import CorruptMember, DataError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, ValueError, OverflowError, MemoryError),  # the last two: impossible lengths
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, tarfile.TarError),
)
_DRIVE = re.compile(r"[A-Za-z]:")


class Source(Protocol):
    """The files of a data set.

    Attributes:
        path: as given by the user.
        sizes: bytes of each file by name; names use `/`.
    """

    path: Path
    sizes: Mapping[str, int]

    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            CorruptMember: it cannot be read, or its checksum is wrong.
        """
        ...

    def local(self, name: str) -> Path | None:
        """The file on disk; None if it is in an archive."""
        ...

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Names in the fastest reading order: a compressed tar is read forward only."""
        ...


def open_source(path: Path) -> Source:
    """Open a folder or an archive. Archives directly in a folder are treated as unpacked there.

    Raises:
        DataError: it does not exist, is neither a folder nor an archive, or is damaged.
    """
    if path.is_dir():
        return FolderSource(path)
    if not path.exists():
        raise DataError(f"{path} does not exist: give the archive, or the folder it was unpacked to", code="no_source")
    return _open_archive(path)


def is_archive(path: Path) -> bool:
    """Whether a file name has the suffix of an archive."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def unzipped(data: bytes) -> bytes:
    """Decompress a .gz; other data are returned unchanged.

    Raises:
        CorruptMember: it is damaged.
    """
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except _UNREADABLE as error:
        raise CorruptMember(f"its compressed data are damaged: {_reason(error)}", code="bad_compression") from error


def read_text(source: Source, name: str) -> str:
    """Read a text file.

    Raises:
        CorruptMember: it cannot be read, or is not UTF-8. The message has its name.
    """
    try:
        return source.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorruptMember(
            f"{name} is not UTF-8 text ({error}): save it as UTF-8, or get it from its source again", code="not_utf8"
        ) from error
    except CorruptMember as error:
        raise CorruptMember(f"{name} {error}", code=error.code) from error


class FolderSource:
    """Files below a folder, and the members of archives directly in it. A file hides an archive member of the same name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archives: dict[str, Source] = {}
        sizes: dict[str, int] = {}
        for archive in sorted(found for found in path.iterdir() if is_archive(found) and found.is_file()):
            opened = _open_archive(archive)
            sizes.update(opened.sizes)
            self._archives.update(dict.fromkeys(opened.sizes, opened))
        for folder, files in _folders(path):
            for file in files:
                found = Path(folder, file)
                name = found.relative_to(path).as_posix()
                if not _is_clutter(name) and not is_archive(found) and found.is_file() and _is_text(name):
                    sizes[name] = found.stat().st_size
                    self._archives.pop(name, None)
        self.sizes: Mapping[str, int] = sizes

    def read(self, name: str) -> bytes:
        """Content of a file or of a member of an archive."""
        if name in self._archives:
            return self._archives[name].read(name)
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise CorruptMember(f"cannot be read: {error.strerror or error}") from error

    def local(self, name: str) -> Path | None:
        """The file on disk; None if it is in an archive."""
        return None if name in self._archives else self.path / name

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Files first, by name, then each archive in its own order."""
        by_archive: dict[int, tuple[Source, list[str]]] = {}
        files: list[str] = []
        for name in names:
            archive = self._archives.get(name)
            if archive is None:
                files.append(name)
            else:
                by_archive.setdefault(id(archive), (archive, []))[1].append(name)
        ordered = sorted(files)
        for archive, members in by_archive.values():
            ordered += archive.in_order(members)
        return ordered


class ZipSource:
    """Members of a zip. Checksums are verified on reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip = zipfile.ZipFile(path)
        self._infos: dict[str, zipfile.ZipInfo] = {}
        for info in self._zip.infolist():
            name = _checked(info.filename, path)
            if not info.is_dir() and name:
                self._infos[name] = info
        self.sizes: Mapping[str, int] = {name: info.file_size for name, info in self._infos.items()}

    def read(self, name: str) -> bytes:
        """Content of a member."""
        try:
            return self._zip.read(self._infos[name])
        except _UNREADABLE as error:
            raise CorruptMember(f"damaged in {self.path.name}: {_reason(error)}") from error

    def local(self, name: str) -> Path | None:
        """None: members are in the archive."""
        return None

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Names by position in the archive."""
        return sorted(names, key=lambda name: self._infos[name].header_offset)


class TarSource:
    """Files of a tar, compressed or not. Links and devices are ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tar = tarfile.open(path)
        self._infos: dict[str, tarfile.TarInfo] = {}
        for info in self._tar:
            name = _checked(info.name, path)
            if info.isreg() and name:
                self._infos[name] = info
        self.sizes: Mapping[str, int] = {name: info.size for name, info in self._infos.items()}

    def read(self, name: str) -> bytes:
        """Content of a file."""
        try:
            member = self._tar.extractfile(self._infos[name])
            data = b"" if member is None else member.read()
        except _UNREADABLE as error:
            raise CorruptMember(f"damaged in {self.path.name}: {_reason(error)}") from error
        if len(data) != self.sizes[name]:
            raise CorruptMember(f"damaged in {self.path.name}: {len(data):,} of {self.sizes[name]:,} bytes")
        return data

    def local(self, name: str) -> Path | None:
        """None: members are in the archive."""
        return None

    def in_order(self, names: Iterable[str]) -> list[str]:
        """Names by position in the archive."""
        return sorted(names, key=lambda name: self._infos[name].offset_data)


def _folders(top: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders below `top` with their files. Symbolic links are followed, each folder once, under its real name if possible."""
    seen: set[tuple[int, int]] = set()
    waiting = [str(top)]
    while waiting:
        links: list[str] = []
        for start in waiting:
            for folder, folders, files in os.walk(start):
                info = Path(folder).stat()
                if (info.st_dev, info.st_ino) in seen:
                    folders.clear()
                    continue
                seen.add((info.st_dev, info.st_ino))
                links += [str(Path(folder, name)) for name in folders if Path(folder, name).is_symlink()]
                yield folder, files
        waiting = sorted(links)


def _open_archive(path: Path) -> Source:
    try:
        is_zip = path.name.lower().endswith(".zip") or zipfile.is_zipfile(path)
        return ZipSource(path) if is_zip else TarSource(path)
    except _UNREADABLE as problem:
        error = _reason(problem)
        if is_archive(path):
            size = path.stat().st_size
            raise DataError(
                f"{path} ({size:,} bytes) is damaged or truncated ({error}): download it again; --download resumes",
                code="damaged_archive",
            ) from problem
        raise DataError(
            f"{path} is neither a folder nor a zip or tar archive: give one of these", code="not_an_archive"
        ) from problem


def _reason(error: Exception) -> str:
    """The message of an error in one line; its class name if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _checked(name: str, archive: Path) -> str:
    """The name with `/` as separator; empty for clutter.

    Raises:
        DataError: it points outside the archive.
    """
    plain = name.replace("\\", "/")
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if plain.startswith("/") or _DRIVE.match(plain) or ".." in parts or "\0" in plain:
        raise DataError(
            f"{archive} has a member '{name}', which points outside the archive: this is not the released file, download it "
            "from its source",
            code="outside_path",
        )
    plain = "/".join(parts)
    return "" if _is_clutter(plain) or not _is_text(plain) else plain


def _is_clutter(name: str) -> bool:
    """Whether macOS or an interrupted run created the file."""
    parts = name.split("/")
    return "__MACOSX" in parts or parts[-1].startswith("._") or parts[-1] == ".DS_Store" or name.endswith(".partial")


def _is_text(name: str) -> bool:
    """Whether the name can be written to a CSV."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
