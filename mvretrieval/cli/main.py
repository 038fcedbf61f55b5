"""`mvr`: find a command by its name and import only its module."""

from __future__ import annotations

import sys
import traceback
from contextlib import redirect_stderr
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from typing import Any

from mvretrieval.cli.commands import COMMANDS, SUBCOMMANDS, UsageError, command_module
from mvretrieval.cli.examples import EXAMPLES
from mvretrieval.cli.index_kinds import HELP, wants_help_on_kinds


def main() -> None:
    """Run one command and end the process with its exit code: 0, 1 (failed) or 2 (wrong use)."""
    raise SystemExit(_main(sys.argv[1:]))


def _main(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    if arguments and arguments[0] == "help":
        arguments = [*arguments[1:], "--help"]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    if "--version" in arguments or arguments[0] == "-V":
        from mvretrieval import __version__

        print(f"mvretrieval {__version__}")
        return 0
    try:
        if arguments[0] == "--print-completion":
            from mvretrieval.cli.completion import completion_script

            print(completion_script(*arguments[1:2]))
            return 0
        name, rest = _find_command(arguments)
    except UsageError as error:
        return _fail("mvr", error, as_json, exit_code=2)
    return run_command(name, rest)


def _find_command(arguments: list[str]) -> tuple[str, list[str]]:
    """Split the arguments into the name of a command (with its subcommand) and the rest."""
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UsageError(f"no command '{name}'.{hint} 'mvr --help' lists the commands.")
    subcommands = SUBCOMMANDS.get(name, {})
    if rest and rest[0] in subcommands:
        return f"{name} {rest[0]}", rest[1:]
    if rest and subcommands and not Path(rest[0]).exists():
        near = get_close_matches(rest[0], subcommands, n=1, cutoff=0.7)
        if near:
            raise UsageError(f"no collection '{rest[0]}'. Did you mean 'mvr {name} {near[0]}'?")
    return name, rest


def run_command(name: str, arguments: list[str]) -> int:
    """Run one command in this process.

    Returns:
        The exit code.
    """
    if wants_help_on_kinds(name, arguments):
        print(HELP)
        return 0
    as_json = "--json" in arguments
    module = command_module(name)
    from mvrender.errors import MvrenderError
    from mvretrieval.console import Verbosity, say, set_verbosity
    from mvretrieval.errors import MvrError

    program = f"mvr {name}"
    try:
        options, verbosity = _parse(name, module, arguments)
    except (MvrenderError, MvrError, UsageError, ValueError) as error:
        return _fail(program, error, as_json, exit_code=2)
    set_verbosity(verbosity)
    _log_versions(program)
    try:
        code: int = module.run(options)
    except (MvrenderError, MvrError) as error:
        if verbosity == Verbosity.VERBOSE:
            traceback.print_exc()
        return _fail(program, error, as_json, exit_code=1)
    except KeyboardInterrupt:
        say(f"\n{program}: stopped; run the same command again to resume.")
        return 130
    return code


def _log_versions(program: str) -> None:
    import logging
    import platform

    from mvretrieval import __version__

    logger = logging.getLogger("mvretrieval.cli")
    logger.debug("%s: mvretrieval %s, Python %s", program, __version__, platform.python_version())


def _parse(name: str, module: Any, arguments: list[str]) -> tuple[Any, Any]:
    """Parse options. What the parser prints about wrong use becomes the message of an error."""
    from mvretrieval.cli.parsing import command_options, parse

    printed = StringIO()
    try:
        with redirect_stderr(printed):
            return parse(name, module.Options, _description(name, module.__doc__ or ""), arguments)
    except SystemExit as ended:
        if ended.code != 2:
            raise
        from mvretrieval.cli.usage import usage_message

        raise UsageError(usage_message(printed.getvalue(), name, command_options(module.Options))) from ended


def _fail(program: str, error: Exception, as_json: bool, exit_code: int) -> int:
    """Print an error: a line on stderr, or with --json an object on stdout."""
    if as_json:
        from mvretrieval.console import print_json

        print_json({"error": {"code": getattr(error, "code", UsageError.code), "message": str(error)}})
    else:
        from mvrender.plain_text import printable_lines

        print(printable_lines(f"{program}: {error}"), file=sys.stderr)
    return exit_code


def _description(name: str, text: str) -> str:
    parts = [text.strip()]
    if more := SUBCOMMANDS.get(name):
        width = max(map(len, more))
        parts.append(
            "\n".join(["Subcommands:", *(f"  mvr {name} {second:<{width}}  {about}" for second, about in more.items())])
        )
    parts.append("\n".join(["Examples:", *(f"  {line}" for line in EXAMPLES[name])]))
    return "\n\n".join(parts)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "mvr: open-set retrieval of 3D objects",
            "",
            "Examples:",
            "  mvr index things/ ~/my-meshes",
            "  mvr search things/ --mesh thing.glb",
            "",
            "Commands ('mvr help COMMAND' shows the options):",
            *lines,
            "",
            "Options of every command:",
            "  -h, --help     show help and exit",
            "  --version      show the version and exit",
            "  -v, --verbose  also print log messages and the traceback of an error",
            "  -q, --quiet    print results and errors only",
            "",
            "Shell completion: mvr --print-completion bash (or zsh); see docs/commands.md.",
        ]
    )
