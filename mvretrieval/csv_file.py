"""CSV files from users: UTF-8, commas, names of the columns in the first row."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from mvretrieval.errors import MvrError

_SHOWN = 20
"""Names of columns in a message."""


def read_csv(
    path: Path, content: str, needed: Sequence[str], error: type[MvrError]
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a CSV file.

    Args:
        path: of the file.
        content: what it holds, for messages: "the labels".
        needed: columns that it must have.
        error: class of the errors.

    Returns:
        Names of the columns that have one, and (line, cells by name) of each row.

    Raises:
        MvrError: of class `error`. The file cannot be read (`csv_unreadable`), is not text (`not_utf8`, `not_text`), lacks a
            column (`no_such_column`), two columns have the same name (`duplicate_column`), or a row has more or fewer cells than
            the first (`csv_row_length`).
    """
    where = f"{content} in {path}"
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if "\0" in text:
            raise error(f"{where}: the file contains NUL characters: save it as UTF-8 text", code="not_text")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
        rows = [(reader.line_num, row) for row in reader]
    except UnicodeDecodeError as problem:
        raise error(f"{where}: the file is not UTF-8 ({problem}): save it as UTF-8", code="not_utf8") from problem
    except (OSError, csv.Error) as problem:
        columns, plural = " and ".join(f"'{name}'" for name in needed), "s" if len(needed) > 1 else ""
        reason = getattr(problem, "strerror", None) or problem  # without the path, which is named already
        raise error(
            f"{where} cannot be read ({reason}): give a CSV file with the column{plural} {columns}",
            code="csv_unreadable",
        ) from problem
    names = [name for name in reader.fieldnames if name]
    _check_columns(names, where, needed, error)
    for line, row in rows:
        missing = sum(cell is None for cell in row.values())
        if missing or None in row:
            n_columns = len(reader.fieldnames)
            n_cells = n_columns - missing + len(row.get(None, ()))
            raise error(
                f"{where}, line {line}: {n_cells} cell{'' if n_cells == 1 else 's'} for {n_columns} columns: quote cells that "
                "contain commas, and leave cells empty instead of out",
                code="csv_row_length",
            )
    return names, rows


def _check_columns(names: list[str], where: str, needed: Sequence[str], error: type[MvrError]) -> None:
    missing = [name for name in needed if name not in names]
    if missing:
        separated = len(names) == 1 and re.search(r"[;\t|]", names[0])
        fix = "separate the columns with commas" if separated else f"add a column '{missing[0]}'"
        there = ", ".join(names[:_SHOWN]) or "none"
        raise error(f"{where}: there is no column '{missing[0]}' (columns: {there}): {fix}", code="no_such_column")
    known: dict[str, str] = {}
    for name in names:
        if name.casefold() in known:  # SQLite does not distinguish the case of columns
            raise error(
                f"{where}: the columns '{known[name.casefold()]}' and '{name}' have the same name: rename one of them",
                code="duplicate_column",
            )
        known[name.casefold()] = name
