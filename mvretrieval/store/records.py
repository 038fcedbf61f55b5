"""One object of a collection: the records that are written and read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.store import blobs
from mvretrieval.store.database import Database
from mvretrieval.store.label_columns import label_names, quoted

_FACTS = ("format", "faces", "vertices", "textured", "up")
_BATCH = 500


@dataclass(frozen=True)
class ObjectRecord:
    """One object of a collection.

    Attributes:
        row_id: internal, never reused.
        id: stable name.
        path: its file; `vector:` and the id for an imported vector, which has none.
        content_hash: of everything that its rendered views depend on.
        facts: format, faces, vertices, textured, up.
        notes: about parts of the file that were left out.
        metadata: labels.
    """

    row_id: int
    id: str
    path: str
    content_hash: str
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NewObject:
    """An object to be stored."""

    id: str
    path: str
    content_hash: str
    stat: str
    facts: Mapping[str, Any]
    notes: Sequence[str]
    vector: NDArray[np.float32]  # (D,)
    view_vectors: NDArray[np.float16]  # (S, V, D')
    view_mask: NDArray[np.bool_]  # (V,)
    strip: bytes = b""
    root: str = ""
    augmented: NDArray[np.float32] | None = None  # (D,) in an augmented collection (see `store.augmented`)


def put_object(db: Database, new: NewObject, sequence: int) -> int:
    """Add an object, or replace the one at its path, which keeps its id and row id. Returns the row id."""
    row_id = _put_row(db, new, sequence)
    blobs.put_vector(db, row_id, new.vector)
    if new.augmented is not None:
        blobs.put_augmented_vector(db, row_id, sequence, new.augmented)
    blobs.put_views(db, row_id, new.view_vectors, new.view_mask)
    if new.strip:
        blobs.put_strip(db, row_id, new.strip)
    db.run("DELETE FROM failures WHERE path = ?", (new.path,))
    return row_id


def _put_row(db: Database, new: NewObject, sequence: int) -> int:
    facts = [new.facts.get(name) for name in _FACTS]
    reader = new.facts.get("reader", 1)
    notes = json.dumps(list(new.notes))
    row = db.one("SELECT row_id FROM objects WHERE path = ?", (new.path,))
    if row is None:
        cursor = db.run(
            "INSERT INTO objects"
            " (id, path, content_hash, stat, root, format, faces, vertices, textured, up, notes, sequence, reader)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (new.id, new.path, new.content_hash, new.stat, new.root, *facts, notes, sequence, reader),
        )
        row_id = int(cursor.lastrowid or 0)
        db.run("INSERT INTO metadata (row_id) VALUES (?)", (row_id,))
        return row_id
    row_id = int(row[0])
    db.run(
        "UPDATE objects SET content_hash = ?, stat = ?, root = ?, format = ?, faces = ?, vertices = ?, textured = ?,"
        " up = ?, notes = ?, sequence = ?, reader = ? WHERE row_id = ?",
        (new.content_hash, new.stat, new.root, *facts, notes, sequence, reader, row_id),
    )
    return row_id


def read_records(db: Database, row_ids: Sequence[int]) -> dict[int, ObjectRecord]:
    """Objects by row id; unknown row ids are left out."""
    labels = label_names(db)
    chosen = "".join(f", m.{quoted(name)}" for name in labels)
    found = {}
    for start in range(0, len(row_ids), _BATCH):
        some = [int(n) for n in row_ids[start : start + _BATCH]]
        for row in db.all(
            "SELECT o.row_id, o.id, o.path, o.content_hash, o.format, o.faces, o.vertices, o.textured, o.up, o.notes"
            f"{chosen} FROM objects o JOIN metadata m USING (row_id) WHERE o.row_id IN ({','.join('?' * len(some))})",
            some,
        ):
            facts = dict(zip(_FACTS, row[4:9], strict=True))
            facts["textured"] = None if facts["textured"] is None else bool(facts["textured"])
            metadata = {k: v for k, v in zip(labels, row[10:], strict=True) if v is not None}
            notes = tuple(json.loads(row[9])) if row[9] != "[]" else ()  # few objects have notes
            found[row[0]] = ObjectRecord(row[0], row[1], row[2], row[3], facts, notes, metadata)
    return found


def read_whole(db: Database, row_id: int, view_shape: tuple[int, ...]) -> NewObject:
    """Everything stored for one object, ready for another store; `view_shape` is (S, V, D)."""
    record = read_records(db, [row_id])[row_id]
    views, mask = blobs.views_of(db, row_id)
    stat, root, reader = db.one("SELECT stat, root, reader FROM objects WHERE row_id = ?", (row_id,))
    return NewObject(
        id=record.id,
        path=record.path,
        content_hash=record.content_hash,
        stat=stat,
        facts={**record.facts, "reader": reader},
        notes=record.notes,
        vector=blobs.vector_of(db, row_id),
        view_vectors=views.reshape(view_shape).astype(np.float16),
        view_mask=mask,
        strip=blobs.strip_of(db, row_id) or b"",
        root=root,
    )
