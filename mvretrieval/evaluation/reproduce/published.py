"""Published results of other methods: what a paper states, next to the rows that this project can run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Setting = Literal["inductive", "transductive"]
"""`inductive`: one query at a time. `transductive`: uses the whole batch of queries, or test objects in training."""


@dataclass(frozen=True)
class PublishedResult:
    """Results of one method on the data sets of a table.

    Attributes:
        method: its name.
        encoder: backbone, as the source names it.
        trained: what is trained, `nothing` or `not known`.
        setting: see `Setting`.
        llm_text: whether it uses text that a language model wrote: `yes`, `no` or `not known`.
        values: data set, as in the rows of the table -> value, in the unit of the table's title.
        source: where the values come from.
        rows: rows of the table that run the same method.
        not_run: why this project cannot run it; empty if `rows` do.
        note: differences and uncertainties.
    """

    method: str
    encoder: str
    trained: str
    setting: Setting
    llm_text: Literal["yes", "no", "not known"]
    values: Mapping[str, float]
    source: str
    rows: tuple[str, ...] = ()
    not_run: str = ""
    note: str = ""


def parse_published(values: Mapping[str, Any]) -> PublishedResult:
    """Parse an entry of a table's file.

    Raises:
        TypeError: a field is missing or unknown.
        ValueError: a field has an invalid value.
    """
    result = PublishedResult(**(dict(values) | {"rows": tuple(map(str, values.get("rows", ())))}))
    if result.setting not in get_args(Setting):
        raise ValueError(f"'{result.method}' has the setting '{result.setting}'")
    if result.llm_text not in ("yes", "no", "not known"):  # YAML reads an unquoted no as false
        raise ValueError(f"'{result.method}' has llm_text '{result.llm_text}'")
    if not all((result.method, result.encoder, result.trained, result.source)):
        raise ValueError(f"'{result.method}' lacks an encoder, what is trained, or a source")
    if not result.values or not all(math.isfinite(value) for value in result.values.values()):
        raise ValueError(f"'{result.method}' needs finite values, it has {dict(result.values)}")
    if bool(result.rows) == bool(result.not_run):
        raise ValueError(f"'{result.method}' needs rows that run it, or the reason why it is not run, and not both")
    return result


def check_against_rows(results: Sequence[PublishedResult], expected: Mapping[str, tuple[str, float]]) -> None:
    """Check that the rows of a method exist and expect its published values.

    Args:
        results: published results.
        expected: name of a row -> its data set and expected value.

    Raises:
        ValueError: a row is missing, or expects another value.
    """
    for result in results:
        for name in result.rows:
            if name not in expected:
                raise ValueError(f"'{result.method}' names the row '{name}', which does not exist")
            data, value = expected[name]
            if result.values.get(data) != value:
                raise ValueError(f"'{result.method}' has {result.values.get(data)} on {data}, row '{name}' {value}")


def published_table(results: Sequence[PublishedResult], setting: Setting) -> tuple[list[str], list[list[str]]]:
    """Head and rows of a table of one setting; the decimals of a column are those of its most precise value."""
    some = [one for one in results if one.setting == setting]
    names = list(dict.fromkeys(name for one in some for name in one.values))
    decimals = {name: max(_decimals(one.values[name]) for one in some if name in one.values) for name in names}
    rows = [
        [
            one.method, one.encoder, one.trained, one.llm_text,
            *(f"{one.values[name]:.{decimals[name]}f}" if name in one.values else "-" for name in names),
            "can be run" if one.rows else "cannot be run here",
        ]
        for one in some
    ]  # fmt: skip
    return ["method", "encoder", "trained", "LLM text", *names, "status"], rows


def published_notes(results: Sequence[PublishedResult]) -> list[str]:
    """Sources, notes and reasons for not running, each once with the methods that it applies to."""
    notes: dict[str, list[str]] = {}
    for one in results:
        reason = f"cannot be run here: {one.not_run}" if one.not_run else ""
        for text in (reason, one.note, f"source: {one.source}"):
            if text:
                notes.setdefault(text, []).append(f"{one.method} ({one.encoder})")
    return [f"{', '.join(methods)}: {text}" for text, methods in notes.items()]


def _decimals(value: float) -> int:
    return len(f"{value:.6f}".rstrip("0").partition(".")[2])
