"""Labels from a CSV: a `file` column with paths relative to the CSV, and one column per label."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvrender.mesh import UP_AXES, UpAxis
from mvretrieval.csv_file import read_csv
from mvretrieval.errors import LabelsError

_MISSING = {"", "nan", "null", "none", "n/a"}
# '007' is a part number, not seven; '1_000' is a number only in Python.
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,18})")
_DECIMAL = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MAX_COLUMNS = 1000  # SQLite allows 2,000


@dataclass(frozen=True)
class Labels:
    """Labels by absolute path of the file.

    Attributes:
        rows: typed values by name; None for an empty cell.
        up: up axis of the files whose cell `up` is not empty.
        columns: names of the labels.
    """

    rows: dict[str, dict[str, Any]]
    up: dict[str, UpAxis]
    columns: tuple[str, ...]


def read_labels(path: Path) -> Labels:
    """Read a CSV. A column has numbers if all of its cells are numbers, and text otherwise.

    Raises:
        LabelsError: the file cannot be read, has no `file` column, or has contradictory rows for one file.
    """
    names, rows = read_csv(path, "the labels", ["file"], LabelsError)
    if len(names) > _MAX_COLUMNS:
        raise LabelsError(
            f"labels {path} have {len(names)} columns, {_MAX_COLUMNS} are allowed: remove some", code="too_many_columns"
        )
    casts = {name: _type_of([row.get(name) for _, row in rows]) for name in names if name not in ("file", "up")}
    found: dict[str, dict[str, Any]] = {}
    up: dict[str, UpAxis] = {}
    for line, row in rows:
        if not row.get("file"):
            raise LabelsError(
                f"labels {path}, line {line}: the cell 'file' is empty: fill it, or remove the row", code="empty_cell"
            )
        file = os.path.abspath(path.parent / row["file"])  # noqa: PTH100 - the scan does not resolve links either
        values = {name: _value(row.get(name), cast) for name, cast in casts.items()}
        if found.get(file, values) != values:
            raise LabelsError(
                f"labels {path}, line {line}: {row['file']} has other labels in another row: keep one of them",
                code="contradictory_rows",
            )
        found[file] = values
        axis = (row.get("up") or "").strip().lower()
        if axis:
            if axis not in UP_AXES:
                raise LabelsError(
                    f"labels {path}, line {line}: up is one of {', '.join(UP_AXES)}, not '{axis}'", code="bad_up_axis"
                )
            up[file] = axis  # type: ignore[assignment]
    return Labels(found, up, tuple(casts))


def _type_of(cells: list[str | None]) -> type:
    values = [cell.strip() for cell in cells if cell is not None and cell.strip().lower() not in _MISSING]
    if not values:
        return str
    if all(_INTEGER.fullmatch(value) and -(1 << 63) <= int(value) < 1 << 63 for value in values):
        return int
    if all(
        _DECIMAL.fullmatch(value) and math.isfinite(float(value)) and not _is_long_integer(value) for value in values
    ):
        return float
    return str


def _is_long_integer(value: str) -> bool:
    """Whether a value is an integer with more digits than a float holds, such as an article number."""
    return value.lstrip("+-").isdigit() and len(value.lstrip("+-")) > 15


def _value(cell: str | None, cast: type) -> Any:
    if cell is None or cell.strip().lower() in _MISSING:
        return None
    return cast(cell.strip())
