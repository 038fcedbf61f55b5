"""`--where` filters select what a slow evaluation in Python selects, and never become SQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from error_codes import raises_code
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_meshes import new_object

from mvretrieval.errors import FilterError
from mvretrieval.store.filters import parse_where
from mvretrieval.store.store import Store

COLUMNS = {"label": 'm."label"', "faces": "o.faces", "price (EUR)": 'm."price (EUR)"'}
TEXTS = ["chair", "Chair", "armchair", "it's", "", "100%", "a_b", "ä ö", 'say "so"', "5", "\n"]
TEXTS.append("x'; DROP TABLE objects; --")
NUMBERS = [-3, 0, 1, 2.5, 1e10, 7, 4096]
ROWS = [
    {"label": text, "size": row_id, "mixed": mixed}
    for text, row_id, mixed in zip(
        [*TEXTS, None, "chair"],
        [*NUMBERS, None, 5, 2.5, -0.5, 1, 2, 3],
        ["a", 1, None, "1", 2.5, "b", 0, *"cdefgh", None],
        strict=True,
    )
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store.create(tmp_path_factory.mktemp("where"))
    with store.transaction():
        for i, row in enumerate(ROWS):
            store.set_metadata(store.put(new_object(f"o{i}"), 1), row)
    yield store
    store.close()


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# -- agreement with Python --------------------------------------------------------------------------------

Predicate = Callable[[dict[str, Any]], bool]


def order(value: Any) -> tuple[int, Any]:
    """SQL's order of values other than NULL: numbers before text."""
    return (1, value) if isinstance(value, str) else (0, value)


def compared(column: str, operator: str, value: Any) -> Predicate:
    tests: dict[str, Callable[[Any, Any], bool]] = {
        "=": lambda a, b: a == b,
        "<": lambda a, b: a < b,
        "<=": lambda a, b: a <= b,
        ">": lambda a, b: a > b,
        ">=": lambda a, b: a >= b,
    }
    if operator in ("!=", "<>"):
        return lambda row: row[column] is None or order(row[column]) != order(value)
    return lambda row: row[column] is not None and tests[operator](order(row[column]), order(value))


def liked(column: str, pattern: str) -> Predicate:
    expression = "".join({"%": ".*", "_": "."}.get(c, re.escape(c)) for c in ascii_lower(pattern))
    compiled = re.compile(expression, re.DOTALL)
    return lambda row: row[column] is not None and compiled.fullmatch(ascii_lower(row[column])) is not None


def ascii_lower(text: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in text)


texts = st.sampled_from(TEXTS)
numbers = st.one_of(st.sampled_from(NUMBERS), st.floats(-1e6, 1e6), st.integers(-(10**30), 10**30))
LITERALS: dict[str, st.SearchStrategy[Any]] = {"label": texts, "size": numbers, "mixed": st.one_of(texts, numbers)}
names = st.sampled_from(["label", "size", "mixed"])


def written(value: Any) -> str:
    return quoted(value) if isinstance(value, str) else repr(value)


@st.composite
def comparisons(draw: st.DrawFn) -> tuple[str, Predicate]:
    column = draw(names)
    name = draw(st.sampled_from([column, column.upper(), f'"{column}"']))
    literals = LITERALS[column]
    kind = draw(st.sampled_from(["compare", "in", "not in", "like", "not like", "between", "is null", "is not null"]))
    if kind == "compare":
        operator, value = draw(st.sampled_from(["=", "!=", "<>", "<", "<=", ">", ">="])), draw(literals)
        return f"{name}{operator}{written(value)}", compared(column, operator, value)
    if kind.endswith("in"):
        values = draw(st.lists(literals, min_size=1, max_size=3))
        inside: Predicate = lambda row: any(compared(column, "=", v)(row) for v in values)  # noqa: E731
        text = f"{name} {kind} ({', '.join(map(written, values))})"
        return text, inside if kind == "in" else (lambda row: not inside(row))
    if kind.endswith("like"):
        pattern = draw(st.sampled_from([*TEXTS, "%chair", "%H%", "_", "%", "a__b", "%%%"]))
        like = liked("label", pattern)
        text = f"label {kind} {quoted(pattern)}"
        return text, like if kind == "like" else (lambda row: not like(row))
    if kind == "between":
        low, high = draw(literals), draw(literals)
        both = compared(column, ">=", low), compared(column, "<=", high)
        return f"{name} between {written(low)} and {written(high)}", lambda row: all(test(row) for test in both)
    missing = kind == "is null"
    return f"{name} {kind}", lambda row: (row[column] is None) == missing


def combined(inner: st.SearchStrategy[tuple[str, Predicate]]) -> st.SearchStrategy[tuple[str, Predicate]]:
    def both(pair: tuple[tuple[str, Predicate], tuple[str, Predicate]], operator: str) -> tuple[str, Predicate]:
        (a, first), (b, second) = pair
        if operator == "and":
            return f"({a}) AND ({b})", lambda row: first(row) and second(row)
        return f"({a})\nor ({b})", lambda row: first(row) or second(row)

    negated = inner.map(lambda item: (f"not ({item[0]})", lambda row: not item[1](row)))
    return st.one_of(negated, st.builds(both, st.tuples(inner, inner), st.sampled_from(["and", "or"])))


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(expression=st.recursive(comparisons(), combined, max_leaves=6))
def test_selection_equals_python(store: Store, expression: tuple[str, Predicate]) -> None:
    text, predicate = expression
    assert store.select(text).tolist() == [i + 1 for i, row in enumerate(ROWS) if predicate(row)]


def test_operator_precedence(store: Store) -> None:
    assert np.array_equal(
        store.select("label = 'chair' or size = 1 and mixed = 'zzz'"),
        store.select("label = 'chair' or (size = 1 and mixed = 'zzz')"),
    )
    assert np.array_equal(
        store.select("not label = 'chair' and size > 0"), store.select("(not (label = 'chair')) and size > 0")
    )


def test_filter_by_facts(store: Store) -> None:
    assert len(store.select("faces = 12 and format = 'ply' and id like 'o1%'")) == 1 + 4


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("size = '5'", "the values of 'size' are numbers, and '5' is text: write a number, without quotes"),
        ("label = 5", "the values of 'label' are text, and 5 is a number: write '5' in single quotes"),
        ("not (size > 1 and LABEL in ('chair', 2.5))", "the values of 'label' are text, and 2.5 is a number"),
        ("size between 1 and 'b'", "the values of 'size' are numbers, and 'b' is text"),
        ("size != '1'", "the values of 'size' are numbers"),
        ("faces < 'many'", "the values of 'faces' are numbers, and 'many' is text: write a number, without quotes"),
        ("format = 3", "the values of 'format' are text, and 3 is a number: write '3' in single quotes"),
        ("textured = 'yes'", "the values of 'textured' are numbers"),
    ],
)
def test_a_value_of_the_other_kind_is_an_error(store: Store, expression: str, message: str) -> None:
    with raises_code(FilterError, "other_kind_of_value", message):
        store.select(expression)


def test_an_empty_label_compares_with_anything(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    with store.transaction():
        store.set_metadata(store.put(new_object("a"), 1), {"empty": None})
    assert not len(store.select("empty = 1 or empty = 'x'"))
    store.close()


# -- injection --------------------------------------------------------------------------------------------------


@given(st.text())
def test_string_becomes_a_parameter(text: str) -> None:
    condition = parse_where(f"label = {quoted(text)} and faces < 5", COLUMNS)
    assert condition.parameters == (text, 5)
    assert condition.sql == parse_where("label = 'x' and faces < 5", COLUMNS).sql


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.text(),
        st.lists(
            st.sampled_from(
                ["label", "=", "'", "''", '"', "or", "not", "(", ")", ";", "--", "1", ",", "in", "like", "\x00"]
            )
        ).map(" ".join),
    )
)
def test_any_text_selects_or_is_an_error(store: Store, text: str) -> None:
    try:
        row_ids = store.select(text)
    except FilterError:
        row_ids = np.empty(0, np.int64)
    assert set(row_ids.tolist()) <= set(range(1, len(ROWS) + 1))
    assert store.count() == len(ROWS)


@pytest.mark.parametrize(
    "attack",
    [
        "label = 'x'; DROP TABLE objects",
        "label = 'x' --",
        "1 = 1",
        "label = (select id from objects)",
        "label = 'x' union select 1",
        '"label"" = 1; DROP TABLE objects; --" = 1',
        "label in (select id from objects)",
    ],
)
def test_injection_is_an_error(store: Store, attack: str) -> None:
    with pytest.raises(FilterError):
        store.select(attack)
    assert store.count() == len(ROWS)


def test_column_name_with_sql(tmp_path: Path) -> None:
    store = Store.create(tmp_path)
    name = 'a" = 1; DROP TABLE objects; --'
    with store.transaction():
        store.set_metadata(store.put(new_object("x"), 1), {name: "y"})
    escaped = name.replace('"', '""')
    assert store.select(f"\"{escaped}\" = 'y'").tolist() == [1]
    assert store.select(f"\"{escaped}\" = 'z'").tolist() == []


# -- messages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "contained"),
    [
        ("labl = 'chair'", "no_such_column", "did you mean 'label'"),
        ('label = "chair', "filter_syntax", "single quotes"),
        ("label = chair", "filter_syntax", "'chair'"),
        ("label =", "filter_syntax", "its end"),
        ("faces < 5 nonsense", "filter_syntax", "nonsense"),
        ("label == 'chair'", "filter_syntax", "= 'chair'"),
        ("faces not between 1 and 2", "filter_syntax", "between"),
    ],
)
def test_error_names_the_place(text: str, code: str, contained: str) -> None:
    with raises_code(FilterError, code, contained):
        parse_where(text, COLUMNS)


def test_too_large_filters_are_short_errors(store: Store) -> None:
    for text in (
        " or ".join(["size = 1"] * 5000),
        "not " * 3000 + "size = 1",
        "(" * 3000 + "size = 1" + ")" * 3000,
        f"size in ({', '.join(map(str, range(300_000)))})",
        f"label like '{'%a' * 60_000}'",
        f"size = {'9' * 5000}",
    ):
        try:
            store.select(text)
        except FilterError as error:
            assert error.code == "filter_too_long" and len(str(error)) < 2000


def test_numbers_beyond_64_bits(store: Store) -> None:
    everything = [i + 1 for i, row in enumerate(ROWS) if row["size"] is not None]
    assert store.select(f"size < {10**40}").tolist() == everything
    assert store.select(f"size < -{10**40}").tolist() == []


def test_text_that_is_not_utf8_is_an_error() -> None:
    with raises_code(FilterError, "not_utf8"):
        parse_where("label = '\udcff'", COLUMNS)
