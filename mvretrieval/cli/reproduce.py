"""Run the rows of a published table and compare the values with the expected ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import tyro

from mvretrieval.console import print_json, say, table
from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.reproduce.published import PublishedResult, Setting, published_notes, published_table
from mvretrieval.evaluation.reproduce.run import TableRun
from mvretrieval.evaluation.reproduce.table import Table, TableRow, read_table, table_names


@dataclass(frozen=True)
class Options:
    """Options of `mvr reproduce`.

    Attributes:
        name: name of the table.
        list: list the tables.
        collections: folder with the collections of the rows. Rows whose collection and files exist are run; for the others, the
            commands that make them are printed, starting with the data set (data_scripts are in the repository, not in the
            installed package). Without it, the table is printed and nothing is run.
        row: only this row.
        json: print one JSON object.
    """

    name: tyro.conf.Positional[str] = ""
    list: bool = False
    collections: Path | None = None
    row: str | None = None
    json: bool = False

    def __post_init__(self) -> None:
        if not self.name and not self.list:
            raise EvaluationError(
                f"no table: give its name, or --list; the tables are {', '.join(table_names())}", code="no_table"
            )


def run(options: Options) -> int:
    """Print or run a table."""
    if options.list:
        return _list(options)
    selected = read_table(options.name)
    rows = [row for row in selected.rows if options.row in (None, row.name)]
    if not rows:
        known = ", ".join(row.name for row in selected.rows)
        raise EvaluationError(f"table '{selected.name}' has no row '{options.row}', only {known}", code="unknown_row")
    if options.collections is not None and not options.collections.is_dir():
        raise EvaluationError(
            f"no folder {options.collections}: give the folder with the table's collections", code="no_folder"
        )
    table_run = TableRun(options.collections, say)
    results = [table_run.result(row) for row in rows]
    missing = table_run.missing(rows)
    commands = {name: table_run.commands(selected, name) for name in missing}
    if options.json:
        record = {"table": selected.name, "title": selected.title, "rows": results, "commands": commands}
        record["published"] = [asdict(one) for one in selected.published]
        print_json(record)
    else:
        _print(selected, rows, results)
        if options.row is None:
            _print_published(selected.published)
        _print_commands(table_run.folder_text, missing, commands)
        _print_sources(rows)
    return 1 if any(found["verdict"] == "failed" for found in results) else 0


def _list(options: Options) -> int:
    tables = [read_table(name) for name in table_names()]
    if options.json:
        records = [
            {"name": one.name, "title": one.title, "rows": len(one.rows), "run": sum(row.run for row in one.rows)}
            for one in tables
        ]
        print_json({"tables": records})
        return 0
    rows = [[one.name, str(len(one.rows)), str(sum(row.run for row in one.rows)), one.title] for one in tables]
    print(table(rows, ["table", "rows", "run here", "title"]))
    return 0


def _print(selected: Table, rows: list[TableRow], results: list[dict[str, Any]]) -> None:
    print(selected.title)
    cells = [
        [
            row.name, row.data, row.encoder + (f" + {row.adapter}" if row.adapter else ""), row.metric,
            f"{row.expected:g} ± {row.tolerance:g}", "-" if found["value"] is None else f"{found['value']:.4g}",
            found["verdict"] or ("reproduced here" if row.run else "not run here"),
        ]
        for row, found in zip(rows, results, strict=True)
    ]  # fmt: skip
    print(table(cells, ["row", "data", "encoder", "metric", "expected", "value", "verdict"]))


def _print_published(results: tuple[PublishedResult, ...]) -> None:
    """Print what other methods reach; inductive and transductive results are two tables."""
    for setting in get_args(Setting):
        head, rows = published_table(results, setting)
        if rows:
            print(f"\npublished, {setting}")
            print(table(rows, head))
    if results:
        print("", *published_notes(results), sep="\n")


def _print_commands(folder: str, missing: dict[str, list[str]], commands: dict[str, list[str]]) -> None:
    """Print the commands that make what is missing; rows of several collections may need one file."""
    for own in dict.fromkeys(tuple(one) for one in commands.values()):
        paths = {missing[name][0] for name in missing if tuple(commands[name]) == own}
        print(f"\nmissing: {folder}/{' and '.join(sorted(paths))}; to make it:", *own, sep="\n  ")


def _print_sources(rows: list[TableRow]) -> None:
    print()
    for source in dict.fromkeys(row.source for row in rows):
        print(f"source: {source}")
    for note in dict.fromkeys(row.note for row in rows if row.note):
        print(f"note on {', '.join(row.name for row in rows if row.note == note)}: {note}")
