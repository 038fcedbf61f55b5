"""A folder, a zip or a tar as one thing: names with sizes, and the bytes behind each name.

Nothing here writes. Names that point outside of an archive are refused, links and devices in a tar are left out.
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
    *(OSError, EOFError, RuntimeError, ValueError, OverflowError, MemoryError),  # the last two: lengths beyond any file
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, tarfile.TarError),
)
_DRIVE = re.compile(r"[A-Za-z]:")


class Source(Protocol):
    """Where the files of a data set are.

    Attributes:
        path: as the user named it.
        sizes: bytes of each file by its name, with `/` between the parts.
    """

    path: Path
    sizes: Mapping[str, int]

    def read(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            CorruptMember: it cannot be read, or not as it was stored.
        """
        ...

    def local(self, name: str) -> Path | None:
        """The file itself, where it is one on this machine."""
        ...

    def in_order(self, names: Iterable[str]) -> list[str]:
        """In the order in which they are read fastest: a compressed tar goes forward only."""
        ...


def open_source(path: Path) -> Source:
    """Open a folder or an archive. Archives that lie directly in a folder count as unpacked there.

    Raises:
        DataError: there is nothing, or it is neither folder nor archive, or it ends early.
    """
    if path.is_dir():
        return FolderSource(path)
    if not path.exists():
        raise DataError(f"{path} is not there: name the archive, or the folder that it was unpacked to")
    return _open_archive(path)


def is_archive(path: Path) -> bool:
    """Whether a file is called like an archive."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def unzipped(data: bytes) -> bytes:
    """Content of a .gz; other data as they are.

    Raises:
        CorruptMember: it is damaged.
    """
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        return gzip.decompress(data)
    except _UNREADABLE as error:
        raise CorruptMember(f"its compression is damaged: {_why(error)}") from error


def read_text(source: Source, name: str) -> str:
    """A file as text.

    Raises:
        CorruptMember: it cannot be read, or is no UTF-8; with its name.
    """
    try:
        return source.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorruptMember(
            f"{name} is no text in UTF-8 ({error}): save it as UTF-8, or take it from its source again"
        ) from error
    except CorruptMember as error:
        raise CorruptMember(f"{name} {error}") from error


class FolderSource:
    """Files below a folder, and the members of the archives that lie directly in it. A file hides a member of its name."""

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
        """The file, unless it is in an archive."""
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
    """Members of a zip. Their checksums are verified as they are read."""

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
            raise CorruptMember(f"damaged in {self.path.name}: {_why(error)}") from error

    def local(self, name: str) -> Path | None:
        """None: it has to be unpacked."""
        return None

    def in_order(self, names: Iterable[str]) -> list[str]:
        """By place in the file."""
        return sorted(names, key=lambda name: self._infos[name].header_offset)


class TarSource:
    """Files of a tar, compressed or not. Links and devices are left out."""

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
            raise CorruptMember(f"damaged in {self.path.name}: {_why(error)}") from error
        if len(data) != self.sizes[name]:
            raise CorruptMember(f"damaged in {self.path.name}: {len(data):,} of {self.sizes[name]:,} bytes")
        return data

    def local(self, name: str) -> Path | None:
        """None: it has to be unpacked."""
        return None

    def in_order(self, names: Iterable[str]) -> list[str]:
        """By place in the file."""
        return sorted(names, key=lambda name: self._infos[name].offset_data)


def _folders(top: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders below one, each with its files. Links are followed, each folder once: by its own name, if it has one there."""
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
        error = _why(problem)
        if is_archive(path):
            size = path.stat().st_size
            raise DataError(
                f"{path} ({size:,} bytes) is damaged or ends early ({error}): fetch it again; --download resumes a download"
            ) from problem
        raise DataError(f"{path} is neither a folder nor a zip or tar archive: name one of these") from problem


def _why(error: Exception) -> str:
    """What an error says, in one line; some say nothing but their kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _checked(name: str, archive: Path) -> str:
    """The name with `/` between its parts, or nothing for what no data set needs.

    Raises:
        DataError: it points outside of the archive.
    """
    plain = name.replace("\\", "/")
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if plain.startswith("/") or _DRIVE.match(plain) or ".." in parts or "\0" in plain:
        raise DataError(
            f"{archive} holds '{name}', which points outside of it: this is not the released archive, fetch it from its source"
        )
    plain = "/".join(parts)
    return "" if _is_clutter(plain) or not _is_text(plain) else plain


def _is_clutter(name: str) -> bool:
    """Whether macOS or an interrupted run left it there."""
    parts = name.split("/")
    return "__MACOSX" in parts or parts[-1].startswith("._") or parts[-1] == ".DS_Store" or name.endswith(".partial")


def _is_text(name: str) -> bool:
    """Whether a CSV can hold the name."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
