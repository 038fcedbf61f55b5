"""Files of vectors: .npz and Parquet, told apart by their first bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mvretrieval.errors import VectorsError, did_you_mean
from mvretrieval.ingest.vector_checks import check_vectors, checked_ids, label_values, unreadable
from mvretrieval.ingest.vector_table import ArrayTable, VectorTable
from mvretrieval.npz_file import StoredArray, read_arrays, stored_arrays

_NUMBERS_AT_ONCE = 1 << 22
_NEXT_STEP = (
    "give an .npz file with the arrays 'ids' and 'vectors', or a Parquet file with the columns 'id' and 'vector'"
)


def read_vector_file(path: Path) -> VectorTable:
    """A table of a file, with its ids read and checked, and its vectors still in the file.

    Raises:
        VectorsError: the file cannot be read (`vectors_unreadable`), has another format (`unknown_vectors_format`), or has
            unusable contents (see `read_npz` and `parquet_vectors.read_parquet`); or pyarrow is missing (`needs_extra`).
    """
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as error:
        raise VectorsError(
            f"{path} cannot be read ({error.strerror or error}): {_NEXT_STEP}", code="vectors_unreadable"
        ) from error
    if start.startswith(b"PAR1"):
        try:
            from mvretrieval.ingest.parquet_vectors import read_parquet
        except ModuleNotFoundError as error:
            raise VectorsError(
                f"{path} is a Parquet file, which needs {error.name}: pip install 'mvretrieval[parquet]', or write the vectors as "
                ".npz",
                code="needs_extra",
            ) from error
        return read_parquet(path)
    if start.startswith(b"PK"):
        return read_npz(path)
    what = "an array without ids (.npy)" if start == b"\x93NUMPY" else "neither .npz nor Parquet"
    raise VectorsError(f"{path} is {what}: {_NEXT_STEP}", code="unknown_vectors_format")


def read_npz(path: Path) -> ArrayTable:
    """A table of an .npz file: `ids` (N,), `vectors` (N, D), and other arrays (N,) as labels.

    The vectors stay in the file until they are needed.

    Raises:
        VectorsError: the file cannot be read (`vectors_unreadable`), lacks an array (`no_such_column`), or an array is pickled
            (`pickled_array`); see also `checked_ids` and `check_vectors`.
    """
    try:
        arrays = stored_arrays(path)
        for needed in ("ids", "vectors"):
            _check_has(needed, arrays, path)
        for array in arrays.values():
            _check_plain(array, path)
        (given,) = read_arrays(path, ["ids"])
        ids = checked_ids(given, f"'ids' in {path}")
        stored = arrays["vectors"]
        check_vectors(stored.shape, stored.dtype, len(ids), f"'vectors' in {path}")
        for _ in stored.parts(
            max(1, _NUMBERS_AT_ONCE // stored.shape[1])
        ):  # compares the checksum before anything is stored
            pass
        columns, ignored = _labels(arrays, len(ids), path)
    except VectorsError:
        raise
    except ValueError as error:
        raise unreadable(path, error) from error

    def parts(n_rows: int) -> Iterator[NDArray[Any]]:
        try:
            yield from stored.parts(n_rows)
        except ValueError as error:
            raise unreadable(path, error) from error

    return ArrayTable(str(path.absolute()), ids, stored.shape[1], columns, parts, ignored)


def _check_has(name: str, arrays: Mapping[str, StoredArray], path: Path) -> None:
    if name not in arrays:
        content = {"ids": "the N ids", "vectors": "the vectors (N, D)"}[name]
        raise VectorsError(
            f"{path} has no array '{name}' with {content}: {did_you_mean(name, arrays)}it has "
            f"{', '.join(sorted(arrays)) or 'no arrays'}. Write it with np.savez(FILE, ids=..., vectors=...)",
            code="no_such_column",
        )


def _check_plain(array: StoredArray, path: Path) -> None:
    if array.dtype.hasobject:
        remedy = "vectors.astype('float32')" if array.name == "vectors" else f"np.array({array.name}, dtype=str)"
        raise VectorsError(
            f"the array '{array.name}' in {path} has the type object, which is a pickle and is not read, since a pickle can run "
            f"programs: save it as text or numbers, such as {remedy}",
            code="pickled_array",
        )


def _labels(
    arrays: Mapping[str, StoredArray], n_rows: int, path: Path
) -> tuple[dict[str, Sequence[Any]], list[tuple[str, str]]]:
    """Values of each label, and (array, reason) of those that are none."""
    columns: dict[str, Sequence[Any]] = {}
    ignored: list[tuple[str, str]] = []
    for name, array in arrays.items():
        if name in ("ids", "vectors"):
            continue
        if array.shape != (n_rows,):
            ignored.append((name, f"its shape is {array.shape}, that of a label is ({n_rows},)"))
            continue
        values = label_values(read_arrays(path, [name])[0])
        if values is None:
            ignored.append((name, f"its type is {array.dtype}, that of a label is text or numbers"))
        else:
            columns[name] = values
    return columns, ignored
