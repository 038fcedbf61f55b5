"""`mvr`: looks a subcommand up by name and imports that one alone."""

from __future__ import annotations

import importlib
import sys
from difflib import get_close_matches
from pathlib import Path

COMMANDS = {
    "index": "describe the meshes of folders and add them to a collection",
    "search": "ask a collection with a mesh, pictures, words, or a mixture",
    "render": "write the views of meshes as pictures",
    "train": "learn view weights and a linear layer from the labels of a collection",
    "tune": "tune the encoder itself from labelled meshes",
    "eval": "measure a collection by one of its labels",
    "reindex": "describe a collection anew: other pooling, whitening, styles or encoder",
    "calibrate": "learn how sure a similarity makes, so that answers say so and can be cut by it",
    "serve": "open a web page to search with, and a REST API",
    "remove": "take objects out of a collection",
    "info": "tell what is in a collection and what could not be indexed",
    "doctor": "tell what works on this machine, and mend what does not",
    "demo": "make a collection of made-up objects and a page of searches",
}

# Second words: a collection in a folder of such a name is given as ./zero-shot.
SUBCOMMANDS = {
    "eval": {
        "zero-shot": "call objects by the names of classes",
        "text-to-3d": "find objects by words: their labels, or captions",
        "image-to-3d": "find objects by pictures",
        "table": "run the rows of a published table again",
    },
}

_ELSEWHERE = {"train": "mvtrain.cli", "tune": "mvtrain.tune_cli"}


def main() -> None:
    """Run one command and end the process with its exit code: 0, 1 (failed) or 2 (wrong use)."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        raise SystemExit(0 if arguments else 2)
    if arguments[0] in ("-V", "--version"):
        from mvretrieval import __version__

        print(f"mvretrieval {__version__}")
        raise SystemExit(0)
    name = arguments[0]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        print(f"mvr: no command '{name}'.{hint} 'mvr --help' lists them.", file=sys.stderr)
        raise SystemExit(2)
    rest = arguments[1:]
    if rest and rest[0] in SUBCOMMANDS.get(name, {}):
        name, rest = f"{name} {rest[0]}", rest[1:]
    elif rest and name in SUBCOMMANDS and not Path(rest[0]).exists():
        near = get_close_matches(rest[0], SUBCOMMANDS[name], n=1, cutoff=0.7)
        if near:
            print(f"mvr {name}: no collection '{rest[0]}'. Did you mean 'mvr {name} {near[0]}'?", file=sys.stderr)
            raise SystemExit(2)
    raise SystemExit(_run(name, rest))


def _run(name: str, arguments: list[str]) -> int:
    import tyro

    file = name.replace(" ", "_").replace("-", "_")
    module = importlib.import_module(_ELSEWHERE.get(name, f"mvretrieval.cli.{file}"))
    from mvrender.errors import MvrenderError
    from mvretrieval.errors import MvrError

    try:
        options = tyro.cli(
            module.Options,
            prog=f"mvr {name}",
            description=_description(name, module.__doc__ or ""),
            args=arguments,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except (MvrenderError, MvrError, ValueError) as error:
        print(f"mvr {name}: {error}", file=sys.stderr)
        return 2
    try:
        code: int = module.run(options)
        return code
    except (MvrenderError, MvrError) as error:
        print(f"mvr {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nmvr {name}: stopped; run the same command again to go on.", file=sys.stderr)
        return 130


def _description(name: str, text: str) -> str:
    further = SUBCOMMANDS.get(name)
    if not further:
        return text
    lines = [f"mvr {name} {second}: {about}" for second, about in further.items()]
    return "\n\n".join([text, *lines, f"'mvr {name} {next(iter(further))} --help' tells more."])


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "mvr: find 3D objects by what they look like",
            "",
            "  mvr index things/ ~/my-meshes",
            "  mvr search things/ --mesh thing.glb",
            "",
            "commands ('mvr COMMAND --help' tells more):",
            *lines,
        ]
    )
