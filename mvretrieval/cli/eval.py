"""Measure a collection by one of its labels: every object asks for its like among the others."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from mvretrieval.cli.common import table
from mvretrieval.collection.collection import Collection
from mvretrieval.errors import FilterError, LabelsError, did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Options:
    """Options of `mvr eval`.

    Attributes:
        collection: folder of the collection.
        by: label that says which objects are alike.
        where: filter; only the objects that it keeps are asked and searched.
        classes: file with one label a line; only objects with one of these are asked and searched.
        json: one JSON object.
    """

    collection: tyro.conf.Positional[Path]
    by: str = "label"
    where: str | None = None
    classes: Path | None = None
    json: bool = False


def run(options: Options) -> int:
    """Evaluate and print."""
    result = evaluate(options)
    if options.json:
        print(json.dumps(result))
    else:
        row = [f"{v:.4f}" if isinstance(v, float) else str(v) for v in result.values()]
        print(table([row], list(result)))
    return 0


def evaluate(options: Options) -> dict[str, Any]:
    """Number of queries and means of the metrics.

    Raises:
        FilterError: there is no such label.
        LabelsError: the file of classes cannot be read.
    """
    from mvretrieval.evaluation.metrics import leave_one_out

    with Collection.open(options.collection) as collection:
        store = collection.store
        columns = store.columns()
        if options.by not in columns:
            raise FilterError(
                f"no label '{options.by}': {did_you_mean(options.by, columns)}this collection has {', '.join(sorted(columns))}"
            )
        numbers = store.select(options.where)
        labels = store.column_values(options.by, [int(n) for n in numbers])
        if options.classes is not None:
            kept = _classes(options.classes)
            chosen = [i for i, label in enumerate(labels) if label is not None and str(label) in kept]
            numbers, labels = numbers[chosen], [labels[i] for i in chosen]
        vectors: NDArray[np.float32] = (
            np.stack([store.vector_of(int(n)) for n in numbers]) if len(numbers) else np.empty((0, 1), np.float32)
        )
        evaluation = leave_one_out(vectors, labels)
    return {"queries": len(evaluation.queries), **evaluation.means()}


def _classes(path: Path) -> set[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LabelsError(f"classes {path} cannot be read: {error}") from error
    return {line.strip() for line in lines if line.strip()}
