"""The truth of a collection: one SQLite file in WAL mode. Everything else is derived from it.

Other modules: the file and its tables in `schema`, one object in `records`, its arrays in `blobs`, labels and filters in
`label_columns`, transactions and errors in `database`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import CollectionError
from mvretrieval.store import blobs, label_columns
from mvretrieval.store.database import Database
from mvretrieval.store.migrations import VERSION
from mvretrieval.store.records import NewObject, ObjectRecord, put_object, read_records, read_whole
from mvretrieval.store.schema import FILE, make_file, open_file

__all__ = ["FILE", "VERSION", "NewObject", "ObjectRecord", "Store"]

_Value = TypeVar("_Value")


class Store:
    """SQL behind a collection. One instance may be used from several threads; calls are serialised."""

    def __init__(self, db: Database) -> None:
        """Use `Store.create` or `Store.open`."""
        self.db = db

    @classmethod
    def create(cls, folder: Path, meta: Mapping[str, Any] | None = None) -> Store:
        """Create the database of a new collection, with all of `meta`; a kill in between leaves no file of that name.

        Raises:
            CollectionError: the folder holds a collection already, or cannot be written.
        """
        make_file(folder, meta or {})
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open the database of a collection.

        Raises:
            CollectionError: it is missing, damaged, or of another version.
        """
        return cls(open_file(folder))

    @property
    def path(self) -> Path:
        """The database file."""
        return self.db.path

    def close(self) -> None:
        """Close the database."""
        self.db.close()

    def transaction(self) -> AbstractContextManager[None]:
        """Commit everything inside or nothing. A full disk or a kill leaves the earlier state."""
        return self.db.transaction()

    def snapshot(self) -> AbstractContextManager[None]:
        """Read one state inside, whatever other processes write meanwhile."""
        return self.db.snapshot()

    # -- meta ---------------------------------------------------------------------------------------------------------

    def read_meta(self, key: str, parse: Callable[[str], _Value]) -> _Value | None:
        """What `parse` makes of the text under `key`; None if there is none.

        Raises:
            CollectionError: the text cannot be parsed (code `collection_damaged`).
        """
        text = self.get_meta(key)
        try:
            return None if text is None else parse(text)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CollectionError(
                f"{self.path.parent} is damaged (its record '{key}' cannot be read): restore it from a backup",
                code="collection_damaged",
            ) from error

    def get_meta(self, key: str, default: Any = None) -> Any:
        """Value under `key`."""
        row = self.db.cached_one("SELECT value FROM meta WHERE key = ?", key)
        return default if row is None else row[0]

    def set_meta(self, key: str, value: Any) -> None:
        """Set a value (text, number or bytes)."""
        self.db.run("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @property
    def generation(self) -> int:
        """Version of the vector space: object vectors of different generations are not comparable."""
        return int(self.get_meta("generation", 0))

    def next_generation(self) -> int:
        """Start a new vector space, inside a transaction."""
        generation = self.generation + 1
        self.set_meta("generation", generation)
        return generation

    @property
    def sequence(self) -> int:
        """Sequence number of the last change to an object."""
        return int(self.get_meta("sequence", 0))

    def next_sequence(self) -> int:
        """Sequence number of a new change, inside a transaction."""
        sequence = self.sequence + 1
        self.set_meta("sequence", sequence)
        return sequence

    def add_run(self, started: str, configuration: Mapping[str, Any]) -> None:
        """Record the configuration and package versions of a command."""
        self.db.run("INSERT INTO runs VALUES (?, ?)", (started, json.dumps(configuration, default=str)))

    # -- objects ------------------------------------------------------------------------------------------------------

    def put(self, new: NewObject, sequence: int) -> int:
        """Add an object, or replace the one at its path, which keeps its id and row id. Returns the row id."""
        return put_object(self.db, new, sequence)

    def put_vector(self, row_id: int, vector: NDArray[np.float32]) -> None:
        """Set an object's vector (D,) alone."""
        blobs.put_vector(self.db, row_id, vector)

    def bump_all(self, sequence: int) -> None:
        """Mark every object as changed."""
        self.db.run("UPDATE objects SET sequence = ?", (sequence,))

    def move(self, row_id: int, path: str, stat: str, root: str) -> None:
        """Give an object a new path."""
        self.db.run("UPDATE objects SET path = ?, stat = ?, root = ? WHERE row_id = ?", (path, stat, root, row_id))
        self.drop_failures([path])

    def set_stat(self, row_id: int, stat: str) -> None:
        """Record size and time of an object's files."""
        self.db.run("UPDATE objects SET stat = ? WHERE row_id = ?", (stat, row_id))

    def delete(self, ids: Sequence[str], sequence: int) -> int:
        """Remove objects; returns how many existed."""
        count = 0
        for object_id in ids:
            row_id = self.row_id_of(object_id)
            if row_id is not None:
                self.db.run("DELETE FROM objects WHERE row_id = ?", (row_id,))
                self.db.run("INSERT OR REPLACE INTO deleted VALUES (?, ?)", (row_id, sequence))
                count += 1
        return count

    def deleted_since(self, sequence: int) -> list[int]:
        """Row ids of the objects removed after `sequence`."""
        return [row[0] for row in self.db.all("SELECT row_id FROM deleted WHERE sequence > ?", (sequence,))]

    def count(self) -> int:
        """Number of objects."""
        return int(self.db.one("SELECT count(*) FROM objects")[0])

    def count_of_format(self, name: str) -> int:
        """Number of objects whose files have that format."""
        return int(self.db.one("SELECT count(*) FROM objects WHERE format = ?", (name,))[0])

    def stat_of(self, row_id: int) -> str:
        """Size and time of an object's files, as `set_stat` recorded them."""
        return str(self.db.one("SELECT stat FROM objects WHERE row_id = ?", (row_id,))[0])

    def records(self, row_ids: Sequence[int]) -> dict[int, ObjectRecord]:
        """Objects by row id; unknown row ids are left out."""
        return read_records(self.db, row_ids)

    def whole(self, row_id: int, view_shape: tuple[int, ...]) -> NewObject:
        """Everything stored for one object, ready for another store; `view_shape` is (S, V, D)."""
        return read_whole(self.db, row_id, view_shape)

    def by_path(self, path: str) -> tuple[int, str, str, str] | None:
        """(row_id, content hash, stat, up) of the object at `path`."""
        row: tuple[int, str, str, str] | None = self.db.one(
            "SELECT row_id, content_hash, stat, up FROM objects WHERE path = ?", (path,)
        )
        return row

    def by_content(self, content_hash: str) -> list[tuple[int, str]]:
        """(row_id, path) of the objects with that content."""
        return self.db.all("SELECT row_id, path FROM objects WHERE content_hash = ? ORDER BY row_id", (content_hash,))

    def paths_under(self, folder: str) -> Iterator[tuple[str, str]]:
        """(id, path) of the objects whose files are in `folder` or below."""
        prefix = folder.rstrip("/") + "/"
        yield from self.db.all("SELECT id, path FROM objects WHERE substr(path, 1, ?) = ?", (len(prefix), prefix))

    def paths_with(self, part: str) -> list[tuple[int, str]]:
        """(row_id, path) of the objects whose path contains `part`."""
        return self.db.all("SELECT row_id, path FROM objects WHERE instr(path, ?) > 0", (part,))

    def paths_of_root(self, root: str) -> Iterator[tuple[str, str]]:
        """(id, path) of the objects that were indexed from `root`."""
        yield from self.db.all("SELECT id, path FROM objects WHERE root = ?", (root,))

    def root_of(self, row_id: int) -> str:
        """Folder that the references of an object's file may not leave."""
        row = self.db.one("SELECT root FROM objects WHERE row_id = ?", (row_id,))
        return "" if row is None else str(row[0])

    def row_id_of(self, object_id: str) -> int | None:
        """Row id of an object; None if no object has this id."""
        row = self.db.one("SELECT row_id FROM objects WHERE id = ?", (object_id,))
        return None if row is None else int(row[0])

    def free_id(self, wanted: str) -> str:
        """`wanted`, or `wanted~2`, `wanted~3`, ... if it is taken."""
        candidate, n = wanted, 1
        while self.row_id_of(candidate) is not None:
            n += 1
            candidate = f"{wanted}~{n}"
        return candidate

    def some_ids(self, limit: int = 2000) -> list[str]:
        """Some ids, for suggestions."""
        return [row[0] for row in self.db.all("SELECT id FROM objects LIMIT ?", (limit,))]

    # -- arrays -------------------------------------------------------------------------------------------------------

    def vector_of(self, row_id: int) -> NDArray[np.float32]:
        """(D,) vector of one object."""
        return blobs.vector_of(self.db, row_id)

    def vectors_since(self, sequence: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Row ids (n,) and vectors (n, D) of the objects changed after `sequence`, in batches."""
        return blobs.vectors_since(self.db, sequence)

    def views_of(self, row_id: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Raw view vectors (S * V * D,) flat and mask (V,) of one object."""
        return blobs.views_of(self.db, row_id)

    def strip_of(self, row_id: int) -> bytes | None:
        """WebP strip of an object's views."""
        return blobs.strip_of(self.db, row_id)

    # -- labels -------------------------------------------------------------------------------------------------------

    def set_metadata(self, row_id: int, values: Mapping[str, Any]) -> bool:
        """Set labels of an object; columns are created as needed. Returns whether anything changed.

        Raises:
            LabelsError: a value is neither text nor a number.
        """
        return label_columns.set_labels(self.db, row_id, values)

    def metadata_columns(self) -> list[str]:
        """Names of the labels."""
        return label_columns.label_names(self.db)

    def columns(self) -> dict[str, str]:
        """SQL of each column that `--where` may name: labels, and facts of the objects that no label shadows."""
        return label_columns.columns(self.db)

    def check_column(self, name: str) -> None:
        """Check that a label or fact exists.

        Raises:
            FilterError: no column has this name.
        """
        label_columns.check_column(self.db, name)

    def column_values(self, column: str, row_ids: Sequence[int]) -> list[Any]:
        """One label or fact of several objects, in the order of `row_ids`."""
        return label_columns.column_values(self.db, column, row_ids)

    def select(self, where: str | None) -> NDArray[np.int64]:
        """Row ids (n,) of the objects that match a filter, in rising order; all without a filter.

        Raises:
            FilterError: the filter cannot be parsed.
        """
        return label_columns.select(self.db, where)

    def row_ids_of_older_readers(self, current: Mapping[str, int]) -> list[int]:
        """Row ids of objects that were loaded with an older reader than `current`, the version by format."""
        rows = self.db.all("SELECT DISTINCT format, reader FROM objects")
        older = [(name, reader) for name, reader in rows if reader < current.get(name, 0)]
        found: list[int] = []
        for name, reader in older:
            rows = self.db.all("SELECT row_id FROM objects WHERE format = ? AND reader = ?", (name, reader))
            found += [int(row[0]) for row in rows]
        return sorted(found)

    # -- failures -----------------------------------------------------------------------------------------------------

    def put_failure(self, path: str, code: str, message: str, stat: str) -> None:
        """Record that a file could not be indexed."""
        self.db.run("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?)", (path, code, message, stat))

    def drop_failures(self, paths: Iterable[str]) -> None:
        """Delete the failures of these files."""
        for path in paths:
            self.db.run("DELETE FROM failures WHERE path = ?", (path,))

    def failure(self, path: str) -> tuple[str, str] | None:
        """(code, stat) of the failure at `path`."""
        row: tuple[str, str] | None = self.db.one("SELECT code, stat FROM failures WHERE path = ?", (path,))
        return row

    def failures(self) -> list[tuple[str, str, str]]:
        """(path, code, message) of all failures, by code."""
        return self.db.all("SELECT path, code, message FROM failures ORDER BY code, path")

    def failed_paths_under(self, folder: str) -> list[str]:
        """Paths of failures at or below `folder`; without objects from a view manifest, whose `stat` begins with its path."""
        prefix = folder.rstrip("/") + "/"
        rows = self.db.all(
            "SELECT path FROM failures WHERE (substr(path, 1, ?) = ? OR path = ?) AND substr(stat, 1, 2) <> '[\"'",
            (len(prefix), prefix, folder),
        )
        return [row[0] for row in rows]

    def failed_paths_by_stat(self, start: str) -> list[str]:
        """Paths of failures whose `stat` begins with `start`."""
        rows = self.db.all("SELECT path FROM failures WHERE substr(stat, 1, ?) = ?", (len(start), start))
        return [row[0] for row in rows]
