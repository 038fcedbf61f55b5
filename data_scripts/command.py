"""The command line shared by all scripts: `python -m data_scripts.NAME SOURCE OUT`."""

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
        download(address, folder, notify)


@dataclass(frozen=True)
class DataSet:
    """Description of a data set.

    Attributes:
        name: of the script.
        title: of the data set.
        source: URL.
        licence: as far as known.
        objects: published counts, as text.
        layout: expected layout of the source.
        verified: evidence for this layout.
        addresses: public download URLs for the given options; empty if there are none.
        fetch: downloads into a folder, from these URLs or from those given by the user.
        decisive: options that change the output; a folder prepared with other values is refused.
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
    """Result of a script.

    Attributes:
        objects: number of complete, labeled objects.
        next_commands: commands to run next.
        warnings: differences from the published data set.
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
    """Parse options, download if requested, prepare, and print the next command.

    Returns:
        Exit code. 0: done; 1: failed; 2: wrong use; 130: interrupted.
    """
    parser = _parser(data_set)
    add_options(parser)
    options = parser.parse_args(arguments)
    if options.about:
        print_about(data_set)
        return 0
    if options.source is None or options.out is None:
        parser.error("give SOURCE and OUT, or --about")
    try:
        _check_apart(options.source, options.out)
        if options.download is not None:
            addresses = options.download or list(data_set.addresses(options))
            if not addresses:
                raise DataError(
                    f"no public download is known for {data_set.title}; get it from {data_set.source}",
                    code="no_download",
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
            raise DataError(
                f"no object of {options.source} can be used:\n  " + "\n  ".join(result.warnings), code="no_objects"
            )
    except DataError as error:
        print(f"error: {error} [{error.code}]", file=sys.stderr)
        return 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(f"error: {error.strerror or error}{where}; fix this and run the same command again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run the same command again to resume", file=sys.stderr)
        return 130
    for warning in result.warnings:
        notify(f"warning: {warning}")
    notify(f"{result.objects:,} objects in {options.out}")
    for command in result.next_commands:
        print(command)
    return 1 if options.strict and result.warnings else 0


def about(data_set: DataSet) -> str:
    """Source, licence and layout as text."""
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


def print_about(*data_sets: DataSet) -> None:
    """Print descriptions of data sets."""
    with contextlib.suppress(BrokenPipeError):
        print("\n\n".join(about(data_set) for data_set in data_sets), flush=True)
        return
    sys.stdout = Path(os.devnull).open("w")  # the reader closed the pipe; flushing at exit would fail again


def notify(message: str) -> None:
    """Print a notice to stderr."""
    print(message, file=sys.stderr)


def progress() -> Callable[[int, int], None]:
    """Report progress: on one line of a terminal, or as occasional lines in a log."""
    live = sys.stderr.isatty()
    last = time.monotonic()

    def step(number: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > (_EVERY_S if live else _EVERY_S_IN_LOGS):
            last = time.monotonic()
            print(f"  {number:,} of {total:,}", end="\r" if live else "\n", file=sys.stderr, flush=True)

    return step


def index_command(layout: Layout, name: str, *more: str) -> str:
    """The command that indexes the prepared meshes."""
    folder = str(layout.folder)
    command = ["mvr", "index", f"{name}-collection/", folder, "--labels", f"{folder.rstrip('/')}/labels.csv", *more]
    return shlex.join(command)


def views_command(layout: Layout, name: str, views: str = "views.csv") -> str:
    """The command that indexes the prepared views."""
    folder = str(layout.folder).rstrip("/")
    command = [
        "mvr",
        "index",
        f"{name}-collection/",
        "--view-manifest",
        f"{folder}/{views}",
        "--labels",
        f"{folder}/labels.csv",
    ]
    return shlex.join(command)


def differences(counts: Mapping[str, tuple[int, int | None]]) -> list[str]:
    """Warnings about counts that differ from the published ones (None: not published)."""
    return [
        f"{found:,} {what}, published: {published:,}"
        for what, (found, published) in counts.items()
        if published is not None and found != published
    ]


def damages(outcome: Outcome) -> list[str]:
    """Warnings about files that could not be used."""
    return [f"{member} {problem}; left out" for member, problem in outcome.corrupt]


def some(what: str, names: Sequence[str]) -> list[str]:
    """A warning with the count and the first few names; none if `names` is empty."""
    if not names:
        return []
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return [f"{len(names):,} {what}: {', '.join(names[:_SHOWN])}{more}"]


def _parser(data_set: DataSet) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m data_scripts.{data_set.name}",
        description=f"Prepare {data_set.title} for 'mvr index'. An interrupted command resumes when run again.",
    )
    parser.add_argument(
        "source", type=Path, nargs="?", help="zip, tar or folder; with --download, the folder to download to"
    )
    parser.add_argument("out", type=Path, nargs="?", help="output folder; created if missing")
    parser.add_argument("--about", action="store_true", help="print source and licence")
    parser.add_argument(
        "--download", nargs="*", metavar="URL", help="download first: from the known public URL, or from these"
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 if anything differs from the published data set"
    )
    return parser


def _check_apart(source: Path, out: Path) -> None:
    """Refuse nested folders: one would be read or indexed with the other."""
    a, b = source.resolve(), out.resolve()
    if a == b or a in b.parents or (not source.is_file() and b in a.parents):
        raise DataError(
            f"{source} and {out} are nested: choose an output folder outside the source", code="nested_folders"
        )
