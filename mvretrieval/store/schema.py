"""The file of a collection: its tables, its version, and how it is made and opened.

Tables: objects (who and where), metadata (one typed column `label:NAME` per label), vectors (object vectors, float32), views (view
vectors, float16, raw), thumbnails, failures, deleted, runs, meta; where smoothing is on, smoothed (see `store.augmented`).
Blobs stand apart from the objects: read through inline blobs, a scan of the metadata is an order of magnitude slower.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from mvretrieval.errors import CollectionError
from mvretrieval.store.database import Database, explained

VERSION = 1
FILE = "collection.sqlite"
PART = f"{FILE}.part"
_UNCHANGING = "mode=ro&immutable=1"
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


def make_file(folder: Path, meta: Mapping[str, Any]) -> None:
    """Make the file of a new collection, with all of `meta` in it or, after a kill, not at all.

    Raises:
        CollectionError: there is one, or the folder cannot be written.
    """
    path, part = folder / FILE, folder / PART
    if path.exists():
        raise CollectionError(f"{folder} has a collection already: open it, or name a new folder")
    with explained(folder):
        for left in folder.glob(f"{PART}*"):
            left.unlink()
        with closing(sqlite3.connect(part, isolation_level=None)) as db:
            db.executescript(f"{_SCHEMA} PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {VERSION};")
            db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            db.execute("PRAGMA journal_mode = WAL")
        os.replace(part, path)  # noqa: PTH105


def open_file(folder: Path) -> Database:
    """Open the file of a collection.

    Raises:
        CollectionError: there is none, it is damaged, or of another version.
    """
    path = folder / FILE
    if not path.is_file():
        left = sorted(p.name for p in folder.glob("index-*")) if folder.is_dir() else []
        if left:
            raise lost(folder, left)
        raise CollectionError(f"{folder} is no collection: make one with 'mvr index {folder} FOLDER'")
    with explained(folder):
        how = _read_only(path)
        source: str | Path = path if how is None else f"{path.absolute().as_uri()}?{how}"
        connection = sqlite3.connect(source, check_same_thread=False, isolation_level=None, uri=how is not None)
        try:
            _check_version(folder, connection)
            return Database(path, connection, unwatched=how == _UNCHANGING)
        except BaseException:
            connection.close()
            raise


def _read_only(path: Path) -> str | None:
    """How SQLite opens a file that may only be read; None where it may be written.

    Readers write too, into a file beside it that tells who reads what. Where somebody who may write has made one, it can be
    used; where there is none, nobody writes now.
    """
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return None
    return "mode=ro" if path.with_name(f"{path.name}-shm").exists() else _UNCHANGING


def lost(folder: Path, left: Sequence[str]) -> CollectionError:
    """What to say where only derived files are `left` of a collection."""
    return CollectionError(
        f"{folder} lost its {FILE}; what is left ({', '.join(left[:3])}) was derived from it. "
        f"Delete the folder and run 'mvr index {folder} FOLDER' again"
    )


def _check_version(folder: Path, connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
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
    connection.execute("SELECT count(*) FROM meta").fetchone()
