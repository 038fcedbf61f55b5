"""What is evaluated: objects of a collection, by one of its labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.collection.collection import Collection
from mvretrieval.errors import FilterError, LabelsError, did_you_mean


@dataclass(frozen=True)
class Selection:
    """Which objects, and what makes them alike.

    Attributes:
        by: label that says which objects are alike.
        where: filter; all objects without one.
        classes: file with one label a line; objects with another, or none, are left out.
    """

    by: str = "label"
    where: str | None = None
    classes: Path | None = None

    @property
    def in_words(self) -> str:
        """Which objects; empty for all."""
        return ", ".join([*([self.where] if self.where else []), *([f"classes of {self.classes}"] if self.classes else [])])


@dataclass(frozen=True)
class Subject:
    """Objects with vectors, and what is said of each.

    Attributes:
        selection: that they are.
        numbers: (N,) of the objects in the collection.
        ids: N.
        labels: N; None for an object without one.
        vectors: (N, D), unit norm.
    """

    selection: Selection
    numbers: NDArray[np.int64]
    ids: tuple[str, ...]
    labels: list[Any]
    vectors: NDArray[np.float32]

    @property
    def unlabelled(self) -> int:
        """How many have no label."""
        return sum(label is None for label in self.labels)


def subject_of(collection: Collection, selection: Selection) -> Subject:
    """Read the objects that are asked and searched, as they are at one moment.

    Args:
        collection: open.
        selection: which objects.

    Raises:
        FilterError: there is no such label, or the filter cannot be understood.
        LabelsError: the file of classes cannot be read.
    """
    store = collection.store
    by = selection.by
    kept = None if selection.classes is None else read_classes(selection.classes)
    with store.snapshot():
        columns = store.columns()
        if by not in columns:
            known = ", ".join(sorted(columns))
            raise FilterError(f"no label '{by}': {did_you_mean(by, columns)}this collection has {known}")
        numbers = store.select(selection.where)
        labels = store.column_values(by, [int(n) for n in numbers])
        if kept is not None:
            chosen = [i for i, label in enumerate(labels) if label is not None and str(label) in kept]
            numbers, labels = numbers[chosen], [labels[i] for i in chosen]
        vectors = [store.vector_of(int(n)) for n in numbers]
        records = store.records([int(n) for n in numbers])
    ids = tuple(records[int(n)].id for n in numbers)
    stacked = np.stack(vectors) if vectors else np.empty((0, 1), np.float32)
    return Subject(selection, numbers, ids, labels, stacked)


def read_classes(path: Path) -> set[str]:
    """Labels from a file with one a line.

    Raises:
        LabelsError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LabelsError(f"classes {path} cannot be read: {error}") from error
    return {line.strip() for line in lines if line.strip()}
