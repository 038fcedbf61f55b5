"""Vectors with ids and labels that are to be imported: what any source gives, and such a table of arrays in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mvretrieval.errors import VectorsError
from mvretrieval.ingest.vector_checks import check_vectors, checked_ids, label_values, without_missing


@dataclass(frozen=True)
class VectorBatch:
    """Some rows of a table.

    Attributes:
        ids: n ids.
        vectors: (n, D) real numbers of any type and length.
        missing: (n,) True where a row has no vector; its numbers mean nothing then.
        labels: n values for each label; None where there is none.
    """

    ids: Sequence[str]
    vectors: NDArray[Any]
    missing: NDArray[np.bool_]
    labels: Mapping[str, Sequence[Any]]


class VectorTable(Protocol):
    """Vectors to be imported.

    Attributes:
        source: path of the file, or "arrays".
        ids: N distinct ids.
        dim: length D of a vector.
        labels: names of the labels.
        ignored: (column, reason) of those that cannot be labels.
    """

    @property
    def source(self) -> str: ...  # noqa: D102 - described above
    @property
    def ids(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def dim(self) -> int: ...  # noqa: D102
    @property
    def labels(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def ignored(self) -> Sequence[tuple[str, str]]: ...  # noqa: D102

    def batches(self, n_rows: int) -> Iterator[VectorBatch]:
        """Read all rows in order, `n_rows` or fewer at a time.

        Raises:
            VectorsError: the file is damaged (`vectors_unreadable`).
        """
        ...


@dataclass(frozen=True)
class ArrayTable:
    """A table with its ids and labels in memory.

    Attributes:
        source, ids, dim, ignored: see `VectorTable`.
        columns: N values of each label.
        parts: reads the vectors (N, D), some rows at a time.
    """

    source: str
    ids: Sequence[str]
    dim: int
    columns: Mapping[str, Sequence[Any]]
    parts: Callable[[int], Iterator[NDArray[Any]]]
    ignored: Sequence[tuple[str, str]] = ()

    @property
    def labels(self) -> Sequence[str]:
        """Names of the labels."""
        return tuple(self.columns)

    def batches(self, n_rows: int) -> Iterator[VectorBatch]:
        """See `VectorTable`."""
        start = 0
        for vectors in self.parts(n_rows):
            rows = slice(start, start + len(vectors))
            start += len(vectors)
            labels = {name: values[rows] for name, values in self.columns.items()}
            yield VectorBatch(self.ids[rows], vectors, np.zeros(len(vectors), bool), labels)


def table_of_arrays(
    ids: ArrayLike, vectors: ArrayLike, metadata: Mapping[str, Sequence[Any] | NDArray[Any]] | None = None
) -> ArrayTable:
    """A table of arrays in memory.

    Args:
        ids: (N,) text or whole numbers.
        vectors: (N, D) real numbers.
        metadata: N values for each label, text or numbers; None, NaN and empty text for no value.

    Raises:
        VectorsError: see `checked_ids` and `check_vectors`; or a label has another number of values (`bad_label_count`).
    """
    try:
        array = np.asarray(vectors)
    except ValueError as error:  # rows of different lengths
        raise VectorsError(f"vectors must be (N, D): {error}", code="bad_vectors_shape") from error
    names = checked_ids(np.asarray(ids), "ids")
    check_vectors(array.shape, array.dtype, len(names), "vectors")
    columns: dict[str, Sequence[Any]] = {}
    for name, values in (metadata or {}).items():
        if len(values) != len(names):
            raise VectorsError(
                f"the label '{name}' has {len(values)} values and there are {len(names)} vectors: give one value for each, None "
                "where there is none",
                code="bad_label_count",
            )
        plain = label_values(values) if isinstance(values, np.ndarray) and not values.dtype.hasobject else None
        columns[name] = [without_missing(value) for value in values] if plain is None else plain

    def parts(n_rows: int) -> Iterator[NDArray[Any]]:
        yield from (array[start : start + n_rows] for start in range(0, len(array), n_rows))

    return ArrayTable("arrays", names, array.shape[1], columns, parts)
