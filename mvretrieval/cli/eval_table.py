"""Run the rows of a table again and say which numbers come out as expected."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from mvretrieval.api import Collection
from mvretrieval.console import print_json, say
from mvretrieval.console import table as columns
from mvretrieval.encoders.registry import public_encoder
from mvretrieval.errors import EvaluationError, MvrError
from mvretrieval.evaluation.feature_file import measure_features
from mvretrieval.evaluation.reproduce.reproduce import Row, Table, read_table, table_names
from mvretrieval.store.augmented import augmentation_of

_MVR = [sys.executable, "-m", "mvretrieval"]


@dataclass(frozen=True)
class Options:
    """Options of `mvr eval table`.

    Attributes:
        name: of the table.
        list: the tables that there are.
        collections: folder with the collections that the rows name. Rows whose collection and files are there are run; for
            the others the commands that make what is missing are printed, from the data set on (data_scripts are in the
            repository, not in the installed package). Without it, the table is shown as it is.
        row: this row alone.
        json: one JSON object.
    """

    name: tyro.conf.Positional[str] = ""
    list: bool = False
    collections: Path | None = None
    row: str | None = None
    json: bool = False

    def __post_init__(self) -> None:
        if not self.name and not self.list:
            raise EvaluationError(f"name a table, or give --list; there are {', '.join(table_names())}")


def run(options: Options) -> int:
    """Show or run a table."""
    if options.list:
        return _list(options)
    table = read_table(options.name)
    rows = [row for row in table.rows if options.row in (None, row.name)]
    if not rows:
        raise EvaluationError(
            f"table '{table.name}' has no row '{options.row}', but {', '.join(r.name for r in table.rows)}"
        )
    if options.collections is not None and not options.collections.is_dir():
        raise EvaluationError(f"no folder {options.collections}: give the one that holds the collections of the table")
    folder = "COLLECTIONS" if options.collections is None else str(options.collections)
    done: dict[str, dict[str, Any]] = {}
    results = [_result(row, options.collections, folder, done) for row in rows]
    missing = {} if options.collections is None else _missing(rows, options.collections)
    make = {name: _commands(table, name, options.collections, folder) for name in missing}
    if options.json:
        print_json({"table": table.name, "title": table.title, "rows": results, "make": make})
    else:
        _print(table, rows, results)
        # Rows of several collections may lack one file.
        for commands in dict.fromkeys(tuple(own) for own in make.values()):
            paths = {missing[name][0] for name in missing if tuple(make[name]) == commands}
            print(f"\n{folder}/{' and '.join(sorted(paths))} is not there; it is made by", *commands, sep="\n  ")
        _print_sources(rows)
    return 1 if any(found["verdict"] == "failed" for found in results) else 0


def _result(row: Row, collections: Path | None, folder: str, done: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A row with its value and verdict: reproduced, close, not, absent (collection or file), failed; None where nothing is run.

    Args:
        row: of the table.
        collections: the folder; None runs nothing.
        folder: the same as text.
        done: what commands have found; rows that share one run it once.
    """
    found: dict[str, Any] = {**asdict(row), "command": _shown(row, folder), "value": None, "verdict": None}
    if collections is None:
        return found
    if _missing([row], collections):
        return found | {"verdict": "absent"}
    try:
        if row.task != "features":
            _check_made_for(row, collections / row.collection)
        if found["command"] not in done:
            say(f"{row.name}: {found['command']}")
            done[found["command"]] = _measured(row, folder)
        row.check_objects(done[found["command"]])
        value = row.value_of(done[found["command"]])
    except MvrError as error:
        say(f"{row.name} failed: {error}")
        return found | {"verdict": "failed"}
    return found | {"value": value, "verdict": row.judge(value)}


def _missing(rows: Sequence[Row], collections: Path) -> dict[str, list[str]]:
    """By collection, what is not there of it and of the files that its rows name."""
    missing: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: row.collection):
        for path in (row.collection, *row.files):
            if not (collections / path).exists():
                missing.setdefault(row.collection, []).append(path)
    return missing


def _check_made_for(row: Row, place: Path) -> None:
    """Refuse a collection that was made otherwise than the row says: its numbers would be somebody else's.

    Raises:
        MvrError: it was, or cannot be opened.
    """
    with Collection.open(place) as collection:
        describer, smoothing = collection.describer, augmentation_of(collection.store)
    encoder = public_encoder(describer.config.encoder)
    beyond = (
        ["an adapter" if describer.adapter is not None else "whitening or centring"]
        if describer.whitening is not None or describer.adapter is not None
        else []
    )
    beyond += ["smoothing"] if smoothing is not None else []
    if encoder.partition("@")[0] != row.encoder or bool(beyond) != bool(row.adapter):
        raise EvaluationError(
            f"{place} was made with {encoder} and {' and '.join(beyond) or 'nothing on top'}, the row wants {row.encoder} and "
            f"{row.adapter or 'nothing on top'}: move it away, and ask again for the commands that make the row's own"
        )


def _measured(row: Row, folder: str) -> dict[str, Any]:
    """What a row's command finds.

    Raises:
        EvaluationError: it ends with another code than 0.
    """
    if row.task == "features":
        return dict(measure_features(Path(folder) / row.collection, row.options[0]))
    words = [word.replace("{dir}", folder) for word in row.command(folder)]
    done = subprocess.run([*_MVR, *words[1:]], capture_output=True, text=True, check=False)
    if done.returncode:
        raise EvaluationError(_error_of(done))
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _error_of(done: subprocess.CompletedProcess[str]) -> str:
    """The message of a failed command: from its `--json` output, else the last line on stderr."""
    try:
        return str(json.loads(done.stdout)["error"]["message"])
    except (ValueError, KeyError):
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def _shown(row: Row, folder: str) -> str:
    return shlex.join([word.replace("{dir}", folder) for word in row.command(folder)])


def _commands(table: Table, collection: str, collections: Path | None, folder: str) -> list[str]:
    """What is left to do for a collection."""
    commands = table.commands(collection, lambda path: collections is not None and (collections / path).exists())
    return [command.replace("{dir}", shlex.quote(folder)) for command in commands]


def _list(options: Options) -> int:
    tables = [read_table(name) for name in table_names()]
    if options.json:
        plain = [
            {"name": t.name, "title": t.title, "rows": len(t.rows), "run": sum(r.run for r in t.rows)} for t in tables
        ]
        print_json({"tables": plain})
        return 0
    rows = [[t.name, str(len(t.rows)), str(sum(row.run for row in t.rows)), t.title] for t in tables]
    print(columns(rows, ["table", "rows", "run here", "what"]))
    return 0


def _print(table: Table, rows: list[Row], results: list[dict[str, Any]]) -> None:
    print(table.title)
    cells = [
        [
            row.name, row.data, row.encoder + (f" + {row.adapter}" if row.adapter else ""), row.metric,
            f"{row.expected:g} ± {row.tolerance:g}", "-" if found["value"] is None else f"{found['value']:.4g}",
            found["verdict"] or ("was run here" if row.run else "never run here"),
        ]
        for row, found in zip(rows, results, strict=True)
    ]  # fmt: skip
    print(columns(cells, ["row", "data", "encoder", "metric", "expected", "found", "verdict"]))


def _print_sources(rows: list[Row]) -> None:
    print()
    for source in dict.fromkeys(row.source for row in rows):
        print(f"source: {source}")
    for note in dict.fromkeys(row.note for row in rows if row.note):
        print(f"note on {', '.join(row.name for row in rows if row.note == note)}: {note}")
