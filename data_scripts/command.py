"""The command line that the scripts share: `python -m data_scripts.NAME SOURCE OUT`."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_scripts.archives import Source, open_source
from data_scripts.downloads import download
from data_scripts.errors import DataError
from data_scripts.layout import Layout, Outcome

_SHOWN = 8
_EVERY_S = 0.5
_EVERY_S_IN_LOGS = 30.0


def _no_addresses(_: argparse.Namespace) -> tuple[str, ...]:
    return ()


def _fetch_all(addresses: Sequence[str], folder: Path, _: argparse.Namespace) -> None:
    for address in addresses:
        download(address, folder, tell)


@dataclass(frozen=True)
class DataSet:
    """What is known of a data set.

    Attributes:
        name: of the script.
        title: of the data set.
        source: where it comes from.
        licence: as far as known.
        objects: published numbers, as text.
        layout: what a source has to look like.
        verified: what this layout was verified on.
        addresses: public direct downloads, by the options; empty where there is none.
        fetch: downloads into a folder, from these addresses or from those that the user names.
        decisive: options that change what is laid out; a folder laid out with others is refused.
    """

    name: str
    title: str
    source: str
    licence: str
    objects: str
    layout: str
    verified: str
    addresses: Callable[[argparse.Namespace], tuple[str, ...]] = _no_addresses
    fetch: Callable[[Sequence[str], Path, argparse.Namespace], None] = _fetch_all
    decisive: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What a script has laid out.

    Attributes:
        objects: how many, whole and labelled.
        next_commands: what to run next.
        warnings: what differs from the published data set.
    """

    objects: int
    next_commands: tuple[str, ...]
    warnings: list[str] = field(default_factory=list)


Prepare = Callable[[Source, Layout, argparse.Namespace], Result]


def run(
    data_set: DataSet,
    prepare: Prepare,
    arguments: Sequence[str] | None = None,
    add_options: Callable[[argparse.ArgumentParser], None] = lambda _: None,
) -> int:
    """Parse, fetch if asked, lay out, and say what comes next. 0: done; 1: failed; 2: wrong use; 130: interrupted."""
    parser = _parser(data_set)
    add_options(parser)
    options = parser.parse_args(arguments)
    if options.about:
        tell_about(data_set)
        return 0
    if options.source is None or options.out is None:
        parser.error("name SOURCE and OUT, or ask --about")
    try:
        _check_apart(options.source, options.out)
        if options.download is not None:
            addresses = options.download or list(data_set.addresses(options))
            if not addresses:
                raise DataError(
                    f"{data_set.title} has no public direct download known here; it comes from {data_set.source}"
                )
            data_set.fetch(addresses, options.source, options)
        layout = Layout(
            options.out,
            data_set.name,
            {name: getattr(options, name) for name in data_set.decisive},
            {"title": data_set.title, "source": data_set.source, "licence": data_set.licence},
        )
        result = prepare(open_source(options.source), layout, options)
        if not result.objects:
            raise DataError(f"no object of {options.source} can be used:\n  " + "\n  ".join(result.warnings))
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: {error.strerror or error}{where}; mend it and run the same command again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    for warning in result.warnings:
        tell(f"warning: {warning}")
    tell(f"{result.objects:,} objects in {options.out}")
    for command in result.next_commands:
        print(command)
    return 1 if options.strict and result.warnings else 0


def about(data_set: DataSet) -> str:
    """Source, licence and layout, for people."""
    rows = {
        "source": data_set.source,
        "licence": data_set.licence,
        "objects": data_set.objects,
        "verified": data_set.verified,
        "layout": data_set.layout,
    }
    wrapped = [
        f"{name:9} " + textwrap.fill(text, 110, subsequent_indent=" " * 10) if "\n" not in text else f"{name}\n{text}"
        for name, text in rows.items()
    ]
    return "\n".join([f"{data_set.title} (python -m data_scripts.{data_set.name} SOURCE OUT)", *wrapped])


def tell_about(*data_sets: DataSet) -> None:
    """Say on stdout what is known of data sets."""
    with contextlib.suppress(BrokenPipeError):
        print("\n\n".join(about(data_set) for data_set in data_sets), flush=True)
        return
    sys.stdout = Path(os.devnull).open("w")  # the reader has seen enough, and closing stdout would fail once more


def tell(message: str) -> None:
    """Say something on stderr."""
    print(message, file=sys.stderr)


def progress() -> Callable[[int, int], None]:
    """Tells how far a long run has come: on one line of a terminal, or now and then in a log."""
    live = sys.stderr.isatty()
    last = time.monotonic()

    def step(number: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > (_EVERY_S if live else _EVERY_S_IN_LOGS):
            last = time.monotonic()
            print(f"  {number:,} of {total:,}", end="\r" if live else "\n", file=sys.stderr, flush=True)

    return step


def index_command(layout: Layout, name: str, *more: str) -> str:
    """The command that indexes what was laid out."""
    folder = str(layout.folder)
    words = ["mvr", "index", f"{name}-collection/", folder, "--labels", f"{folder.rstrip('/')}/labels.csv", *more]
    return shlex.join(words)


def views_command(layout: Layout, name: str, views: str = "views.csv") -> str:
    """The command that indexes views that are there as pictures."""
    folder = str(layout.folder).rstrip("/")
    words = ["mvr", "index", f"{name}-collection/", "--views", f"{folder}/{views}", "--labels", f"{folder}/labels.csv"]
    return shlex.join(words)


def differences(counts: Mapping[str, tuple[int, int | None]]) -> list[str]:
    """Counts that are not the published ones, as warnings. None: no number was published."""
    return [
        f"{found:,} {what}, and {published:,} were published"
        for what, (found, published) in counts.items()
        if published is not None and found != published
    ]


def damages(outcome: Outcome) -> list[str]:
    """Files that could not be used, as warnings."""
    return [f"{member} {problem}; left out" for member, problem in outcome.corrupt]


def some(what: str, names: Sequence[str]) -> list[str]:
    """A warning that names a few of many."""
    if not names:
        return []
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return [f"{len(names):,} {what}: {', '.join(names[:_SHOWN])}{more}"]


def _parser(data_set: DataSet) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m data_scripts.{data_set.name}",
        description=f"Lay {data_set.title} out for 'mvr index'. The same command goes on where it was stopped.",
    )
    parser.add_argument(
        "source", type=Path, nargs="?", help="zip, tar or folder; with --download, the folder to fetch into"
    )
    parser.add_argument("out", type=Path, nargs="?", help="folder to lay out in; made if it is not there")
    parser.add_argument("--about", action="store_true", help="say where the data come from and under which licence")
    parser.add_argument(
        "--download", nargs="*", metavar="URL", help="fetch first: from the known public address, or from these"
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 if anything differs from the published data set"
    )
    return parser


def _check_apart(source: Path, out: Path) -> None:
    """One folder inside of the other would be indexed, or read, along with it."""
    a, b = source.resolve(), out.resolve()
    if a == b or a in b.parents or (not source.is_file() and b in a.parents):
        raise DataError(f"{source} and {out} lie in one another: name an output folder apart from the source")
