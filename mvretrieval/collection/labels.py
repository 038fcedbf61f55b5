"""Labels from a CSV: a `file` column with paths relative to the CSV, and any others."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvrender.mesh import UP_AXES
from mvretrieval.errors import LabelsError

_MISSING = {"", "nan", "null", "none", "n/a"}


@dataclass(frozen=True)
class Labels:
    """Labels by absolute path of the file.

    Attributes:
        rows: typed values; empty cells are left out as None.
        up: up axis of the files for which the CSV states one.
        columns: names of the labels.
    """

    rows: dict[str, dict[str, Any]]
    up: dict[str, str]
    columns: tuple[str, ...]


def read_labels(path: Path) -> Labels:
    """Read a CSV. A column is a number where all of its cells are, and text otherwise.

    Raises:
        LabelsError: the file cannot be read, or has no `file` column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = [name for name in (reader.fieldnames or []) if name]
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelsError(f"labels {path} cannot be read: {error}") from error
    if "file" not in names:
        raise LabelsError(f"labels {path} have no column 'file' (they have {', '.join(names) or 'none'}): name the mesh files there")
    names = [name for name in names if name != "file"]
    casts = {name: _type_of([row.get(name) for row in rows]) for name in names if name != "up"}
    found: dict[str, dict[str, Any]] = {}
    up: dict[str, str] = {}
    base = path.parent
    for line, row in enumerate(rows, start=2):
        if not row.get("file"):
            raise LabelsError(f"labels {path}, line {line}: the cell 'file' is empty")
        file = os.path.abspath(base / row["file"])  # noqa: PTH100 - the scan does not resolve links either
        found[file] = {name: _value(row.get(name), cast) for name, cast in casts.items()}
        axis = (row.get("up") or "").strip().lower()
        if axis:
            if axis not in UP_AXES:
                raise LabelsError(f"labels {path}, line {line}: up is one of {', '.join(UP_AXES)}, not '{axis}'")
            up[file] = axis
    return Labels(found, up, tuple(casts))


def _type_of(cells: list[str | None]) -> type:
    values = [cell.strip() for cell in cells if cell is not None and cell.strip().lower() not in _MISSING]
    for cast in (int, float):
        try:
            for value in values:
                # '007' is a part number, not seven.
                if cast is int and len(value.lstrip("+-")) > 1 and value.lstrip("+-")[0] == "0":
                    return str
                cast(value)
        except ValueError:
            continue
        if values:
            return cast
    return str


def _value(cell: str | None, cast: type) -> Any:
    if cell is None or cell.strip().lower() in _MISSING:
        return None
    if cast is int and abs(int(cell)) >= 1 << 63:
        return cell
    return cast(cell.strip())
