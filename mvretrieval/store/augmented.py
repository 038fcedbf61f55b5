"""Augmented vectors in the store, beside the originals: each object's vector averaged with those of its nearest neighbours.

With database-side augmentation (DBA), the index holds the augmented vectors. Neighbours are searched among the original vectors, so
that averages are never averaged again. The table `augmented` is created whenever DBA is turned on. A row is valid while its
sequence is at least that of its object: a re-embedded object that was not augmented is searched by its original vector.

`index.augmenter` keeps the table up to date.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from mvretrieval.augmentation import ALPHA
from mvretrieval.errors import DescriberError
from mvretrieval.store.batches import original_vectors, rows_of, stacked
from mvretrieval.store.store import Store

_PAGE = 8192
_TABLE = """
CREATE TABLE augmented (
    row_id INTEGER PRIMARY KEY REFERENCES objects ON DELETE CASCADE,
    sequence INTEGER NOT NULL,
    edge REAL,     -- cosine of the furthest neighbour, if there are k
    nearest BLOB,  -- row ids of the neighbours; NULL until a refresh with all objects
    vector BLOB NOT NULL
)"""
_SEARCHED = (
    "SELECT v.row_id, COALESCE(CASE WHEN s.sequence >= o.sequence THEN s.vector END, v.vector)"
    " FROM vectors v JOIN objects o USING (row_id) LEFT JOIN augmented s USING (row_id) WHERE v.row_id IN"
)


@dataclass(frozen=True)
class AugmentationConfig:
    """How a collection's vectors are augmented (see `augmentation`).

    Attributes:
        k: neighbours.
        alpha: power of the cosine that weights them.
    """

    k: int
    alpha: float = ALPHA

    def __post_init__(self) -> None:
        if self.k < 1:
            raise DescriberError(
                f"database-side augmentation needs at least 1 neighbour (0 turns it off), not {self.k}",
                code="bad_augmentation",
            )
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise DescriberError(
                f"alpha must be a finite number of at least 0, not {self.alpha:g}", code="bad_augmentation"
            )

    @classmethod
    def of(cls, k: int, alpha: float | None = None) -> AugmentationConfig | None:
        """Augmentation with k neighbours; None for 0."""
        return None if k == 0 else cls(k, ALPHA if alpha is None else alpha)

    def __str__(self) -> str:
        return f"{self.k} neighbours, similarity to the power {self.alpha:g}"


def augmentation_of(store: Store) -> AugmentationConfig | None:
    """Augmentation of the collection; None if it has none."""
    return store.read_meta("augmentation", lambda text: AugmentationConfig(**json.loads(text)))


def is_up_to_date(store: Store) -> bool:
    """Whether nothing was added, replaced or removed since all objects were augmented."""
    return bool(store.get_meta("augmented_at") == store.get_meta("sequence", 0))


# -- searched vectors --------------------------------------------------------------------------------------------------


def search_vectors(store: Store, row_ids: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Vectors (n, D) that searches use, in the order of `row_ids`: augmented ones in an augmented collection.

    Returns:
        Row ids (n,) of the objects found, and their vectors.
    """
    if augmentation_of(store) is None:
        return original_vectors(store, row_ids)
    return stacked(rows_of(store, _SEARCHED, row_ids), row_ids)


def augmented_vector(store: Store, row_id: int) -> NDArray[np.float32] | None:
    """(D,) augmented vector of an object; None if the collection is not augmented."""
    return None if augmentation_of(store) is None else search_vectors(store, [row_id])[1][0]


def search_vectors_since(store: Store, sequence: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Row ids (n,) and searched vectors (n, D) of the objects whose vector changed after `sequence`, in batches."""
    if augmentation_of(store) is None:
        yield from store.vectors_since(sequence)
        return
    # Each row id once, by the indices on `sequence`: scanning a large collection for one change takes too long.
    rows = store.db.all(
        "SELECT row_id FROM objects WHERE sequence > ? UNION SELECT row_id FROM augmented WHERE sequence > ? ORDER BY row_id",
        (sequence, sequence),
    )
    for start in range(0, len(rows), _PAGE):
        yield search_vectors(store, [row[0] for row in rows[start : start + _PAGE]])


# -- the table, inside the caller's transaction ------------------------------------------------------------------------


def reset_augmentation(store: Store, config: AugmentationConfig | None) -> None:
    """Store the configuration, and delete all augmented vectors."""
    store.db.run("DROP TABLE IF EXISTS augmented")
    store.db.run(_TABLE)
    store.db.run("CREATE INDEX augmented_by_sequence ON augmented (sequence)")
    store.set_meta("augmentation", json.dumps(asdict(config)) if config else None)


def put_augmented(
    store: Store, row_id: int, sequence: int, vector: NDArray[np.float32], nearest: NDArray[np.int64], edge: float
) -> None:
    """Set an object's augmented vector (D,), the row ids (k,) of its neighbours, and the cosine of the last of them."""
    store.db.run(
        "INSERT OR REPLACE INTO augmented VALUES (?, ?, ?, ?, ?)",
        (row_id, sequence, edge, nearest.astype("<i8").tobytes(), vector.astype("<f4").tobytes()),
    )


def neighbourhoods(store: Store, row_ids: NDArray[np.int64], k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Neighbours of objects at the last refresh.

    Returns:
        Row ids (n, k), -1 where an object had fewer neighbours, and cosines (n,) that another object must reach to become one of
        them: -inf where there were fewer, or where an object has not been refreshed since it was added or changed.
    """
    select = (
        "SELECT s.row_id, s.edge, s.nearest FROM augmented s JOIN objects o USING (row_id)"
        " WHERE s.sequence >= o.sequence AND s.row_id IN"
    )
    rows = rows_of(store, select, row_ids.tolist())
    nearest, edges = np.full((len(row_ids), k), -1, np.int64), np.full(len(row_ids), -np.inf)
    for i, row_id in enumerate(row_ids.tolist()):
        row = rows.get(row_id)
        if row is not None and row[2] is not None:
            found = np.frombuffer(row[2], "<i8")
            nearest[i, : len(found)] = found
            edges[i] = row[1] if len(found) == k else -np.inf
    return nearest, edges
