"""From a command's `Options` dataclass to a tyro parser with plain help texts and the options that all commands share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, make_dataclass
from functools import partial
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

from mvretrieval.console import Verbosity

SHARED_FLAGS = ("--verbose", "-v", "--quiet", "-q", "--version", "--help", "-h")
_POSITIONAL = get_args(tyro.conf.Positional[int])[1]
_APPEND = get_args(tyro.conf.UseAppendAction[int])[1]
_NO_PAIRS = get_args(tyro.conf.FlagCreatePairsOff[int])[1]


@dataclass(frozen=True)
class CommandOption:
    """One option or positional argument of a command.

    Attributes:
        name: of the field.
        flags: as typed, such as ("--k", "-k"); empty for a positional argument. A flag that is on by default has both
            spellings: ("--linear", "--no-linear").
        type: of one value, without None, annotations and containers.
        choices: of a `Literal`, else empty.
        repeatable: whether it takes several values.
    """

    name: str
    flags: tuple[str, ...]
    type: Any
    choices: tuple[str, ...]
    repeatable: bool


def command_options(options: type) -> list[CommandOption]:
    """What a command accepts, in the order of its fields."""
    hints = get_type_hints(options, include_extras=True)
    return [_option(item, hints[item.name]) for item in fields(options)]


def parse(name: str, options: type, description: str, arguments: Sequence[str]) -> tuple[Any, Verbosity]:
    """Parse the arguments of one command.

    Raises:
        SystemExit: 0 after --help, 2 for arguments that cannot be parsed.
        ValueError: `__post_init__` of the options refuses a value.
    """
    if os.environ.get("NO_COLOR"):
        tyro._experimental_options["ansi_codes"] = False
    parsed: Any = tyro.cli(
        _presented(options),
        prog=f"mvr {name}",
        description=description,
        args=arguments,
        config=(tyro.conf.DisallowNone, tyro.conf.HelptextFromCommentsOff),
    )
    verbosity = Verbosity.QUIET if parsed.quiet else Verbosity.VERBOSE if parsed.verbose else Verbosity.NORMAL
    return options(**{item.name: getattr(parsed, item.name) for item in fields(options)}), verbosity


def _presented(options: type) -> type:
    """The same fields with tyro's annotations for help, and --verbose and --quiet after them."""
    hints = get_type_hints(options, include_extras=True)
    members: list[Any] = [(item.name, _annotated(item, hints[item.name]), _default(item)) for item in fields(options)]
    for name, about in (
        ("verbose", "also print log messages and the traceback of an error"),
        ("quiet", "print results and errors only: no notices, no progress"),
    ):
        shown = tyro.conf.arg(aliases=[f"-{name[0]}"], help=about, help_behavior_hint="")
        members.append((name, Annotated[bool, _NO_PAIRS, shown], field(default=False)))
    made = make_dataclass("Options", members, frozen=True)
    made.__doc__ = options.__doc__
    return made


def _default(item: Field[Any]) -> Any:
    return field(default=item.default, default_factory=item.default_factory)


def _annotated(item: Field[Any], kind: Any) -> Any:
    option = _option(item, kind)
    more: list[Any] = []
    if option.type is bool and item.default is False:
        more.append(_NO_PAIRS)
    if not option.flags:
        more.append(tyro.conf.arg(metavar=_positional_metavar(item, option)))
    if item.default is MISSING and item.default_factory is MISSING:
        if option.repeatable:  # which tyro takes for empty by default
            more.append(tyro.conf.arg(help_behavior_hint="(required)"))
    else:
        hint = "(repeatable)" if option.flags and option.repeatable else partial(_default_hint, item.default)
        more.append(tyro.conf.arg(help_behavior_hint=hint))
    return Annotated[(kind, *more)] if more else kind


def _positional_metavar(item: Field[Any], option: CommandOption) -> str:
    name = option.name.upper()
    if option.repeatable:
        return f"{name} [{name} ...]" if item.default is MISSING else f"[{name} ...]"
    return name if item.default is MISSING else f"[{name}]"


def _default_hint(default: Any, shown: str) -> str:
    """The default after a help text. An absent value and a flag that is off need none."""
    if default is None or default is False or default in ((), ""):
        return ""
    return "(default: on)" if default is True else f"(default: {shown})"


def _option(item: Field[Any], kind: Any) -> CommandOption:
    plain, marks, repeatable = _parts(kind)
    choices = tuple(map(str, get_args(plain))) if get_origin(plain) is Literal else ()
    if _POSITIONAL in marks:
        return CommandOption(item.name, (), plain, choices, repeatable)
    spelled = item.name.replace("_", "-")
    flags = [f"--{spelled}"]
    if plain is bool and item.default is True:
        flags.append(f"--no-{spelled}")
    flags += [alias for mark in marks for alias in getattr(mark, "aliases", None) or ()]
    return CommandOption(item.name, tuple(flags), plain, choices, repeatable)


def _parts(kind: Any) -> tuple[Any, list[Any], bool]:
    """A type without annotations, None and container; the annotations; whether there was a container."""
    marks: list[Any] = []
    repeatable = False
    while True:
        origin = get_origin(kind)
        if origin is Annotated:
            kind, *more = get_args(kind)
            marks += more
        elif origin in (Union, UnionType):
            kind = next(part for part in get_args(kind) if part is not NoneType)
        elif origin in (tuple, list):
            kind, repeatable = get_args(kind)[0], True
        else:
            return kind, marks, repeatable
