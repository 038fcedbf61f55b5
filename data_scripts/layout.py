"""What is written: files under the output folder, and the tables that `mvr index` reads beside them.

Every file appears under its name at once and whole, so that a script that was killed goes on by running it again.
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
"""Says what is wrong with a file's bytes, or None."""


@dataclass(frozen=True)
class View:
    """A picture of an object: its file, relative to the output folder, and where the camera stood."""

    file: str
    azimuth_deg: float
    elevation_deg: float


@dataclass(frozen=True)
class Part:
    """A member of the source and the file it becomes.

    Attributes:
        member: name in the source.
        file: relative to the output folder.
        check: what its bytes have to be like.
        needed: whether the object is of no use without it.
    """

    member: str
    file: str
    check: Check | None = None
    needed: bool = True


@dataclass(frozen=True)
class Item:
    """An object: what `labels.csv` says of it, and the files it is made of.

    Attributes:
        file: its mesh, or the folder of its views; relative to the output folder.
        labels: columns of labels.csv; an empty text is no label.
        parts: files to copy.
    """

    file: str
    labels: Mapping[str, str]
    parts: tuple[Part, ...]


@dataclass
class Outcome:
    """What became of the items.

    Attributes:
        items: those that lie there, whole.
        copied: files written now.
        kept: files that were there.
        corrupt: (member, what is wrong) of those that are left out.
        lacking: files of the output that could not be made from them.
    """

    items: list[Item] = field(default_factory=list)
    copied: int = 0
    kept: int = 0
    corrupt: list[tuple[str, str]] = field(default_factory=list)
    lacking: set[str] = field(default_factory=set)


def plain_name(text: str) -> str:
    """A text as one part of a path: no separators, nothing hidden, never `..`."""
    name = _UNSAFE.sub("_", text).strip()
    name = name.lstrip(".") or "_"
    return name if len(name.encode()) <= 200 else name.encode()[:200].decode(errors="ignore")


class Layout:
    """An output folder.

    Raises:
        DataError: it holds another data set, or the same one with other options.
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
                raise DataError(f"{old} cannot be read ({error!r}): delete {folder}, or name another folder") from error
            if (held, held_options) != (data_set, dict(options)):
                raise DataError(
                    f"{folder} holds {held} with the options {held_options}, and this is {data_set} with {dict(options)}: "
                    "name another folder"
                )
            self._record = None

    def path(self, file: str) -> Path:
        """Where a file of the output lies.

        Raises:
            DataError: it would lie outside.
        """
        if file.startswith("/") or any(part in ("", ".", "..") for part in file.split("/")):
            raise DataError(f"'{file}' would be written outside of {self.folder}: the source is not the released one")
        return self.folder / file

    def has(self, file: str, size: int | None = None) -> bool:
        """Whether a file is there, of that size if one is given."""
        path = self.path(file)
        return path.is_file() and (size is None or path.stat().st_size == size)

    def write(self, file: str, data: bytes) -> None:
        """Write a file; it appears whole or not at all."""
        path = self._place_for(file)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_bytes(data)
        partial.replace(path)

    def link(self, file: str, original: Path) -> None:
        """A hard link to a file on the same disk, or a copy of one elsewhere."""
        path = self._place_for(file)
        partial = path.with_name(f"{path.name}.partial")
        partial.unlink(missing_ok=True)
        try:
            os.link(original.resolve(), partial)
        except OSError:
            shutil.copyfile(original, partial)
        path.unlink(missing_ok=True)  # renaming one link onto another of the same file does nothing
        partial.replace(path)

    def _place_for(self, file: str) -> Path:
        """Path of a file about to be written. The first one is the record of what the folder is for."""
        if self._record is not None:
            record, self._record = self._record, None
            self.write(RECORD, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
        path = self.path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def copy(
        self, source: Source, items: Sequence[Item], progress: Callable[[int, int], None] = lambda _i, _n: None
    ) -> Outcome:
        """Copy the parts of items; what is there in its full size is kept, what is damaged leaves its item out."""
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
            for part, problem in _place(self, source, member, waiting[member]):
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
        """Write `labels.csv`: the column `file`, and one for each label that any object has."""
        columns = list(dict.fromkeys(name for _, labels in rows for name in labels))
        table = ([file, *(labels.get(name, "") for name in columns)] for file, labels in rows)
        self.write_table("labels.csv", ["file", *columns], table)

    def write_views(self, file: str, views: Sequence[tuple[str, Sequence[View]]]) -> None:
        """Write a CSV of views: an object's rows stand together, in the order in which its views are taken."""
        rows = ((id, v.file, f"{v.azimuth_deg:g}", f"{v.elevation_deg:g}") for id, of_one in views for v in of_one)
        self.write_table(file, ["id", "file", "azimuth_deg", "elevation_deg"], rows)


def _place(layout: Layout, source: Source, member: str, parts: Sequence[Part]) -> list[tuple[Part, str | None]]:
    """Write the files that one member becomes; tells what is wrong with each."""
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
