"""Find mesh files in folders."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mvrender.formats import FORMATS, NOT_READ


@dataclass(frozen=True)
class FoundFile:
    """A file with the suffix of a mesh format, or a path that cannot be read.

    Attributes:
        path: absolute.
        root: the folder that is indexed; references may not leave it.
        problem: code and message of the reason that it cannot be used, or None.
    """

    path: Path
    root: Path
    problem: tuple[str, str] | None = None


def find_meshes(folders: Iterable[Path], passed_over: Counter[str] | None = None) -> Iterator[FoundFile]:
    """Find mesh files in folders and their sub-folders, in a stable order; single files are returned whatever their suffix.

    Links are followed, each folder once, so that a loop of links ends. Names inside a folder that begin with a dot are skipped:
    version control, trash folders, and the `._chair.glb` that macOS writes beside every file.

    Args:
        folders: folders or files.
        passed_over: receives the number of 3D files and archives of each suffix that are not read.
    """
    passed_over = Counter() if passed_over is None else passed_over
    seen_folders: set[tuple[int, int]] = set()
    seen_files: set[str] = set()
    for folder in folders:
        start = absolute(folder)
        if is_gone(start):
            yield _problem(start, start.parent, "missing_file", "no such file or folder; check the path")
        elif os.path.isfile(start):  # noqa: PTH113 - Path.is_file() raises if a parent folder may not be entered
            if str(start) not in seen_files:
                seen_files.add(str(start))
                yield _named(start, start.parent)
        else:
            for found in _walk(start, start, seen_folders, passed_over):
                if str(found.path) not in seen_files:
                    seen_files.add(str(found.path))
                    yield found


def _walk(folder: Path, root: Path, seen: set[tuple[int, int]], passed_over: Counter[str]) -> Iterator[FoundFile]:
    try:
        info = folder.stat()
        if (info.st_dev, info.st_ino) in seen:
            return
        seen.add((info.st_dev, info.st_ino))
        with os.scandir(folder) as listing:
            entries = sorted((e for e in listing if not e.name.startswith(".")), key=lambda entry: entry.name)
    except PermissionError:
        yield _problem(folder, root, "no_permission", "this user may not read the folder: change its mode or owner")
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
            yield from _walk(path, root, seen, passed_over)
        elif path.suffix.lower() in FORMATS:
            yield _named(path, root)
        elif path.suffix.lower() in NOT_READ:
            passed_over[path.suffix.lower()] += 1


def _named(path: Path, root: Path) -> FoundFile:
    """A file, or a problem if its name is not UTF-8: SQLite and the workers need that."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return _problem(path, root, "bad_name", "the name is not valid UTF-8: rename the file")
    return FoundFile(path, root)


def _problem(path: Path, root: Path, code: str, message: str) -> FoundFile:
    return FoundFile(Path(os.fsencode(path).decode("utf-8", "backslashreplace")), root, (code, message))


def absolute(path: Path) -> Path:
    """Absolute path without `..`. Links stay: resolve() would replace links that the user gave on purpose."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def is_gone(path: Path | str) -> bool:
    """Whether the file certainly does not exist. One without read permission is not gone."""
    try:
        Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def stat_text(path: Path, references: Iterable[str] = ()) -> str:
    """Sizes and times of a file and of the files it references, as text that changes with any of them."""
    return json.dumps([size_and_time(path), *([name, size_and_time(Path(name))] for name in sorted(references))])


def is_unchanged(path: Path, stored: str) -> bool:
    """Whether a file and its references have the sizes and times in `stored`, a result of `stat_text`."""
    try:
        own, *references = json.loads(stored)
    except ValueError:
        return False
    if own is None or size_and_time(path) != own:
        return False
    return all(size_and_time(Path(name)) == known for name, known in references)


def size_and_time(path: Path) -> list[int] | None:
    """Size in bytes and modification time in nanoseconds; None if the file does not exist."""
    try:
        info = path.stat()
    except OSError:
        return None
    return [info.st_size, info.st_mtime_ns]
