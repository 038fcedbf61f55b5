"""Vectors in a Parquet file: a column `id`, a column `vector` of lists, and other columns as labels. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mvretrieval.errors import VectorsError, did_you_mean
from mvretrieval.ingest.vector_checks import check_vectors, checked_ids, unreadable, without_missing
from mvretrieval.ingest.vector_table import VectorBatch

# Columns are read in pieces of this size, without `pre_buffer`: it reads a row group whole, and some programs write one per file.
_BUFFER_BYTES = 8 << 20
_ROWS_CHECKED_AT_ONCE = 4096
_PANDAS_INDEX = "__index_level_"


@dataclass(frozen=True)
class ParquetTable:
    """See `VectorTable`; only the ids are in memory.

    Attributes:
        path: of the file.
        ids, dim, labels, ignored: see `VectorTable`.
    """

    path: Path
    ids: Sequence[str]
    dim: int
    labels: Sequence[str]
    ignored: Sequence[tuple[str, str]]

    @property
    def source(self) -> str:
        """The absolute path."""
        return str(self.path.absolute())

    def batches(self, n_rows: int) -> Iterator[VectorBatch]:
        """See `VectorTable`."""
        start = 0
        with _opened(self.path) as file:
            for batch in file.iter_batches(n_rows, columns=["vector", *self.labels]):
                ids = self.ids[start : start + len(batch)]
                start += len(batch)
                vectors, missing = _vectors(batch.column("vector"), self.dim)
                yield VectorBatch(ids, vectors, missing, {name: _values(batch.column(name)) for name in self.labels})


def read_parquet(path: Path) -> ParquetTable:
    """A table of a Parquet file, with its ids read and checked.

    Raises:
        VectorsError: the file cannot be read (`vectors_unreadable`), lacks a column (`no_such_column`), or its lists have
            different lengths (`bad_vectors_shape`); see also `checked_ids` and `check_vectors`.
    """
    with _opened(path) as file:
        schema = file.schema_arrow
        for needed in ("id", "vector"):
            _check_has(needed, schema.names, path)
        where = f"the column 'id' in {path}"
        _check_type(schema.field("vector").type, path)
        ids: list[Any] = []
        lengths: set[int] = set()
        columns = ["id"] if _fixed_length(schema.field("vector").type) else ["id", "vector"]
        for batch in file.iter_batches(_ROWS_CHECKED_AT_ONCE, columns=columns):
            ids += _ids(batch.column("id"), where)
            if len(columns) > 1:
                found = pc.unique(pc.list_value_length(_storage(batch.column("vector")))).to_pylist()
                lengths.update(length for length in found if length is not None)
        lengths |= {_fixed_length(schema.field("vector").type)} - {0}
    names = checked_ids(np.array(ids, object) if ids else np.empty(0, "U1"), where)
    if len(lengths) > 1:
        shown = ", ".join(map(str, sorted(lengths)[:5]))
        raise VectorsError(
            f"the column 'vector' in {path} has lists of different lengths ({shown}): all vectors need the same number of "
            "elements",
            code="bad_vectors_shape",
        )
    dim = next(iter(lengths), 0)
    check_vectors((len(names), dim), np.dtype("f4"), len(names), f"the column 'vector' in {path}")
    labels, ignored = _labels(schema)
    return ParquetTable(path, names, dim, labels, ignored)


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False, page_checksum_verification=True) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def _check_has(name: str, names: Sequence[str], path: Path) -> None:
    if names.count(name) != 1:
        problem = f"has two columns '{name}'" if name in names else f"has no column '{name}'"
        raise VectorsError(
            f"{path} {problem}: {did_you_mean(name, names)}it has {', '.join(names[:20]) or 'none'}; give a Parquet file with a "
            "column 'id' of text or whole numbers and a column 'vector' of lists",
            code="no_such_column",
        )


def _check_type(kind: Any, path: Path) -> None:
    """Check that a column holds lists of numbers."""
    kind = getattr(kind, "storage_type", kind)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)):
        raise VectorsError(
            f"the column 'vector' in {path} has the type {kind}: give lists of real numbers, such as list<float>",
            code="bad_vectors_type",
        )


def _fixed_length(kind: Any) -> int:
    """Length of the lists where the type says it, else 0."""
    kind = getattr(kind, "storage_type", kind)
    return int(kind.list_size) if pa.types.is_fixed_size_list(kind) else 0


def _storage(column: Any) -> Any:
    """The lists of a column whose type is an extension, such as a tensor of fixed shape."""
    return getattr(column, "storage", column)


def _vectors(column: Any, dim: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Vectors (n, D), zero where missing, and where they are missing (n,). A missing number is NaN."""
    lists = _storage(column)
    missing = lists.is_null().to_numpy(zero_copy_only=False)
    present = lists.drop_null() if missing.any() else lists
    flat = present.flatten().to_numpy(zero_copy_only=False)
    if not missing.any():
        return flat.reshape(len(lists), dim), missing
    vectors = np.zeros((len(lists), dim), flat.dtype)
    vectors[~missing] = flat.reshape(-1, dim)
    return vectors, missing


def _ids(column: Any, where: str) -> list[Any]:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.null_count:
        raise VectorsError(f"{where} has {column.null_count} empty cells: give each vector an id", code="bad_ids")
    if not (_is_text(column.type) or pa.types.is_integer(column.type)):
        raise VectorsError(f"{where} has the type {column.type}: give text or whole numbers", code="bad_ids")
    found: list[Any] = column.to_pylist()
    return found


def _labels(schema: Any) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Names of the labels, and (column, reason) of those that are none."""
    labels, ignored = [], []
    for field in schema:
        if field.name in ("id", "vector"):
            continue
        if field.name.startswith(_PANDAS_INDEX):
            ignored.append((field.name, "it is the index of a pandas table"))
        elif schema.names.count(field.name) > 1:
            ignored.append((field.name, "two columns have this name"))
        elif _is_label(field.type):
            labels.append(field.name)
        else:
            ignored.append((field.name, f"its type is {field.type}, that of a label is text or numbers"))
    return tuple(labels), ignored


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_label(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    types = pa.types
    is_number = types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    return bool(is_number or _is_text(kind) or types.is_date(kind) or types.is_timestamp(kind) or types.is_null(kind))


def _values(column: Any) -> list[Any]:
    """Values of a label; dates and times as text, None where there is none."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        column = column.cast(pa.string())
    return [without_missing(value) for value in column.to_pylist()]
