"""Tables to be run again: rows of data with what is expected, from where, and how near is near enough.

A table is a YAML file under `tables/`: its collections with the commands that make them, and rows that measure one. In the
manner of pyserini's reproduction tables.
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

Task = Literal["eval", "zero-shot", "text-to-3d", "image-to-3d", "features"]
"""`eval` is plain `mvr eval`; `features` measures a column of an .npz file (see `feature_file`)."""
Verdict = Literal["reproduced", "close", "not"]
CLOSE = 3  # tolerances


@dataclass(frozen=True)
class Row:
    """One number.

    Attributes:
        name: of the row, once in a table.
        data: the data set and the part of it.
        collection: folder or file in the folder of collections.
        task: what is run.
        encoder: id, or what else made the vectors.
        metric: of the task's JSON; a dot goes into an object.
        expected: value.
        tolerance: of `expected`, in its unit.
        source: where the expected value stands.
        run: whether this project has run the row and got it; False: nobody has, here.
        options: of the command.
        adapter: what is learnt on top; empty for nothing.
        factor: 100 where the expected value is in percent and the command's is not.
        note: what differs from the source.
        objects: that are measured; 0 where that is not known.
    """

    name: str
    data: str
    collection: str
    task: Task
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
        """What its options name below `{dir}`: queries, or lists of classes."""
        return _named(self.options)

    def command(self, folder: str) -> list[str]:
        """The words of a command line that measures it."""
        target = f"{folder.rstrip('/')}/{self.collection}"
        if self.task == "features":
            call = f"from mvretrieval.evaluation.feature_file import *; print(measure_features({target!r}, {self.options[0]!r}))"
            return ["python", "-c", call]
        second = [] if self.task == "eval" else [self.task]
        return ["mvr", "eval", *second, target, *self.options, "--json"]

    def value_of(self, found: Mapping[str, Any]) -> float:
        """The row's number in what was found.

        Raises:
            EvaluationError: it is not there.
        """
        value: Any = found
        for part in self.metric.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if not isinstance(value, int | float):
            raise EvaluationError(
                f"row '{self.name}': nothing was measured as {self.metric} ({', '.join(found)} are there)"
            )
        return float(value) * self.factor

    def check_objects(self, found: Mapping[str, Any]) -> None:
        """Refuse another set of objects than the row's.

        Raises:
            EvaluationError: there are more or fewer.
        """
        if self.objects and found.get("objects", self.objects) != self.objects:
            raise EvaluationError(
                f"{found['objects']} objects were measured, the row's set has {self.objects}: index all of it"
            )

    def judge(self, value: float) -> Verdict:
        """Within the tolerance, within three times of it, or not."""
        off = abs(value - self.expected)
        edge = self.tolerance + 1e-9  # a value at the very edge is inside, whatever binary fractions make of it
        if off <= edge:
            return "reproduced"
        return "close" if off <= CLOSE * edge else "not"


@dataclass(frozen=True)
class Table:
    """Rows that belong together.

    Attributes:
        name: of its file.
        title: what it is about.
        data: data set -> commands that lay it out in `{dir}/data/`; `#` begins what is to be known before.
        make: collection -> commands that make it; `{dir}` is the folder of collections.
        rows: in the order of the file.
    """

    name: str
    title: str
    data: Mapping[str, tuple[str, ...]]
    make: Mapping[str, tuple[str, ...]]
    rows: tuple[Row, ...]

    def commands(self, collection: str, there: Callable[[str], bool] = lambda path: False) -> tuple[str, ...]:
        """What makes a collection and the files that its rows name, from the data sets on; each once, in order.

        Args:
            collection: of a row.
            there: whether a path below `{dir}` is there already; what makes it is left out, with all that only this needs.
        """
        makers = {**{f"data/{name}": commands for name, commands in self.data.items()}, **self.make}
        found: dict[str, tuple[str, ...]] = {}
        asked: set[str] = set()

        def need(path: str) -> None:
            owner = _owner(path)
            if owner in asked or owner not in makers or there(path):
                return
            asked.add(owner)
            for other in _named(makers[owner]):
                need(other)
            found[owner] = makers[owner]

        for path in (*(file for row in self.rows if row.collection == collection for file in row.files), collection):
            need(path)
        return tuple(command for commands in found.values() for command in commands)


def table_names() -> list[str]:
    """Tables that there are."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _folder().iterdir() if entry.name.endswith(".yaml"))


def read_table(name: str) -> Table:
    """A table by its name.

    Raises:
        EvaluationError: there is none, or its file is damaged.
    """
    known = table_names()
    if name not in known:
        raise EvaluationError(f"no table '{name}': {did_you_mean(name, known)}the tables are {', '.join(known)}")
    return parse_table(name, (_folder() / f"{name}.yaml").read_text(encoding="utf-8"))


def parse_table(name: str, text: str) -> Table:
    """A table from YAML.

    Raises:
        EvaluationError: something is missing, twice, or of the wrong kind.
    """
    try:
        content = yaml.safe_load(text)
        data = {str(key): tuple(map(str, commands)) for key, commands in content.get("data", {}).items()}
        make = {str(key): tuple(map(str, commands)) for key, commands in content["collections"].items()}
        rows = tuple(_row(values) for values in content["rows"])
        table = Table(name, str(content["title"]), data, make, rows)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise EvaluationError(
            f"table '{name}' is damaged ({type(error).__name__}: {error}): install the package again"
        ) from error
    names = [row.name for row in rows]
    for row in rows:
        if names.count(row.name) > 1:
            raise EvaluationError(f"table '{name}' has two rows '{row.name}'")
        if row.collection not in make:
            raise EvaluationError(f"table '{name}', row '{row.name}': nothing says how '{row.collection}' is made")
    return table


def _row(values: dict[str, Any]) -> Row:
    plain = dict(values) | {"options": tuple(map(str, values.get("options", ())))}
    row = Row(**plain)
    if row.task not in get_args(Task):
        raise ValueError(f"row '{row.name}' has the task '{row.task}', known are {', '.join(get_args(Task))}")
    if row.task == "features" and len(row.options) != 1:
        raise ValueError(f"row '{row.name}' has to name one column of its file as its option")
    if not isinstance(row.run, bool) or not row.source:
        raise ValueError(f"row '{row.name}' has to say whether it was run, and where its value comes from")
    if (
        not all(isinstance(x, int | float) and math.isfinite(x) for x in (row.expected, row.tolerance))
        or row.tolerance <= 0
    ):
        raise ValueError(f"row '{row.name}' expects {row.expected} within {row.tolerance}")
    return row


def _named(words: Iterable[str]) -> tuple[str, ...]:
    """Paths below `{dir}` that commands or options name, each once."""
    said = (word for word in words if not word.startswith("#"))
    return tuple(dict.fromkeys(path.rstrip("/") for word in said for path in re.findall(r"\{dir\}/([^\s'\"]+)", word)))


def _owner(path: str) -> str:
    """The data set or the collection that a path below `{dir}` belongs to: `data/psb/labels.csv` to `data/psb`."""
    return "/".join(path.split("/")[: 2 if path.startswith("data/") else 1])


def _folder() -> Any:
    return files("mvretrieval.evaluation.reproduce") / "tables"
