"""Arrays in the store: object vectors (float32), raw view vectors (float16) and their masks, little-endian; and thumbnails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import CollectionError
from mvretrieval.store.database import Database

_PAGE = 8192
_FLOAT16_BIAS = np.float32(2.0**112)  # difference of the exponent biases of float32 and float16


def float16_to_float32(halves: bytes) -> NDArray[np.float32]:
    """Convert stored float16 values, which are finite, to float32.

    Branch-free: numpy converts element by element and mispredicts where zeros are mixed in, up to eight times slower.
    """
    bits = np.frombuffer(halves, "<u2").astype(np.uint32)
    signs = bits & 0x8000
    signs <<= 16
    bits &= 0x7FFF
    bits <<= 13
    values: NDArray[np.float32] = bits.view(np.float32)
    values *= _FLOAT16_BIAS  # also right for subnormal numbers
    bits |= signs
    return values


def put_vector(db: Database, row_id: int, vector: NDArray[np.float32]) -> None:
    """Set an object's vector (D,)."""
    db.run("INSERT OR REPLACE INTO vectors VALUES (?, ?)", (row_id, np.asarray(vector, "<f4").tobytes()))


def put_augmented_vector(db: Database, row_id: int, sequence: int, vector: NDArray[np.float32]) -> None:
    """Set the augmented vector (D,) of a new or changed object; its neighbours are stored by the next refresh."""
    db.run(
        "INSERT OR REPLACE INTO augmented (row_id, sequence, vector) VALUES (?, ?, ?)",
        (row_id, sequence, np.asarray(vector, "<f4").tobytes()),
    )


def put_views(db: Database, row_id: int, view_vectors: NDArray[np.float16], view_mask: NDArray[np.bool_]) -> None:
    """Set an object's raw view vectors (S, V, D) and mask (V,)."""
    db.run(
        "INSERT OR REPLACE INTO views VALUES (?, ?, ?)",
        (row_id, view_mask.astype(np.uint8).tobytes(), np.asarray(view_vectors, "<f2").tobytes()),
    )


def put_strip(db: Database, row_id: int, strip: bytes) -> None:
    """Set the WebP strip of an object's views."""
    db.run("INSERT OR REPLACE INTO thumbnails VALUES (?, ?)", (row_id, strip))


def vector_of(db: Database, row_id: int) -> NDArray[np.float32]:
    """(D,) vector of one object."""
    row = db.one("SELECT vector FROM vectors WHERE row_id = ?", (row_id,))
    if row is None:
        raise CollectionError(f"object {row_id} has no stored vector: index its file again", code="no_stored_vector")
    return np.frombuffer(row[0], "<f4")


def views_of(db: Database, row_id: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Raw view vectors (S * V * D,) flat and mask (V,) of one object."""
    row = db.one("SELECT vectors, mask FROM views WHERE row_id = ?", (row_id,))
    if row is None:
        raise CollectionError(f"object {row_id} has no stored views: index its file again", code="no_stored_views")
    return float16_to_float32(row[0]), np.frombuffer(row[1], np.uint8).astype(bool)


def strip_of(db: Database, row_id: int) -> bytes | None:
    """WebP strip of an object's views."""
    row = db.one("SELECT strip FROM thumbnails WHERE row_id = ?", (row_id,))
    return None if row is None else bytes(row[0])


def vectors_since(db: Database, sequence: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Row ids (n,) and vectors (n, D) of the objects changed after `sequence`, in batches; of all objects for -1."""
    if sequence < 0:
        last = -1
        while rows := db.all(
            f"SELECT row_id, vector FROM vectors WHERE row_id > ? ORDER BY row_id LIMIT {_PAGE}", (last,)
        ):
            last = rows[-1][0]
            yield _joined(rows)
        return
    # First the row ids alone, from the index on `sequence`: for a page of vectors in order, SQLite would scan all objects.
    row_ids = sorted(row[0] for row in db.all("SELECT row_id FROM objects WHERE sequence > ?", (sequence,)))
    for start in range(0, len(row_ids), _PAGE):
        some = ", ".join(map(str, row_ids[start : start + _PAGE]))
        if rows := db.all(f"SELECT row_id, vector FROM vectors WHERE row_id IN ({some}) ORDER BY row_id"):
            yield _joined(rows)


def _joined(rows: Sequence[tuple[int, bytes]]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    vectors = np.frombuffer(b"".join(row[1] for row in rows), "<f4")
    return np.fromiter((row[0] for row in rows), np.int64, len(rows)), vectors.reshape(len(rows), -1)
