"""Labels in the store: one typed column of the table `metadata` each, made when a label is first set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import FilterError, LabelsError, did_you_mean
from mvretrieval.store.database import Database
from mvretrieval.store.filters import Condition, parse_where

_PREFIX = "label:"
_MOST_LABELS = 1000  # SQLite has 2,000 columns at most, and indices for each
_FACTS = ("id", "path", "format", "faces", "vertices", "textured", "up")


def set_labels(db: Database, row_id: int, values: Mapping[str, Any]) -> bool:
    """Set labels of an object; columns are made as needed. Tells whether anything changed.

    Raises:
        LabelsError: a value is neither text nor a row_id, or two names differ in case alone, or there are too many.
    """
    if not values:
        return False
    plain = {name: _plain(name, value) for name, value in values.items()}
    if len({_lower(name) for name in plain}) < len(plain):
        raise LabelsError(
            f"two of the labels {', '.join(plain)} are called the same: upper and lower case count as one"
        )
    known = {_lower(name) for name in label_names(db)}
    new = [name for name in plain if _lower(name) not in known]
    if new and len(known) + len(new) > _MOST_LABELS:
        raise LabelsError(
            f"a collection has at most {_MOST_LABELS} labels, and '{new[0]}' would be one more: use the values of a label for what "
            "differs from object to object, not its name"
        )
    for name in new:
        db.run(f"ALTER TABLE metadata ADD COLUMN {quoted(name)}")
        # A filter that keeps few of a million objects must not look at all of them. Objects without the label take no room.
        db.run(f"CREATE INDEX {quoted(f'by {name}')} ON metadata ({quoted(name)}) WHERE {quoted(name)} IS NOT NULL")
    row = db.one(f"SELECT {', '.join(map(quoted, plain))} FROM metadata WHERE row_id = ?", (row_id,))
    if row is not None and [(type(v), v) for v in row] == [(type(v), v) for v in plain.values()]:
        return False
    assignments = ", ".join(f"{quoted(name)} = ?" for name in plain)
    db.run(f"UPDATE metadata SET {assignments} WHERE row_id = ?", (*plain.values(), row_id))
    return True


def label_names(db: Database) -> list[str]:
    """Names of the labels, in the order of their columns."""
    return [row[1].removeprefix(_PREFIX) for row in db.all("PRAGMA table_info(metadata)") if row[1] != "row_id"]


def quoted(name: str) -> str:
    """Column of a label, quoted. The prefix keeps a label called `row_id` from meaning the key."""
    return '"' + (_PREFIX + name).replace('"', '""') + '"'


def columns(db: Database) -> dict[str, str]:
    """What `--where` may name, as SQL: labels, and the objects' own facts where no label hides them."""
    facts = {name: f"o.{name}" for name in _FACTS}
    return facts | {name: f"m.{quoted(name)}" for name in label_names(db)}


def check_column(db: Database, name: str) -> None:
    """Refuse a label or fact that no object has.

    Raises:
        FilterError: there is none of that name.
    """
    known = columns(db)
    if name not in known:
        raise FilterError(
            f"no label '{name}': {did_you_mean(name, known)}this collection has {', '.join(sorted(known))}"
        )


def column_values(db: Database, column: str, row_ids: Sequence[int]) -> list[Any]:
    """One label or fact of several objects, in the order of `row_ids`."""
    sql = columns(db)[column]
    values = dict(db.all(f"SELECT o.row_id, {sql} FROM objects o JOIN metadata m USING (row_id)"))
    return [values.get(int(n)) for n in row_ids]


def select(db: Database, where: str | None) -> NDArray[np.int64]:
    """Numbers (n,) of the objects that an expression keeps, in order; all without one.

    Raises:
        FilterError: the expression cannot be understood.
    """
    condition = Condition("1", ()) if not where else parse_where(where, columns(db))
    # Labels alone are answered by their indices; each row that is joined costs more than finding it. (A label's own name may
    # hold "o.", and then the join is done for nothing.)
    tables = "objects o JOIN metadata m USING (row_id)" if "o." in condition.sql else "metadata m"
    rows = db.all(f"SELECT row_id FROM {tables} WHERE {condition.sql}", condition.parameters)
    return np.sort(np.fromiter((row[0] for row in rows), np.int64, len(rows)))


def _lower(name: str) -> str:
    """As SQLite compares the names of columns."""
    return "".join(c.lower() if c.isascii() else c for c in name)


def _plain(name: str, value: Any) -> str | int | float | None:
    """A label's value as SQLite stores it."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return int(value)
    fits = not isinstance(value, int) or -(1 << 63) <= value < 1 << 63
    # Half of a pair of surrogates cannot be written.
    fits = fits and not any("\ud800" <= c <= "\udfff" for c in f"{name}{value if isinstance(value, str) else ''}")
    if not (value is None or isinstance(value, str | int | float)) or not fits or not name or "\0" in name:
        raise LabelsError(
            f"label {name!r} cannot be {ascii(value)[:50]} ({type(value).__name__}): text and numbers can be stored"
        )
    return None if isinstance(value, float) and math.isnan(value) else value
