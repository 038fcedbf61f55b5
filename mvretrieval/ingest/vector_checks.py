"""Checks of ids, vectors and labels that are to be imported, before anything is stored."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.encoders.imported import MAX_DIM
from mvretrieval.errors import VectorsError

MAX_ID_LENGTH = 4096
"""The REST API takes no longer ids."""
_SHOWN = 3


def unreadable(path: Path, reason: object) -> VectorsError:
    """The error for a file that cannot be read or is damaged."""
    return VectorsError(
        f"{path} cannot be read ({reason}): write it again as .npz or Parquet", code="vectors_unreadable"
    )


def label_values(array: NDArray[Any]) -> list[Any] | None:
    """Values (N,) of a label as Python's; None for an array of a type that is none of text, numbers and dates."""
    match array.dtype.kind:
        case "f":
            return [without_missing(value) for value in array.astype(np.float64).tolist()]
        case "U" | "b" | "i" | "u":
            return [without_missing(value) for value in array.tolist()]
        case "S":
            return [without_missing(value.decode("utf-8", "replace")) for value in array.tolist()]
        case "M":
            return [None if text == "NaT" else text for text in np.datetime_as_string(array).tolist()]
    return None


def without_missing(value: Any) -> Any:
    """None for empty text and for numbers that are not finite, else the value."""
    if value == "" or (isinstance(value, float | np.floating) and not math.isfinite(value)):
        return None
    return value


def checked_ids(given: NDArray[Any], where: str) -> list[str]:
    """Ids (N,) as text.

    Args:
        given: (N,) text or whole numbers.
        where: what they are, for messages.

    Raises:
        VectorsError: they have another shape or type, or one cannot be an id (`bad_ids`); two are equal (`duplicate_ids`);
            there are none (`no_vectors`).
    """
    if given.ndim != 1:
        raise VectorsError(f"{where} must be (N,), one for each vector; got {given.shape}", code="bad_ids")
    if given.dtype.kind == "S":
        given = np.char.decode(given, "utf-8", "replace")
    if given.dtype.kind not in "Uiu" and not (given.dtype.hasobject and all(isinstance(i, str | int) for i in given)):
        raise VectorsError(
            f"{where} have the type {given.dtype}: give text or whole numbers, with none missing", code="bad_ids"
        )
    ids = [str(value) for value in given.tolist()]
    if not ids:
        raise VectorsError(f"{where} are empty: there is nothing to import", code="no_vectors")
    for row, object_id in enumerate(ids):
        if problem := _problem_of_id(object_id):
            raise VectorsError(f"{where}, row {row}: {problem}", code="bad_ids")
    if len(set(ids)) < len(ids):
        repeated = [object_id for object_id, count in Counter(ids).items() if count > 1]
        shown = ", ".join(f"'{object_id}'" for object_id in repeated[:_SHOWN])
        more = f" and {len(repeated) - _SHOWN} others" if len(repeated) > _SHOWN else ""
        raise VectorsError(
            f"{where} name {shown}{more} more than once: give each vector an id of its own", code="duplicate_ids"
        )
    return ids


def _problem_of_id(object_id: str) -> str:
    if not object_id.strip():
        return "the id is empty: give each vector an id"
    if "\0" in object_id or any("\ud800" <= c <= "\udfff" for c in object_id):
        return f"{ascii(object_id)[:50]} contains a character that no text has: leave it out"
    if len(object_id) > MAX_ID_LENGTH:
        return f"the id has {len(object_id)} characters, at most {MAX_ID_LENGTH} are allowed: shorten it"
    return ""


def check_vectors(shape: tuple[int, ...], dtype: np.dtype[Any], n_ids: int, where: str) -> None:
    """Check that there is a vector (D,) of numbers for each of N ids.

    Raises:
        VectorsError: another shape (`bad_vectors_shape`) or type (`bad_vectors_type`).
    """
    if len(shape) != 2 or shape[0] != n_ids:
        raise VectorsError(
            f"{where} must be (N, D), here ({n_ids}, D) for {n_ids} ids; got {shape}: give one row for each id",
            code="bad_vectors_shape",
        )
    if not 1 <= shape[1] <= MAX_DIM:
        raise VectorsError(
            f"{where} have {shape[1]} numbers each: 1 to {MAX_DIM} are possible", code="bad_vectors_shape"
        )
    if dtype.kind not in "fiu":
        raise VectorsError(
            f"{where} have the type {dtype}: give real numbers, such as float32", code="bad_vectors_type"
        )
