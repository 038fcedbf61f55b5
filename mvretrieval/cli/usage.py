"""From what the parser prints about a wrong command line to one sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mvretrieval.cli.parsing import CommandOption

_RULE = re.compile("^\\W*[─-]{5,}\\W*$")  # in ASCII where stderr has no UTF-8
_FRAME = re.compile("[│╭╮╰╯•]")
_BAD_NUMBER = re.compile(
    r"Error parsing (\S+?): .*?(invalid literal for int|could not convert string to float).*: '(.*)'$"
)
_TYPES = {"invalid literal for int": "an integer", "could not convert string to float": "a number"}


def usage_message(printed: str, name: str, options: Sequence[CommandOption]) -> str:
    """What is wrong with the arguments of a command, and the next step.

    Args:
        printed: the box that tyro prints: a title, then sections between rules.
        name: of the command.
        options: of the command.
    """
    sections = _sections(printed)
    problem = " ".join(sections[0]) if sections else "the arguments cannot be parsed"
    text = _plain(problem, sections, options)
    return (
        f"{text} 'mvr help {name}' shows the options."
        if text.endswith("?")
        else f"{text}: 'mvr help {name}' shows the options"
    )


def _sections(printed: str) -> list[list[str]]:
    """Lines of the sections, without the frame, the title and the pointer to --help."""
    lines = [_FRAME.sub("", line).rstrip() for line in printed.splitlines()[1:]]
    found: list[list[str]] = [[]]
    for line in lines:
        if _RULE.search(line):
            found.append([])
        elif line.strip():
            found[-1].append(line.strip())
    return [lines for lines in found if lines and not lines[0].startswith("For full helptext")]


def _plain(problem: str, sections: Sequence[Sequence[str]], options: Sequence[CommandOption]) -> str:
    if match := re.match(r"invalid choice '(.*)' for argument '(.+?)'", problem):
        value, flag = match.groups()
        choices = next((option.choices for option in options if flag in (*option.flags, option.name.upper())), ())
        return f"{flag} takes one of {', '.join(choices)}, not '{value}'"
    if match := re.match(
        r"Error parsing (\S+?): .*?(invalid literal for int|could not convert string to float).*: '(.*)'$", problem
    ):
        flag, reason, value = match.groups()
        return f"{flag} takes {_TYPES[reason]}, not '{value}'"
    if match := re.match(r"Unrecognized options: (.+)", problem):
        near = _flags(next((lines for lines in sections if lines[0].startswith("Perhaps you meant")), ()))
        first = match.group(1).split(", ")[0]
        if not first.startswith("-"):
            return f"unexpected argument '{first}' (an option that takes several values is repeated)"
        return f"unknown option '{first}'" + (f". Did you mean {' or '.join(near[:3])}?" if near else "")
    if problem.startswith("Missing from"):
        missing = [line.split()[0] for line in sections[0][1:] if re.match(r"(--|[A-Z_]+\b( \[|$))", line)]
        if missing:
            return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    if match := re.match(r"Missing value for argument '(.+?)'", problem):
        return f"{match.group(1)} needs a value"
    return " ".join(" ".join(lines) for lines in sections)


def _flags(lines: Sequence[str]) -> list[str]:
    """The longest spelling of each option in a list of them."""
    found = [re.findall(r"--[a-z][a-z-]*", line) for line in lines if line.startswith("-")]
    return [max(flags, key=len) for flags in found if flags]
