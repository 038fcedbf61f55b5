"""The command reference, generated from the `Options` dataclasses that `mvr` parses."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from mvretrieval.cli.commands import command_module, command_names

_POSITIONAL = get_args(tyro.conf.Positional[int])[1]


def command_reference() -> str:
    """Markdown with a section for each command."""
    return "\n\n".join(_section(name) for name in command_names())


def _section(name: str) -> str:
    module = command_module(name)
    options = module.Options
    hints, about = get_type_hints(options, include_extras=True), _attributes(options)
    fields = [field for field in dataclasses.fields(options) if field.init]
    positional = [field for field in fields if _is_positional(hints[field.name])]
    rows = []
    for field in fields:
        kind, spelled = hints[field.name], f"--{field.name.replace('_', '-')}"
        if field in positional:
            spelled = field.name.upper()
        else:
            spelled = ", ".join(f"`{text}`" for text in [*_aliases(kind), _flag(spelled, kind, field)])
        spelled = f"`{spelled}`" if field in positional else spelled
        rows.append(f"| {spelled} | {_value(kind)} | {_default(field)} | {_cell(about.get(field.name, ''))} |")
    usage = " ".join(["mvr", name, *(field.name.upper() for field in positional), "[OPTIONS]"])
    heading = "#" * (2 + name.count(" "))
    table = ["| option | value | default | |", "|---|---|---|---|", *rows]
    return "\n".join([f"{heading} mvr {name}", "", inspect.getdoc(module) or "", "", f"`{usage}`", "", *table])


def _attributes(options: type) -> dict[str, str]:
    """Descriptions of the fields, from the `Attributes:` section of the docstring."""
    _, _, section = (inspect.getdoc(options) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    for match in re.finditer(r"^    (\w+): (.*(?:\n {8,}.*)*)", section, re.MULTILINE):
        found[match[1]] = " ".join(match[2].split())
    return found


def _parts(kind: Any) -> tuple[Any, list[Any]]:
    """A type without its annotations and its `None`, and the annotations."""
    marks: list[Any] = []
    while True:
        if get_origin(kind) is Annotated:
            kind, *more = get_args(kind)
            marks += more
        elif get_origin(kind) in (Union, UnionType):
            rest = [part for part in get_args(kind) if part is not NoneType]
            if len(rest) > 1:
                return kind, marks
            kind = rest[0]
        else:
            return kind, marks


def _is_positional(kind: Any) -> bool:
    return _POSITIONAL in _parts(kind)[1]


def _aliases(kind: Any) -> list[str]:
    return [alias for mark in _parts(kind)[1] for alias in getattr(mark, "aliases", None) or ()]


def _flag(spelled: str, kind: Any, field: dataclasses.Field[Any]) -> str:
    """A flag that is on by default is spelled as the option that switches it off."""
    return f"--no-{spelled[2:]}" if _parts(kind)[0] is bool and field.default is True else spelled


def _value(kind: Any) -> str:
    plain, marks = _parts(kind)
    for mark in marks:
        if metavar := getattr(mark, "metavar", None):
            return f"`{metavar}`".replace("|", "\\|")
    if get_origin(plain) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(plain))
    if get_origin(plain) in (tuple, list):
        return f"{_value(get_args(plain)[0])}, repeatable"
    if get_origin(plain) in (Union, UnionType):
        return " or ".join(_value(part) for part in get_args(plain) if part is not NoneType)
    names = {Path: "path", str: "text", int: "integer", float: "number", bool: "flag"}
    return names.get(plain, getattr(plain, "__name__", str(plain)))


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "required"
    value = field.default
    if value is None or value is True or value is False or value == () or value is dataclasses.MISSING:
        return ""
    return f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
