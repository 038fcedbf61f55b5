"""Reproduction tables: rows with an expected value, its source and a tolerance.

A table is a YAML file under `tables/`: its collections with the commands that make them, and rows that evaluate one each, as in
pyserini's reproduction tables. Results of other methods are listed with their source, also those that cannot be run here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, get_args

import yaml

from mvretrieval.errors import EvaluationError, did_you_mean
from mvretrieval.evaluation.reproduce.published import PublishedResult, check_against_rows, parse_published

TaskName = Literal["eval", "zero-shot", "text-to-3d", "image-to-3d", "features"]
"""`eval` is plain `mvr eval`; `features` evaluates a column of an .npz file (see `feature_file`)."""
Verdict = Literal["reproduced", "close", "not reproduced"]
CLOSE = 3  # tolerances


@dataclass(frozen=True)
class TableRow:
    """One value of a table.

    Attributes:
        name: unique name in the table.
        data: data set and split.
        collection: collection folder, or feature file, in the folder of collections.
        task: what is run.
        encoder: encoder id, or another source of the vectors.
        metric: key in the task's JSON; a dot separates nested keys.
        expected: expected value.
        tolerance: tolerance of `expected`, in its unit.
        source: source of the expected value.
        run: whether this project has run the row and reproduced it.
        options: options of the command.
        adapter: adapter or whitening; empty for none.
        factor: 100 where the expected value is in percent and the command's is not.
        note: differences from the source.
        objects: number of evaluated objects; 0 if unknown.
    """

    name: str
    data: str
    collection: str
    task: TaskName
    encoder: str
    metric: str
    expected: float
    tolerance: float
    source: str
    run: bool
    options: tuple[str, ...] = ()
    adapter: str = ""
    factor: float = 1.0
    note: str = ""
    objects: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        """Files below `{dir}` in the options: query splits, or lists of classes."""
        return _paths(self.options)

    def command(self, folder: str) -> list[str]:
        """Return the command line that evaluates the row, as a list of arguments."""
        target = f"{folder.rstrip('/')}/{self.collection}"
        if self.task == "features":
            call = f"from mvretrieval.evaluation.feature_file import *; print(measure_features({target!r}, {self.options[0]!r}))"
            return ["python", "-c", call]
        subcommand = [] if self.task == "eval" else [self.task]
        return ["mvr", "eval", *subcommand, target, *self.options, "--json"]

    def value_of(self, result: Mapping[str, Any]) -> float:
        """Return the row's value in the JSON result of its command.

        Raises:
            EvaluationError: the metric is not in the result.
        """
        value: Any = result
        for part in self.metric.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if not isinstance(value, int | float):
            raise EvaluationError(
                f"row '{self.name}': the result has no number {self.metric}, only {', '.join(result)}", code="no_metric"
            )
        return float(value) * self.factor

    def check_objects(self, result: Mapping[str, Any]) -> None:
        """Refuse a result over another number of objects.

        Raises:
            EvaluationError: the numbers differ.
        """
        if self.objects and result.get("objects", self.objects) != self.objects:
            raise EvaluationError(
                f"{result['objects']} objects were evaluated, the row has {self.objects}: index the whole data set",
                code="wrong_object_count",
            )

    def judge(self, value: float) -> Verdict:
        """Compare a value with the expected one: within one tolerance, within three, or not."""
        error = abs(value - self.expected)
        limit = self.tolerance + 1e-9  # a value exactly at the limit is inside, whatever its binary fraction
        if error <= limit:
            return "reproduced"
        return "close" if error <= CLOSE * limit else "not reproduced"


@dataclass(frozen=True)
class Table:
    """A table of rows.

    Attributes:
        name: name of its file.
        title: title.
        data: data set -> commands that create it in `{dir}/data/`; lines with `#` are instructions.
        make: collection -> commands that make it; `{dir}` is the folder of collections.
        rows: rows in the order of the file.
        published: results of other methods, from their publications.
    """

    name: str
    title: str
    data: Mapping[str, tuple[str, ...]]
    make: Mapping[str, tuple[str, ...]]
    rows: tuple[TableRow, ...]
    published: tuple[PublishedResult, ...] = ()

    def commands(self, collection: str, exists: Callable[[str], bool] = lambda path: False) -> tuple[str, ...]:
        """Return the commands that make a collection and the files of its rows, dependencies first, each once.

        Args:
            collection: collection of a row.
            exists: whether a path below `{dir}` exists; its commands and those of its dependencies are left out.
        """
        makers = {**{f"data/{name}": commands for name, commands in self.data.items()}, **self.make}
        found: dict[str, tuple[str, ...]] = {}
        visited: set[str] = set()

        def need(path: str) -> None:
            owner = _owner(path)
            if owner in visited or owner not in makers or exists(path):
                return
            visited.add(owner)
            for other in _paths(makers[owner]):
                need(other)
            found[owner] = makers[owner]

        for path in (*(file for row in self.rows if row.collection == collection for file in row.files), collection):
            need(path)
        return tuple(command for commands in found.values() for command in commands)


def table_names() -> list[str]:
    """Names of the existing tables."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def read_table(name: str) -> Table:
    """Read a table by its name.

    Raises:
        EvaluationError: there is no such table, or its file is damaged.
    """
    known = table_names()
    if name not in known:
        raise EvaluationError(
            f"no table '{name}': {did_you_mean(name, known)}the tables are {', '.join(known)}", code="unknown_table"
        )
    return parse_table(name, (_folder() / f"{name}.yaml").read_text(encoding="utf-8"))


def parse_table(name: str, text: str) -> Table:
    """Parse a table from YAML.

    Raises:
        EvaluationError: a field is missing or invalid, or a row name occurs twice.
    """
    try:
        content = yaml.safe_load(text)
        data = {str(key): tuple(map(str, commands)) for key, commands in content.get("data", {}).items()}
        make = {str(key): tuple(map(str, commands)) for key, commands in content["collections"].items()}
        rows = tuple(_parse_row(values) for values in content["rows"])
        published = tuple(parse_published(values) for values in content.get("published", ()))
        check_against_rows(published, {row.name: (row.data, row.expected) for row in rows})
        table = Table(name, str(content["title"]), data, make, rows, published)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise EvaluationError(
            f"table '{name}' is damaged ({type(error).__name__}: {error}): reinstall the package", code="bad_table"
        ) from error
    names = [row.name for row in rows]
    for row in rows:
        if names.count(row.name) > 1:
            raise EvaluationError(f"table '{name}' has two rows '{row.name}'", code="bad_table")
        if row.collection not in make:
            raise EvaluationError(
                f"table '{name}', row '{row.name}': no commands make the collection '{row.collection}'",
                code="bad_table",
            )
    return table


def _parse_row(values: dict[str, Any]) -> TableRow:
    row = TableRow(**(dict(values) | {"options": tuple(map(str, values.get("options", ())))}))
    if row.task not in get_args(TaskName):
        raise ValueError(f"row '{row.name}' has the task '{row.task}'; choose one of {', '.join(get_args(TaskName))}")
    if row.task == "features" and len(row.options) != 1:
        raise ValueError(f"row '{row.name}' needs one option, the column of its file")
    if not isinstance(row.run, bool) or not row.source:
        raise ValueError(f"row '{row.name}' needs 'run' (true or false) and a source")
    numbers = (row.expected, row.tolerance)
    if not all(isinstance(x, int | float) and math.isfinite(x) for x in numbers) or row.tolerance <= 0:
        raise ValueError(f"row '{row.name}' expects {row.expected} within {row.tolerance}")
    return row


def _paths(arguments: Iterable[str]) -> tuple[str, ...]:
    """Paths below `{dir}` in commands or options, each once."""
    used = (argument for argument in arguments if not argument.startswith("#"))
    return tuple(dict.fromkeys(path.rstrip("/") for one in used for path in re.findall(r"\{dir\}/([^\s'\"]+)", one)))


def _owner(path: str) -> str:
    """Data set or collection of a path below `{dir}`: `data/psb` for `data/psb/labels.csv`."""
    return "/".join(path.split("/")[: 2 if path.startswith("data/") else 1])


def _folder() -> Any:
    return files("mvretrieval.evaluation.reproduce") / "tables"
