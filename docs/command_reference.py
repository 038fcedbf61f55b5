"""The command reference, generated from the `Options` dataclasses that `mvr` parses."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

from mvretrieval.cli.commands import command_module, command_names
from mvretrieval.cli.examples import EXAMPLES
from mvretrieval.cli.parsing import CommandOption, command_options

_TYPES = {Path: "path", str: "text", int: "integer", float: "number", bool: "flag"}


def command_reference() -> str:
    """Markdown with a section for each command."""
    return "\n\n".join(_section(name) for name in command_names())


def _section(name: str) -> str:
    module = command_module(name)
    accepted = command_options(module.Options)
    fields = {field.name: field for field in dataclasses.fields(module.Options)}
    about = _attributes(module.Options)
    positional = [
        _spelled(option) if _default(fields[option.name]) == "required" else f"[{_spelled(option)}]"
        for option in accepted
        if not option.flags
    ]
    rows = [
        f"| `{_spelled(option)}` | {_value(option)} | {_default(fields[option.name])} | {about.get(option.name, '')} |"
        for option in accepted
    ]
    parts = [
        f"{'#' * (2 + name.count(' '))} mvr {name}",
        inspect.getdoc(module) or "",
        f"`{' '.join(['mvr', name, *positional, '[OPTIONS]'])}`",
        "\n".join(["```", *EXAMPLES.get(name, ()), "```"]),
        "\n".join(["| option | value | default | |", "|---|---|---|---|", *rows]),
    ]
    return "\n\n".join(parts)


def _attributes(options: type) -> dict[str, str]:
    """Descriptions of the fields, from the `Attributes:` section of the docstring."""
    _, _, section = (inspect.getdoc(options) or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    for match in re.finditer(r"^    (\w+): (.*(?:\n {8,}.*)*)", section, re.MULTILINE):
        found[match[1]] = " ".join(match[2].split()).replace("|", "\\|")
    return found


def _spelled(option: CommandOption) -> str:
    return "`, `".join(option.flags) if option.flags else option.name.upper()


def _value(option: CommandOption) -> str:
    value = ", ".join(f"`{choice}`" for choice in option.choices) or _TYPES.get(option.type, "text")
    return f"{value}, repeatable" if option.repeatable else value


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if value is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "required"
    if value is None or value is dataclasses.MISSING or value == () or value is False:
        return ""
    return "on" if value is True else f"`{value}`"
