"""Arrays in the store: object vectors (float32), raw view vectors (float16) and their masks, little-endian; and thumbnails."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mvretrieval.collection.database import Database
from mvretrieval.errors import CollectionError

_PAGE = 8192


def put_vector(db: Database, number: int, vector: NDArray[np.float32]) -> None:
    """Set an object's vector (D,)."""
    db.run("INSERT OR REPLACE INTO vectors VALUES (?, ?)", (number, np.asarray(vector, "<f4").tobytes()))


def put_smoothed_vector(db: Database, number: int, change: int, vector: NDArray[np.float32]) -> None:
    """Set the smoothed vector (D,) of an object that is new or changed; others' neighbours are found later."""
    db.run(
        "INSERT OR REPLACE INTO smoothed (number, change, vector) VALUES (?, ?, ?)",
        (number, change, np.asarray(vector, "<f4").tobytes()),
    )


def put_views(db: Database, number: int, view_vectors: NDArray[np.float16], view_mask: NDArray[np.bool_]) -> None:
    """Set an object's raw view vectors (S, V, D) and mask (V,)."""
    db.run(
        "INSERT OR REPLACE INTO views VALUES (?, ?, ?)",
        (number, view_mask.astype(np.uint8).tobytes(), np.asarray(view_vectors, "<f2").tobytes()),
    )


def put_strip(db: Database, number: int, strip: bytes) -> None:
    """Set the WebP strip of an object's views."""
    db.run("INSERT OR REPLACE INTO thumbnails VALUES (?, ?)", (number, strip))


def vector_of(db: Database, number: int) -> NDArray[np.float32]:
    """(D,) vector of one object."""
    row = db.one("SELECT vector FROM vectors WHERE number = ?", (number,))
    if row is None:
        raise CollectionError(f"object {number} has no vector; index its file again")
    return np.frombuffer(row[0], "<f4")


def views_of(db: Database, number: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Raw view vectors (S * V * D,) flat and mask (V,) of one object."""
    row = db.one("SELECT vectors, mask FROM views WHERE number = ?", (number,))
    if row is None:
        raise CollectionError(f"object {number} has no views; index its file again")
    return np.frombuffer(row[0], "<f2").astype(np.float32), np.frombuffer(row[1], np.uint8).astype(bool)


def strip_of(db: Database, number: int) -> bytes | None:
    """WebP strip of an object's views."""
    row = db.one("SELECT strip FROM thumbnails WHERE number = ?", (number,))
    return None if row is None else bytes(row[0])


def vectors_since(db: Database, change: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Numbers (n,) and vectors (n, D) of the objects changed after `change`, in parts."""
    last = -1
    while True:
        rows = db.all(
            "SELECT number, vector FROM objects JOIN vectors USING (number)"
            f" WHERE change > ? AND number > ? ORDER BY number LIMIT {_PAGE}",
            (change, last),
        )
        if not rows:
            return
        last = rows[-1][0]
        yield (
            np.fromiter((row[0] for row in rows), np.int64, len(rows)),
            np.frombuffer(b"".join(row[1] for row in rows), "<f4").reshape(len(rows), -1),
        )
