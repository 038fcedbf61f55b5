"""`--where` expressions, parsed into SQL with parameters. User text never becomes SQL.

    label = 'chair' and faces < 5000
    split in ('train', 'val') or not (label like 'air%')
    "price (EUR)" between 3 and 5 and maker is not null

Text is in single quotes. A column name with other characters than letters, digits and underscores is in double quotes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from lark import Lark, Token, Transformer, UnexpectedInput
from lark.exceptions import VisitError

from mvretrieval.errors import FilterError, did_you_mean

# SQLite's limits: an expression depth of 1,000, and LIKE patterns of 50,000 bytes.
_MAX_LENGTH = 40_000
_MAX_CONDITIONS = 200
_INT64 = 1 << 63

_GRAMMAR = r"""
    ?start: or_
    ?or_: and_ (_OR and_)*
    ?and_: not_ (_AND not_)*
    ?not_: _NOT not_ -> negation
         | comparison
    ?comparison: column OPERATOR value               -> compare
         | column _IN "(" value ("," value)* ")"      -> in_
         | column _NOT _IN "(" value ("," value)* ")" -> not_in
         | column _LIKE string                        -> like
         | column _NOT _LIKE string                   -> not_like
         | column _BETWEEN value _AND value           -> between
         | column _IS _NULL                           -> is_null
         | column _IS _NOT _NULL                      -> not_null
         | "(" or_ ")"
    column: NAME | QUOTED
    ?value: string | number | boolean
    string: STRING
    number: SIGNED_NUMBER
    boolean: TRUE | FALSE
    OPERATOR: "<=" | ">=" | "!=" | "<>" | "=" | "<" | ">"
    _OR.2: /or\b/i
    _AND.2: /and\b/i
    _NOT.2: /not\b/i
    _IN.2: /in\b/i
    _LIKE.2: /like\b/i
    _BETWEEN.2: /between\b/i
    _IS.2: /is\b/i
    _NULL.2: /null\b/i
    TRUE.2: /true\b/i
    FALSE.2: /false\b/i
    NAME: /[^\W\d]\w*/
    QUOTED: /"(?:[^"]|"")+"/
    STRING: /'(?:[^']|'')*'/
    %import common.SIGNED_NUMBER
    %import common.WS
    %ignore WS
"""


_KEYWORDS = ("and", "between", "false", "in", "is", "like", "not", "null", "or", "true")
_LEAVES = ("column", "string", "number", "boolean")


@dataclass(frozen=True)
class Condition:
    """SQL with `?` for each of its parameters.

    Attributes:
        sql: the expression.
        parameters: its values.
        compared: SQL of a column and a value that it is compared with. SQLite never finds text equal to a number, so that a
            value of the other kind is a mistake.
    """

    sql: str
    parameters: tuple[Any, ...]
    compared: tuple[tuple[str, Any], ...] = ()


def parse_where(text: str, columns: Mapping[str, str]) -> Condition:
    """Turn an expression into SQL.

    Args:
        text: the expression.
        columns: SQL by the name that a user may write.

    Raises:
        FilterError: it cannot be parsed, is too long, or names an unknown column.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FilterError(f"the filter {text!r} is not valid UTF-8", code="not_utf8") from None
    if len(text) > _MAX_LENGTH:
        raise FilterError(
            f"the filter has {len(text)} characters, {_MAX_LENGTH} are allowed: shorten it, or add a label to filter by",
            code="filter_too_long",
        )
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        shown = text if len(text) < 200 else text[:200] + "..."
        raise FilterError(
            f"cannot parse the filter at {_place(text, error)}: {shown}. "
            "Write for example: label = 'chair' and faces < 5000 (text in single quotes)",
            code="filter_syntax",
        ) from None
    n_conditions = sum(1 for part in tree.iter_subtrees() if part.data not in _LEAVES)
    if n_conditions > _MAX_CONDITIONS:
        raise FilterError(
            f"the filter has {n_conditions} conditions, {_MAX_CONDITIONS} are allowed: use for example label in ('a', 'b', 'c')",
            code="filter_too_long",
        )
    try:
        result: Condition = _ToSql(columns).transform(tree)
    except VisitError as error:
        if isinstance(error.orig_exc, FilterError):
            raise error.orig_exc from None
        raise
    return result


def quote_column(name: str) -> str:
    """A column name as a filter takes it: in double quotes unless it is an identifier."""
    plain = name.isidentifier() and name.casefold() not in _KEYWORDS
    return name if plain else '"' + name.replace('"', '""') + '"'


def _place(text: str, error: UnexpectedInput) -> str:
    token = getattr(error, "token", None)
    if token is not None and token.type == "$END":
        return "its end"
    position = max(0, error.pos_in_stream or 0)
    return f"'{text[position : position + 20]}'"


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr")


class _ToSql(Transformer):  # type: ignore[type-arg]
    def __init__(self, columns: Mapping[str, str]) -> None:
        super().__init__()
        self._columns = columns

    def column(self, items: list[Token]) -> str:
        name = str(items[0])
        if name.startswith('"'):
            name = name[1:-1].replace('""', '"')
        if name in self._columns:
            return self._columns[name]
        folded = {known.casefold(): known for known in self._columns}
        if name.casefold() in folded:
            return self._columns[folded[name.casefold()]]
        raise FilterError(
            f"no column '{name[:100]}': {did_you_mean(name, self._columns)}"
            f"this collection has {', '.join(sorted(self._columns))}",
            code="no_such_column",
        )

    def string(self, items: list[Token]) -> str:
        return str(items[0])[1:-1].replace("''", "'")

    def number(self, items: list[Token]) -> int | float:
        text = str(items[0])
        if not text.lstrip("+-").isdigit() or len(text) > 20:
            return float(text)
        # SQLite integers have 64 bits.
        return int(text) if -_INT64 <= int(text) < _INT64 else float(text)

    def boolean(self, items: list[Token]) -> int:
        return int(items[0].lower() == "true")

    def compare(self, items: list[Any]) -> Condition:
        column, operator, value = items
        # In SQL, NULL != 'x' is not true; a user who writes != means objects without a value too.
        if operator in ("!=", "<>"):
            return Condition(f"{column} IS NOT ?", (value,), ((column, value),))
        return Condition(f"{column} {operator} ?", (value,), ((column, value),))

    def in_(self, items: list[Any]) -> Condition:
        column, *values = items
        pairs = tuple((column, value) for value in values)
        return Condition(f"{column} IN ({', '.join('?' * len(values))})", tuple(values), pairs)

    def not_in(self, items: list[Any]) -> Condition:
        return self.negation([self.in_(items)])

    def like(self, items: list[Any]) -> Condition:
        return Condition(f"{items[0]} LIKE ?", (items[1],))

    def not_like(self, items: list[Any]) -> Condition:
        return self.negation([self.like(items)])

    def between(self, items: list[Any]) -> Condition:
        column, *values = items
        return Condition(f"{column} BETWEEN ? AND ?", tuple(values), tuple((column, value) for value in values))

    def is_null(self, items: list[Any]) -> Condition:
        return Condition(f"{items[0]} IS NULL", ())

    def not_null(self, items: list[Any]) -> Condition:
        return Condition(f"{items[0]} IS NOT NULL", ())

    def negation(self, items: list[Any]) -> Condition:
        return Condition(f"NOT coalesce({items[0].sql}, 0)", items[0].parameters, items[0].compared)

    def and_(self, items: list[Any]) -> Condition:
        return _join(" AND ", items)

    def or_(self, items: list[Any]) -> Condition:
        return _join(" OR ", items)


def _join(word: str, items: list[Condition]) -> Condition:
    return Condition(
        "(" + word.join(item.sql for item in items) + ")",
        tuple(value for item in items for value in item.parameters),
        tuple(pair for item in items for pair in item.compared),
    )
