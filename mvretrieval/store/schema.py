"""The database file of a collection: its tables, and how it is created and opened.

Tables: objects (ids, paths, facts), metadata (one typed column `label:NAME` per label), vectors (object vectors, float32), views
(raw view vectors, float16), thumbnails, failures, deleted, runs, meta; with database-side augmentation also augmented (see
`store.augmented`). Blobs are kept apart from the objects: a scan of the metadata through inline blobs is ten times slower.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from mvretrieval.errors import CollectionError
from mvretrieval.store.database import Database, translated_errors
from mvretrieval.store.migrations import VERSION, migrate

FILE = "collection.sqlite"
PART = f"{FILE}.part"
_IMMUTABLE = "mode=ro&immutable=1"
_APPLICATION_ID = 0x6D767231  # "mvr1"

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE objects (
    row_id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never reused, so that an index can refer to it
    id TEXT NOT NULL UNIQUE,
    path TEXT NOT NULL UNIQUE,
    content_hash TEXT NOT NULL,
    stat TEXT NOT NULL,
    root TEXT NOT NULL,  -- folder that the file's references may not leave
    format TEXT, faces INTEGER, vertices INTEGER, textured INTEGER, up TEXT,
    notes TEXT NOT NULL,
    sequence INTEGER NOT NULL,  -- of the last change
    reader INTEGER NOT NULL DEFAULT 1  -- version of the reader that the file was loaded with
);
CREATE INDEX objects_by_content ON objects (content_hash);
CREATE INDEX objects_by_sequence ON objects (sequence);
CREATE TABLE metadata (row_id INTEGER PRIMARY KEY REFERENCES objects ON DELETE CASCADE);
CREATE TABLE vectors (row_id INTEGER PRIMARY KEY REFERENCES objects ON DELETE CASCADE, vector BLOB NOT NULL);
CREATE TABLE views (
    row_id INTEGER PRIMARY KEY REFERENCES objects ON DELETE CASCADE, mask BLOB NOT NULL, vectors BLOB NOT NULL
);
CREATE TABLE thumbnails (row_id INTEGER PRIMARY KEY REFERENCES objects ON DELETE CASCADE, strip BLOB NOT NULL);
CREATE TABLE failures (path TEXT PRIMARY KEY, code TEXT NOT NULL, message TEXT NOT NULL, stat TEXT NOT NULL);
CREATE TABLE deleted (row_id INTEGER PRIMARY KEY, sequence INTEGER NOT NULL);
CREATE INDEX deleted_by_sequence ON deleted (sequence);
CREATE TABLE runs (started TEXT NOT NULL, configuration TEXT NOT NULL);
"""


def make_file(folder: Path, meta: Mapping[str, Any]) -> None:
    """Create the database of a new collection, with all of `meta`; a kill in between leaves no file of that name.

    Raises:
        CollectionError: there is one already, or the folder cannot be written.
    """
    path, part = folder / FILE, folder / PART
    if path.exists():
        raise CollectionError(
            f"{folder} already holds a collection: open it, or name a new folder", code="collection_exists"
        )
    with translated_errors(folder):
        for left in folder.glob(f"{PART}*"):
            left.unlink()
        with closing(sqlite3.connect(part, isolation_level=None)) as db:
            db.executescript(f"{_SCHEMA} PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {VERSION};")
            db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            db.execute("PRAGMA journal_mode = WAL")
        os.replace(part, path)  # noqa: PTH105


def open_file(folder: Path) -> Database:
    """Open the database of a collection; one of an earlier version is migrated first (see `store.migrations`).

    Raises:
        CollectionError: there is none, it is damaged, of a later version, or it cannot be migrated.
    """
    path = folder / FILE
    try:
        is_there = path.is_file()
    except PermissionError as error:
        raise CollectionError(
            f"{folder} may not be entered by this user: change its owner or mode", code="no_permission"
        ) from error
    if not is_there:
        left = sorted(p.name for p in folder.glob("index-*")) if folder.is_dir() else []
        if left:
            raise database_lost(folder, left)
        raise CollectionError(
            f"{folder} is not a collection: make one with 'mvr index {folder} MESH_FOLDER'", code="not_a_collection"
        )
    with translated_errors(folder):
        how = _read_only(path)
        connection = _connect(path, how)
        try:
            version = _checked_version(folder, connection)
            if version < VERSION:
                connection.close()
                migrate(folder, path, version, writable=how is None)
                connection = _connect(path, how)
            return Database(path, connection, immutable=how == _IMMUTABLE)
        except BaseException:
            connection.close()
            raise


def _connect(path: Path, how: str | None) -> sqlite3.Connection:
    source: str | Path = path if how is None else f"{path.absolute().as_uri()}?{how}"
    return sqlite3.connect(source, check_same_thread=False, isolation_level=None, uri=how is not None)


def _read_only(path: Path) -> str | None:
    """How SQLite opens a file that may only be read; None where it may be written.

    Readers write as well, to a file beside the database that coordinates them. If a process with write permission has made that
    file, it can be used; if there is none, no process is writing.
    """
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return None
    return "mode=ro" if path.with_name(f"{path.name}-shm").exists() else _IMMUTABLE


def database_lost(folder: Path, left: Sequence[str]) -> CollectionError:
    """The error for a folder in which only derived files are `left`."""
    return CollectionError(
        f"{folder} has no {FILE} any more; the remaining files ({', '.join(left[:3])}) were derived from it. "
        f"Delete the folder and run 'mvr index {folder} MESH_FOLDER' again",
        code="database_lost",
    )


def _checked_version(folder: Path, connection: sqlite3.Connection) -> int:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if n_tables == 0:
        raise CollectionError(
            f"{folder / FILE} is empty, half deleted or half copied: restore it from a backup, "
            f"or delete the folder and run 'mvr index {folder} MESH_FOLDER' again",
            code="collection_damaged",
        )
    if application != _APPLICATION_ID:
        raise CollectionError(
            f"{folder / FILE} is not the database of a collection: check the folder", code="not_a_collection"
        )
    if version > VERSION:
        raise CollectionError(
            f"{folder} has format version {version}, this release reads versions up to {VERSION}: "
            "install the release that made it, or index the meshes into a new collection",
            code="newer_format",
        )
    connection.execute("SELECT count(*) FROM meta").fetchone()
    return int(version)
