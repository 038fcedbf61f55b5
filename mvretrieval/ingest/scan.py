"""Finding mesh files in folders."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mvrender.formats import FORMATS


@dataclass(frozen=True)
class FoundFile:
    """A file that looks like a mesh, or a place that cannot be looked into.

    Attributes:
        path: absolute.
        root: the folder that was asked for; references may not leave it.
        problem: why it cannot be used, as (code, message), or None.
    """

    path: Path
    root: Path
    problem: tuple[str, str] | None = None


def find_meshes(folders: Iterable[Path]) -> Iterator[FoundFile]:
    """Mesh files in folders and their sub-folders, in a stable order; single files are taken as they are.

    Links are followed, each folder once, so that a loop of links ends. Inside of a folder, names that begin with a dot are
    passed over: version control, waste baskets, and the twin `._chair.glb` that macOS leaves beside every file.
    """
    seen_folders: set[tuple[int, int]] = set()
    seen_files: set[str] = set()
    for folder in folders:
        given = absolute(folder)
        if is_gone(given):
            yield _problem(given, given.parent, "missing_file", "no such file or folder")
        elif os.path.isfile(given):  # noqa: PTH113 - Path.is_file() raises where a folder above may not be entered
            if str(given) not in seen_files:
                seen_files.add(str(given))
                yield _named(given, given.parent)
        else:
            for found in _walk(given, given, seen_folders):
                if str(found.path) not in seen_files:
                    seen_files.add(str(found.path))
                    yield found


def _walk(folder: Path, root: Path, seen: set[tuple[int, int]]) -> Iterator[FoundFile]:
    try:
        info = folder.stat()
        if (info.st_dev, info.st_ino) in seen:
            return
        seen.add((info.st_dev, info.st_ino))
        with os.scandir(folder) as listing:
            entries = sorted((e for e in listing if not e.name.startswith(".")), key=lambda entry: entry.name)
    except PermissionError:
        yield _problem(
            folder, root, "no_permission", "the folder may not be read by this user; change its mode or owner"
        )
        return
    except OSError as error:
        yield _problem(folder, root, "unreadable", f"the folder cannot be read: {error.strerror or error}")
        return
    for entry in entries:
        path = folder / entry.name
        try:
            is_folder = entry.is_dir()
        except OSError:
            is_folder = False
        if is_folder:
            yield from _walk(path, root, seen)
        elif path.suffix.lower() in FORMATS:
            yield _named(path, root)


def _named(path: Path, root: Path) -> FoundFile:
    """A file, if a database and a worker can be told its name."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return _problem(path, root, "bad_name", "the name is not valid UTF-8; rename the file")
    return FoundFile(path, root)


def _problem(path: Path, root: Path, code: str, message: str) -> FoundFile:
    return FoundFile(Path(os.fsencode(path).decode("utf-8", "backslashreplace")), root, (code, message))


def absolute(path: Path) -> Path:
    """Without `..`, and with links as they are: resolve() would replace those that the user means."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def is_gone(path: Path | str) -> bool:
    """Whether there is certainly no such file. One that may not be looked at is not gone."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def stat_text(path: Path, references: Iterable[str] = ()) -> str:
    """Size and time of a file and of those it names, as text that changes when one of them does."""
    return json.dumps([size_and_time(path), *([name, size_and_time(Path(name))] for name in sorted(references))])


def still_the_same(path: Path, stored: str) -> bool:
    """Whether a file and those it names look as they did when `stored` was made."""
    try:
        own, *references = json.loads(stored)
    except ValueError:
        return False
    if own is None or size_and_time(path) != own:
        return False
    return all(size_and_time(Path(name)) == known for name, known in references)


def size_and_time(path: Path) -> list[int] | None:
    """Bytes and time of change in nanoseconds; None where there is no such file."""
    try:
        info = path.stat()
    except OSError:
        return None
    return [info.st_size, info.st_mtime_ns]
