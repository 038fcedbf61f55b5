"""The output folder: files, and the tables that `mvr index` reads.

Files are written atomically, so that an interrupted script can be run again.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_scripts.archives import Source
from data_scripts.errors import CorruptMember, DataError

RECORD = "data_set.json"
_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f]')

Check = Callable[[bytes], "str | None"]
"""Returns the problem with a file's bytes, or None."""


@dataclass(frozen=True)
class View:
    """An image of an object: its file, relative to the output folder, and the camera angles."""

    file: str
    azimuth_deg: float
    elevation_deg: float


@dataclass(frozen=True)
class Part:
    """A file to copy.

    Attributes:
        member: name in the source.
        file: relative to the output folder.
        check: of its bytes.
        needed: whether the object is dropped without it.
    """

    member: str
    file: str
    check: Check | None = None
    needed: bool = True


@dataclass(frozen=True)
class Item:
    """An object: its labels and its files.

    Attributes:
        file: the mesh, or the folder of its views; relative to the output folder.
        labels: columns of labels.csv; an empty string is no label.
        parts: files to copy.
    """

    file: str
    labels: Mapping[str, str]
    parts: tuple[Part, ...]


@dataclass
class Outcome:
    """Result of copying.

    Attributes:
        items: complete ones.
        copied: number of files written.
        kept: number of files that existed.
        corrupt: (member, problem) of files that are left out.
        lacking: output files that could not be written for that reason.
    """

    items: list[Item] = field(default_factory=list)
    copied: int = 0
    kept: int = 0
    corrupt: list[tuple[str, str]] = field(default_factory=list)
    lacking: set[str] = field(default_factory=set)


def plain_name(text: str) -> str:
    """A string as one path component: no separators, not hidden, never `..`."""
    name = _UNSAFE.sub("_", text).strip()
    name = name.lstrip(".") or "_"
    return name if len(name.encode()) <= 200 else name.encode()[:200].decode(errors="ignore")


class Layout:
    """An output folder.

    Raises:
        DataError: it has another data set, or the same one with other options.
    """

    def __init__(self, folder: Path, data_set: str, options: Mapping[str, Any], about: Mapping[str, str]) -> None:
        self.folder = folder
        self._record: dict[str, Any] | None = {"data_set": data_set, "options": dict(options), **about}
        old = folder / RECORD
        if old.exists():
            try:
                known = json.loads(old.read_text(encoding="utf-8"))
                held, held_options = known["data_set"], known["options"]
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise DataError(
                    f"cannot read {old} ({error!r}): delete {folder}, or choose another folder", code="bad_record"
                ) from error
            if (held, held_options) != (data_set, dict(options)):
                raise DataError(
                    f"{folder} has {held} with options {held_options}, not {data_set} with {dict(options)}: choose another folder",
                    code="other_data_set",
                )
            self._record = None

    def path(self, file: str) -> Path:
        """Path of an output file.

        Raises:
            DataError: it would be outside the folder.
        """
        if file.startswith("/") or any(part in ("", ".", "..") for part in file.split("/")):
            raise DataError(
                f"'{file}' would be written outside {self.folder}: the source is not the released one",
                code="outside_path",
            )
        return self.folder / file

    def has(self, file: str, size: int | None = None) -> bool:
        """Whether a file exists, with this size if one is given."""
        path = self.path(file)
        return path.is_file() and (size is None or path.stat().st_size == size)

    def write(self, file: str, data: bytes) -> None:
        """Write a file atomically."""
        path = self._prepare_path(file)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_bytes(data)
        partial.replace(path)

    def link(self, file: str, original: Path) -> None:
        """Hard-link a file; copy it if it is on another disk."""
        path = self._prepare_path(file)
        partial = path.with_name(f"{path.name}.partial")
        partial.unlink(missing_ok=True)
        try:
            os.link(original.resolve(), partial)
        except OSError:
            shutil.copyfile(original, partial)
        path.unlink(missing_ok=True)  # replacing a link with another link to the same file does nothing
        partial.replace(path)

    def _prepare_path(self, file: str) -> Path:
        """Path of a file to be written. The record of the data set is written before the first file."""
        if self._record is not None:
            record, self._record = self._record, None
            self.write(RECORD, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
        path = self.path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def copy(
        self, source: Source, items: Sequence[Item], progress: Callable[[int, int], None] = lambda _i, _n: None
    ) -> Outcome:
        """Copy the parts of items. Existing files of the right size are kept; items with a damaged needed part are dropped."""
        outcome = Outcome()
        waiting: dict[str, list[Part]] = {}
        for item in items:
            for part in item.parts:
                if self.has(part.file, source.sizes[part.member]):
                    outcome.kept += 1
                else:
                    waiting.setdefault(part.member, []).append(part)
        for number, member in enumerate(source.in_order(waiting)):
            progress(number, len(waiting))
            for part, problem in _copy_member(self, source, member, waiting[member]):
                if problem is None:
                    outcome.copied += 1
                else:
                    outcome.corrupt.append((member, problem))
                    outcome.lacking.add(part.file)
        outcome.items = [i for i in items if not any(p.needed and p.file in outcome.lacking for p in i.parts)]
        return outcome

    def write_table(self, file: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Write a CSV."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
        self.write(file, text.getvalue().encode())

    def write_labels(self, rows: Sequence[tuple[str, Mapping[str, str]]]) -> None:
        """Write `labels.csv`: the column `file`, and one column per label."""
        columns = list(dict.fromkeys(name for _, labels in rows for name in labels))
        table = ([file, *(labels.get(name, "") for name in columns)] for file, labels in rows)
        self.write_table("labels.csv", ["file", *columns], table)

    def write_views(self, file: str, views: Sequence[tuple[str, Sequence[View]]]) -> None:
        """Write a CSV of views: the rows of an object are consecutive, in view order."""
        rows = ((id, v.file, f"{v.azimuth_deg:g}", f"{v.elevation_deg:g}") for id, of_one in views for v in of_one)
        self.write_table(file, ["id", "file", "azimuth_deg", "elevation_deg"], rows)


def _copy_member(layout: Layout, source: Source, member: str, parts: Sequence[Part]) -> list[tuple[Part, str | None]]:
    """Write the files of one member; returns (part, problem or None) for each."""
    try:
        local = source.local(member)
        data = source.read(member) if local is None or any(part.check for part in parts) else b""
    except CorruptMember as error:
        return [(part, str(error)) for part in parts]
    done: list[tuple[Part, str | None]] = []
    for part in parts:
        problem = part.check(data) if part.check else None
        if problem is None and local is not None:
            layout.link(part.file, local)
        elif problem is None:
            layout.write(part.file, data)
        done.append((part, problem))
    return done
