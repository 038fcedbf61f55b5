"""Labels in the store: each is a typed column of the table `metadata`, created when the label is first set."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import FilterError, LabelsError, did_you_mean
from mvretrieval.store.database import Database
from mvretrieval.store.filters import Condition, parse_where

_PREFIX = "label:"
_MAX_LABELS = 200  # each is a column: a thousand make a change take seconds, and SQLite allows 2,000
FACTS = ("id", "path", "format", "faces", "vertices", "textured", "up")
_NUMERIC_FACTS = ("faces", "vertices", "textured")


def set_labels(db: Database, row_id: int, values: Mapping[str, Any]) -> bool:
    """Set labels of an object; columns are created as needed. Returns whether anything changed.

    Raises:
        LabelsError: a value is neither text nor a number, two names differ in case alone, or there are too many labels.
    """
    if not values:
        return False
    plain = {name: _plain(name, value) for name, value in values.items()}
    check_distinct(plain)
    known = {_lower(name) for name in label_names(db)}
    new = [name for name in plain if _lower(name) not in known]
    if new and len(known) + len(new) > _MAX_LABELS:
        raise LabelsError(
            f"a collection has at most {_MAX_LABELS} labels, '{new[0]}' would be one more: store what differs between objects "
            "in the values of a label, not in its name",
            code="too_many_labels",
        )
    for name in new:
        db.run(f"ALTER TABLE metadata ADD COLUMN {quoted(name)}")
        # A selective filter must not scan a million objects. The partial index holds only the objects with this label.
        db.run(f"CREATE INDEX {quoted(f'by {name}')} ON metadata ({quoted(name)}) WHERE {quoted(name)} IS NOT NULL")
    row = db.one(f"SELECT {', '.join(map(quoted, plain))} FROM metadata WHERE row_id = ?", (row_id,))
    if row is not None and [(type(v), v) for v in row] == [(type(v), v) for v in plain.values()]:
        return False
    assignments = ", ".join(f"{quoted(name)} = ?" for name in plain)
    db.run(f"UPDATE metadata SET {assignments} WHERE row_id = ?", (*plain.values(), row_id))
    return True


def check_distinct(names: Collection[str]) -> None:
    """Check that no two labels have names that differ in case alone, which SQLite takes for one.

    Raises:
        LabelsError: code `duplicate_label`.
    """
    if len({_lower(name) for name in names}) < len(names):
        raise LabelsError(
            f"two of the labels {', '.join(names)} differ in case alone: rename one of them", code="duplicate_label"
        )


def check_new_labels(names: Collection[str]) -> None:
    """Check names of labels before anything is stored.

    Raises:
        LabelsError: see `set_labels`.
    """
    for name in names:
        _plain(name, None)
    check_distinct(names)
    if len(names) > _MAX_LABELS:
        raise LabelsError(
            f"there are {len(names)} labels, a collection has at most {_MAX_LABELS}: leave some out",
            code="too_many_labels",
        )


def label_names(db: Database) -> list[str]:
    """Names of the labels, in the order of their columns."""
    return [row[1].removeprefix(_PREFIX) for row in db.all("PRAGMA table_info(metadata)") if row[1] != "row_id"]


def quoted(name: str) -> str:
    """Column of a label, quoted. The prefix distinguishes a label `row_id` from the key."""
    return '"' + (_PREFIX + name).replace('"', '""') + '"'


def columns(db: Database) -> dict[str, str]:
    """SQL of each column that `--where` may name: labels, and facts of the objects that no label shadows."""
    facts = {name: f"o.{name}" for name in FACTS}
    return facts | {name: f"m.{quoted(name)}" for name in label_names(db)}


def check_column(db: Database, name: str) -> None:
    """Check that a label or fact exists.

    Raises:
        FilterError: no column has this name.
    """
    known = columns(db)
    if name not in known:
        raise FilterError(
            f"no column '{name}' in {db.path.parent}: {did_you_mean(name, known)}it has {', '.join(sorted(known))}; "
            "add labels with 'mvr index --labels'",
            code="no_such_column",
        )


def column_values(db: Database, column: str, row_ids: Sequence[int]) -> list[Any]:
    """One label or fact of several objects, in the order of `row_ids`."""
    sql = columns(db)[column]
    values = dict(db.all(f"SELECT o.row_id, {sql} FROM objects o JOIN metadata m USING (row_id)"))
    return [values.get(int(n)) for n in row_ids]


def select(db: Database, where: str | None) -> NDArray[np.int64]:
    """Row ids (n,) of the objects that match a filter, in rising order; all without a filter.

    Raises:
        FilterError: the filter cannot be parsed, or compares numbers with text or the reverse.
    """
    condition = Condition("1", ()) if not where else parse_where(where, columns(db))
    _check_kinds(db, condition)
    # A filter on labels alone uses their indices; joining a row costs more than finding it. (A label name that contains "o."
    # causes a needless join.)
    tables = "objects o JOIN metadata m USING (row_id)" if "o." in condition.sql else "metadata m"
    rows = db.all(f"SELECT row_id FROM {tables} WHERE {condition.sql}", condition.parameters)
    return np.sort(np.fromiter((row[0] for row in rows), np.int64, len(rows)))


def _check_kinds(db: Database, condition: Condition) -> None:
    """Check that each column has a value of the kind that it is compared with, text or number, or no value at all."""
    for column, is_text in dict.fromkeys((column, isinstance(value, str)) for column, value in condition.compared):
        has_numbers, has_texts = _kinds(db, column)
        if has_numbers != has_texts and is_text == has_numbers:
            name = next(name for name, sql in columns(db).items() if sql == column)
            value = next(v for c, v in condition.compared if c == column and isinstance(v, str) == is_text)
            kinds = ("numbers", "text") if is_text else ("text", "a number")
            remedy = "write a number, without quotes" if is_text else f"write '{value}' in single quotes"
            raise FilterError(
                f"the values of '{name}' are {kinds[0]}, and {value!r} is {kinds[1]}: {remedy}",
                code="other_kind_of_value",
            )


def _kinds(db: Database, column: str) -> tuple[bool, bool]:
    """Whether a column holds numbers, and whether it holds text."""
    if not column.startswith("m."):
        is_numeric = column.removeprefix("o.") in _NUMERIC_FACTS
        return is_numeric, not is_numeric
    # All numbers are less than all text; the label's index answers at once.
    numbers, texts = (
        db.one(f"SELECT EXISTS (SELECT 1 FROM metadata m WHERE {column} {order} '')")[0] for order in ("<", ">=")
    )
    return bool(numbers), bool(texts)


def _lower(name: str) -> str:
    """Lower case of ASCII letters only, as SQLite compares column names."""
    return "".join(c.lower() if c.isascii() else c for c in name)


def _plain(name: str, value: Any) -> str | int | float | None:
    """A label's value as SQLite stores it."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return int(value)
    fits = not isinstance(value, int) or -(1 << 63) <= value < 1 << 63
    # A lone surrogate cannot be encoded.
    fits = fits and not any("\ud800" <= c <= "\udfff" for c in f"{name}{value if isinstance(value, str) else ''}")
    if not (value is None or isinstance(value, str | int | float)) or not fits or not name or "\0" in name:
        raise LabelsError(
            f"label {name!r} cannot have the value {ascii(value)[:50]} ({type(value).__name__}): give text or a number",
            code="bad_label_value",
        )
    return None if isinstance(value, float) and math.isnan(value) else value
