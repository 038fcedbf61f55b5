"""Vectors of many objects at once, for re-ranking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.store.blobs import float16_to_float32
from mvretrieval.store.store import Store

_BATCH = 500


def original_vectors(store: Store, row_ids: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Object vectors (n, D) as the describer computed them, in the order of `row_ids`.

    Returns:
        Row ids (n,) of the objects found, and their vectors.
    """
    return stacked(rows_of(store, "SELECT row_id, vector FROM vectors WHERE row_id IN", row_ids), row_ids)


def view_vectors(
    store: Store, row_ids: Sequence[int], n_styles: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """Raw view vectors of objects, in the order of `row_ids`.

    Returns:
        Row ids (n,) of the objects found, their views (n, S, V, D) and masks (n, V).
    """
    rows = rows_of(store, "SELECT row_id, mask, vectors FROM views WHERE row_id IN", row_ids)
    found = [int(row_id) for row_id in row_ids if int(row_id) in rows]
    if not found:
        return np.empty(0, np.int64), np.empty((0, n_styles, 0, 0), np.float32), np.empty((0, 0), bool)
    masks = np.stack([np.frombuffer(rows[row_id][1], np.uint8).astype(bool) for row_id in found])
    views = np.empty((len(found), len(rows[found[0]][2]) // 2), np.float32)
    for own, row_id in zip(views, found, strict=True):
        # One by one: allocating all of them in one block per call takes twice the time.
        own[:] = float16_to_float32(rows[row_id][2])
    return np.array(found, np.int64), views.reshape(len(found), n_styles, masks.shape[1], -1), masks


def rows_of(store: Store, select: str, row_ids: Sequence[int]) -> dict[int, Any]:
    """Rows by their first column; `select` ends with `IN`, where the list of row ids follows."""
    rows: dict[int, Any] = {}
    for start in range(0, len(row_ids), _BATCH):
        some = [int(row_id) for row_id in row_ids[start : start + _BATCH]]
        rows |= {row[0]: row for row in store.db.all(f"{select} ({','.join('?' * len(some))})", some)}
    return rows


def stacked(rows: dict[int, Any], row_ids: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Row ids (n,) and vectors (n, D) of rows (row_id, vector), in the order of `row_ids`."""
    found = [int(row_id) for row_id in row_ids if int(row_id) in rows]
    flat = np.frombuffer(b"".join(rows[row_id][1] for row_id in found), "<f4")
    return np.array(found, np.int64), flat.reshape(len(found), -1 if found else 0)
