"""The truth of a collection: one SQLite file in WAL mode. Everything else is derived from it.

Tables: objects (who and where), metadata (one typed column `label:NAME` per label), vectors (object vectors, float32), views (view
vectors, float16, raw), thumbnails, failures, deleted, runs, meta. Blobs stand apart from the objects: read through
inline blobs, a scan of the metadata is an order of magnitude slower.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.collection.where import Condition, parse_where
from mvretrieval.errors import CollectionError, LabelsError

VERSION = 1
FILE = "collection.sqlite"
PART = f"{FILE}.part"
_PREFIX = "label:"
_APPLICATION_ID = 0x6D767231  # "mvr1"

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE objects (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice, so that an index can refer to it
    id TEXT NOT NULL UNIQUE,
    path TEXT NOT NULL UNIQUE,
    content_hash TEXT NOT NULL,
    stat TEXT NOT NULL,
    root TEXT NOT NULL,  -- folder that the file's references may not leave
    format TEXT, faces INTEGER, vertices INTEGER, textured INTEGER, up TEXT,
    notes TEXT NOT NULL,
    change INTEGER NOT NULL
);
CREATE INDEX objects_by_content ON objects (content_hash);
CREATE INDEX objects_by_change ON objects (change);
CREATE TABLE metadata (number INTEGER PRIMARY KEY REFERENCES objects ON DELETE CASCADE);
CREATE TABLE vectors (number INTEGER PRIMARY KEY REFERENCES objects ON DELETE CASCADE, vector BLOB NOT NULL);
CREATE TABLE views (
    number INTEGER PRIMARY KEY REFERENCES objects ON DELETE CASCADE, mask BLOB NOT NULL, vectors BLOB NOT NULL
);
CREATE TABLE thumbnails (number INTEGER PRIMARY KEY REFERENCES objects ON DELETE CASCADE, strip BLOB NOT NULL);
CREATE TABLE failures (path TEXT PRIMARY KEY, code TEXT NOT NULL, message TEXT NOT NULL, stat TEXT NOT NULL);
CREATE TABLE deleted (number INTEGER PRIMARY KEY, change INTEGER NOT NULL);
CREATE INDEX deleted_by_change ON deleted (change);
CREATE TABLE runs (started TEXT NOT NULL, configuration TEXT NOT NULL);
"""
_FACTS = ("id", "path", "format", "faces", "vertices", "textured", "up")


@dataclass(frozen=True)
class ObjectRecord:
    """One object of a collection.

    Attributes:
        number: internal, never reused.
        id: stable name.
        path: its file.
        content_hash: of all that its looks depend on.
        facts: format, faces, vertices, textured, up.
        notes: what was left out while loading.
        metadata: labels.
    """

    number: int
    id: str
    path: str
    content_hash: str
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NewObject:
    """What is written for one object."""

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
    smoothed: NDArray[np.float32] | None = None  # (D,) where the collection is (see `collection.smoothed`)


class Store:
    """SQL behind a collection. One instance may be used from several threads; calls are serialised."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Use `Store.create` or `Store.open`."""
        self.path = path
        self._db = connection
        self._lock = threading.RLock()
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA busy_timeout = 10000")

    @classmethod
    def create(cls, folder: Path, meta: Mapping[str, Any] | None = None) -> Store:
        """Make the file of a new collection, with all of `meta` in it or, after a kill, not at all.

        Raises:
            CollectionError: there is one, or the folder cannot be written.
        """
        path, part = folder / FILE, folder / PART
        if path.exists():
            raise CollectionError(f"{folder} has a collection already: open it, or name a new folder")
        with _explained(folder):
            for left in folder.glob(f"{PART}*"):
                left.unlink()
            with closing(sqlite3.connect(part, isolation_level=None)) as db:
                db.executescript(
                    f"{_SCHEMA} PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {VERSION};"
                )
                db.executemany("INSERT INTO meta VALUES (?, ?)", (meta or {}).items())
                db.execute("PRAGMA journal_mode = WAL")
            os.replace(part, path)  # noqa: PTH105
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open the file of a collection.

        Raises:
            CollectionError: there is none, it is damaged, or of another version.
        """
        path = folder / FILE
        if not path.is_file():
            left = sorted(p.name for p in folder.glob("index-*")) if folder.is_dir() else []
            if left:
                raise CollectionError(
                    f"{folder} lost its {FILE}; what is left ({', '.join(left[:3])}) was derived from it. "
                    f"Delete the folder and run 'mvr index {folder} FOLDER' again"
                )
            raise CollectionError(f"{folder} is no collection: make one with 'mvr index {folder} FOLDER'")
        with _explained(folder):
            db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            try:
                _check_version(folder, db)
                return cls(path, db)
            except BaseException:
                db.close()
                raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. A full disk or a kill leaves what was there before."""
        with self._lock, _explained(self.path.parent):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # SQLite rolls back by itself on some errors
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read inside is one state, whatever other processes write meanwhile."""
        with self._lock, _explained(self.path.parent):
            if self._db.in_transaction:
                yield
                return
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    # -- meta ---------------------------------------------------------------------------------------------------------

    def get_meta(self, key: str, default: Any = None) -> Any:
        """Value under `key`."""
        row = self._one("SELECT value FROM meta WHERE key = ?", (key,))
        return default if row is None else row[0]

    def set_meta(self, key: str, value: Any) -> None:
        """Set a value (text, number or bytes)."""
        self._run("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def next_change(self) -> int:
        """Number of a new change, to be called in a transaction."""
        change = int(self.get_meta("change", 0)) + 1
        self.set_meta("change", change)
        return change

    def add_run(self, started: str, configuration: Mapping[str, Any]) -> None:
        """Remember what a command was asked for, and with which versions."""
        self._run("INSERT INTO runs VALUES (?, ?)", (started, json.dumps(configuration, default=str)))

    # -- objects ------------------------------------------------------------------------------------------------------

    def put(self, new: NewObject, change: int) -> int:
        """Add an object, or replace the one at its path; its id and number then stay."""
        facts = [new.facts.get(name) for name in ("format", "faces", "vertices", "textured", "up")]
        notes = json.dumps(list(new.notes))
        row = self._one("SELECT number FROM objects WHERE path = ?", (new.path,))
        if row is None:
            cursor = self._run(
                "INSERT INTO objects"
                " (id, path, content_hash, stat, root, format, faces, vertices, textured, up, notes, change)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (new.id, new.path, new.content_hash, new.stat, new.root, *facts, notes, change),
            )
            number = int(cursor.lastrowid or 0)
            self._run("INSERT INTO metadata (number) VALUES (?)", (number,))
        else:
            number = int(row[0])
            self._run(
                "UPDATE objects SET content_hash = ?, stat = ?, root = ?, format = ?, faces = ?, vertices = ?, textured = ?,"
                " up = ?, notes = ?, change = ? WHERE number = ?",
                (new.content_hash, new.stat, new.root, *facts, notes, change, number),
            )
        self.put_vector(number, new.vector)
        if new.smoothed is not None:
            self._run(
                "INSERT OR REPLACE INTO smoothed (number, change, vector) VALUES (?, ?, ?)",
                (number, change, np.asarray(new.smoothed, "<f4").tobytes()),
            )
        self._run(
            "INSERT OR REPLACE INTO views VALUES (?, ?, ?)",
            (number, new.view_mask.astype(np.uint8).tobytes(), np.asarray(new.view_vectors, "<f2").tobytes()),
        )
        if new.strip:
            self._run("INSERT OR REPLACE INTO thumbnails VALUES (?, ?)", (number, new.strip))
        self._run("DELETE FROM failures WHERE path = ?", (new.path,))
        return number

    def put_vector(self, number: int, vector: NDArray[np.float32]) -> None:
        """Set an object's vector alone."""
        self._run("INSERT OR REPLACE INTO vectors VALUES (?, ?)", (number, np.asarray(vector, "<f4").tobytes()))

    def touch_all(self, change: int) -> None:
        """Mark every object as changed."""
        self._run("UPDATE objects SET change = ?", (change,))

    def move(self, number: int, path: str, stat: str, root: str) -> None:
        """Give an object a new path."""
        self._run("UPDATE objects SET path = ?, stat = ?, root = ? WHERE number = ?", (path, stat, root, number))
        self._run("DELETE FROM failures WHERE path = ?", (path,))

    def set_stat(self, number: int, stat: str) -> None:
        """Remember size and time of an object's files."""
        self._run("UPDATE objects SET stat = ? WHERE number = ?", (stat, number))

    def delete(self, ids: Sequence[str], change: int) -> int:
        """Remove objects; returns how many there were."""
        count = 0
        for object_id in ids:
            row = self._one("SELECT number FROM objects WHERE id = ?", (object_id,))
            if row is not None:
                self._run("DELETE FROM objects WHERE number = ?", (row[0],))
                self._run("INSERT OR REPLACE INTO deleted VALUES (?, ?)", (row[0], change))
                count += 1
        return count

    def put_failure(self, path: str, code: str, message: str, stat: str) -> None:
        """Remember that a file could not be indexed."""
        self._run("INSERT OR REPLACE INTO failures VALUES (?, ?, ?, ?)", (path, code, message, stat))

    def drop_failures(self, paths: Iterable[str]) -> None:
        """Forget failures of files that are gone."""
        for path in paths:
            self._run("DELETE FROM failures WHERE path = ?", (path,))

    def set_metadata(self, number: int, values: Mapping[str, Any]) -> bool:
        """Set labels of an object; columns are made as needed. Tells whether anything changed.

        Raises:
            LabelsError: a value is neither text nor a number.
        """
        if not values:
            return False
        plain = {name: _plain(name, value) for name, value in values.items()}
        known = {_lower(name) for name in self.metadata_columns()}
        for name in plain:
            if _lower(name) not in known:
                self._run(f"ALTER TABLE metadata ADD COLUMN {_label(name)}")
        row = self._one(f"SELECT {', '.join(map(_label, plain))} FROM metadata WHERE number = ?", (number,))
        if row is not None and [(type(v), v) for v in row] == [(type(v), v) for v in plain.values()]:
            return False
        assignments = ", ".join(f"{_label(name)} = ?" for name in plain)
        self._run(f"UPDATE metadata SET {assignments} WHERE number = ?", (*plain.values(), number))
        return True

    def metadata_columns(self) -> list[str]:
        """Names of the labels."""
        return [row[1].removeprefix(_PREFIX) for row in self._all("PRAGMA table_info(metadata)") if row[1] != "number"]

    # -- reading ------------------------------------------------------------------------------------------------------

    def count(self) -> int:
        """Number of objects."""
        return int(self._all("SELECT count(*) FROM objects")[0][0])

    def by_path(self, path: str) -> tuple[int, str, str, str] | None:
        """(number, content hash, stat, up) of the object at `path`."""
        row: tuple[int, str, str, str] | None = self._one(
            "SELECT number, content_hash, stat, up FROM objects WHERE path = ?", (path,)
        )
        return row

    def by_content(self, content_hash: str) -> list[tuple[int, str]]:
        """(number, path) of the objects with that content."""
        return self._all("SELECT number, path FROM objects WHERE content_hash = ? ORDER BY number", (content_hash,))

    def failure(self, path: str) -> tuple[str, str] | None:
        """(code, stat) of the failure at `path`."""
        row: tuple[str, str] | None = self._one("SELECT code, stat FROM failures WHERE path = ?", (path,))
        return row

    def failures(self) -> list[tuple[str, str, str]]:
        """(path, code, message) of all failures, by code."""
        return self._all("SELECT path, code, message FROM failures ORDER BY code, path")

    def free_id(self, wanted: str) -> str:
        """`wanted`, or with ~2, ~3, ... where another object has it."""
        candidate, n = wanted, 1
        while self._one("SELECT 1 FROM objects WHERE id = ?", (candidate,)):
            n += 1
            candidate = f"{wanted}~{n}"
        return candidate

    def number_of(self, object_id: str) -> int | None:
        """Number of the object called `object_id`."""
        row = self._one("SELECT number FROM objects WHERE id = ?", (object_id,))
        return None if row is None else int(row[0])

    def some_ids(self, limit: int = 2000) -> list[str]:
        """Some ids, for suggestions."""
        return [row[0] for row in self._all("SELECT id FROM objects LIMIT ?", (limit,))]

    def records(self, numbers: Sequence[int]) -> dict[int, ObjectRecord]:
        """Objects by number."""
        labels = self.metadata_columns()
        chosen = "".join(f", m.{_label(name)}" for name in labels)
        found = {}
        for start in range(0, len(numbers), 500):
            some = [int(n) for n in numbers[start : start + 500]]
            for row in self._all(
                "SELECT o.number, o.id, o.path, o.content_hash, o.format, o.faces, o.vertices, o.textured, o.up, o.notes"
                f"{chosen} FROM objects o JOIN metadata m USING (number) WHERE o.number IN ({','.join('?' * len(some))})",
                some,
            ):
                facts = dict(zip(("format", "faces", "vertices", "textured", "up"), row[4:9], strict=True))
                metadata = {k: v for k, v in zip(labels, row[10:], strict=True) if v is not None}
                found[row[0]] = ObjectRecord(row[0], row[1], row[2], row[3], facts, tuple(json.loads(row[9])), metadata)
        return found

    def select(self, where: str | None) -> NDArray[np.int64]:
        """Numbers of the objects that an expression keeps, in order; all without one.

        Raises:
            FilterError: the expression cannot be understood.
        """
        condition = Condition("1", ()) if not where else parse_where(where, self.columns())
        rows = self._all(
            f"SELECT o.number FROM objects o JOIN metadata m USING (number) WHERE {condition.sql} ORDER BY o.number",
            condition.parameters,
        )
        return np.fromiter((row[0] for row in rows), np.int64, len(rows))

    def columns(self) -> dict[str, str]:
        """What `--where` may name: labels, and the objects' own facts where no label hides them."""
        facts = {name: f"o.{name}" for name in _FACTS}
        return facts | {name: f"m.{_label(name)}" for name in self.metadata_columns()}

    def column_values(self, column: str, numbers: Sequence[int]) -> list[Any]:
        """One label of several objects, in the order of `numbers`."""
        sql = self.columns()[column]
        rows = self._all(f"SELECT o.number, {sql} FROM objects o JOIN metadata m USING (number)")
        values = dict(rows)
        return [values.get(int(n)) for n in numbers]

    def views_of(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Raw view vectors (S * V * D,) flat and mask (V,) of one object."""
        row = self._one("SELECT vectors, mask FROM views WHERE number = ?", (number,))
        if row is None:
            raise CollectionError(f"object {number} has no views; index its file again")
        return np.frombuffer(row[0], "<f2").astype(np.float32), np.frombuffer(row[1], np.uint8).astype(bool)

    def vector_of(self, number: int) -> NDArray[np.float32]:
        """(D,) vector of one object."""
        row = self._one("SELECT vector FROM vectors WHERE number = ?", (number,))
        if row is None:
            raise CollectionError(f"object {number} has no vector; index its file again")
        return np.frombuffer(row[0], "<f4")

    def root_of(self, number: int) -> str:
        """Folder that the references of an object's file may not leave."""
        row = self._one("SELECT root FROM objects WHERE number = ?", (number,))
        return "" if row is None else str(row[0])

    def whole(self, number: int, view_shape: tuple[int, ...]) -> NewObject:
        """Everything about one object, ready to be put into another store; `view_shape` is (S, V, D)."""
        record = self.records([number])[number]
        views, mask = self.views_of(number)
        stat, root = self._one("SELECT stat, root FROM objects WHERE number = ?", (number,))
        return NewObject(
            id=record.id,
            path=record.path,
            content_hash=record.content_hash,
            stat=stat,
            facts=record.facts,
            notes=record.notes,
            vector=self.vector_of(number),
            view_vectors=views.reshape(view_shape).astype(np.float16),
            view_mask=mask,
            strip=self.strip_of(number) or b"",
            root=root,
        )

    def strip_of(self, number: int) -> bytes | None:
        """WebP strip of an object's views."""
        row = self._one("SELECT strip FROM thumbnails WHERE number = ?", (number,))
        return None if row is None else bytes(row[0])

    def vectors_since(self, change: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Numbers (n,) and vectors (n, D) of the objects changed after `change`, in parts."""
        last = -1
        while True:
            rows = self._all(
                "SELECT number, vector FROM objects JOIN vectors USING (number)"
                " WHERE change > ? AND number > ? ORDER BY number LIMIT 8192",
                (change, last),
            )
            if not rows:
                return
            last = rows[-1][0]
            yield (
                np.fromiter((row[0] for row in rows), np.int64, len(rows)),
                np.frombuffer(b"".join(row[1] for row in rows), "<f4").reshape(len(rows), -1),
            )

    def deleted_since(self, change: int) -> list[int]:
        """Numbers of the objects removed after `change`."""
        return [row[0] for row in self._all("SELECT number FROM deleted WHERE change > ?", (change,))]

    def paths_under(self, folder: str) -> Iterator[tuple[str, str]]:
        """(id, path) of the objects whose files lie in `folder`."""
        prefix = folder.rstrip("/") + "/"
        yield from self._all("SELECT id, path FROM objects WHERE substr(path, 1, ?) = ?", (len(prefix), prefix))

    def failed_paths_under(self, folder: str) -> list[str]:
        """Paths of failures in `folder`, and of itself."""
        prefix = folder.rstrip("/") + "/"
        rows = self._all(
            "SELECT path FROM failures WHERE substr(path, 1, ?) = ? OR path = ?", (len(prefix), prefix, folder)
        )
        return [row[0] for row in rows]

    # -- plumbing -----------------------------------------------------------------------------------------------------

    def _run(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        with self._lock, _explained(self.path.parent):
            return self._db.execute(sql, parameters)

    def _all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        with self._lock, _explained(self.path.parent):
            return self._db.execute(sql, parameters).fetchall()

    def _one(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        with self._lock, _explained(self.path.parent):
            return self._db.execute(sql, parameters).fetchone()


def _check_version(folder: Path, db: sqlite3.Connection) -> None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (n_tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if n_tables == 0:
        raise CollectionError(
            f"{folder / FILE} is empty, half deleted or half copied: restore it from a copy, "
            f"or delete the folder and run 'mvr index {folder} FOLDER' again"
        )
    if application != _APPLICATION_ID:
        raise CollectionError(f"{folder / FILE} is not a collection's database; is the folder right?")
    if version != VERSION:
        raise CollectionError(
            f"{folder} has version {version}, this mvretrieval reads {VERSION}: "
            "use the release that made it, or index the meshes into a new collection"
        )
    db.execute("SELECT count(*) FROM meta").fetchone()


def _label(name: str) -> str:
    """Column of a label, quoted. The prefix keeps a label called `number` from meaning the key."""
    return '"' + (_PREFIX + name).replace('"', '""') + '"'


def _lower(name: str) -> str:
    """As SQLite compares the names of columns."""
    return "".join(c.lower() if c.isascii() else c for c in name)


def _plain(name: str, value: Any) -> str | int | float | None:
    """A label's value as SQLite stores it."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool):
        return int(value)
    fits = not isinstance(value, int) or -(1 << 63) <= value < 1 << 63
    if not (value is None or isinstance(value, str | int | float)) or not fits or not name or "\0" in name:
        raise LabelsError(f"label '{name}' cannot be {str(value)[:50]} ({type(value).__name__}): text and numbers can be stored")
    return None if isinstance(value, float) and math.isnan(value) else value


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """SQLite's errors as ours, with the next step."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "disk is full" in text or "disk I/O" in text:
            raise CollectionError(
                f"the disk of {folder} is full or failing ({text}). All objects reported as added are safe; "
                "free some space and run the same command again"
            ) from error
        if "readonly" in text or "unable to open" in text:
            raise CollectionError(f"{folder} cannot be written ({text}): check its owner and mode") from error
        if "locked" in text:
            raise CollectionError(f"{folder} is locked by another program ({text}); try again when it is done") from error
        raise CollectionError(f"{folder} cannot be used ({text}); it may be damaged or half deleted") from error
    except UnicodeEncodeError as error:
        raise CollectionError(f"{error.object!r} is not valid UTF-8, and no object of {folder} is called so") from error
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.IntegrityError):
            raise
        raise CollectionError(
            f"{folder} is damaged ({error}): restore it from a copy, or delete it and index the meshes again"
        ) from error
