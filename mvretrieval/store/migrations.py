"""Format versions of the database, and how one is migrated to the next.

`PRAGMA user_version` holds the version. A migration is a list of SQL statements that runs in one transaction, after the database
was copied beside itself (`collection.sqlite.v1` for version 1); the copy is kept. A later version is refused.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from mvretrieval.errors import CollectionError
from mvretrieval.store.writer_lock import WriterLock

VERSION = 3
_SECONDS_TO_WAIT = 60.0  # for another process that migrates the same collection


def migrate(folder: Path, path: Path, version: int, writable: bool) -> None:
    """Migrate the database at `path` to the current version.

    Raises:
        CollectionError: the folder is read-only, another process is writing, or a statement failed. The database is unchanged then.
    """
    if not writable:
        raise CollectionError(
            f"{folder} has format version {version} and must be migrated to version {VERSION}, but it is read-only here: open "
            "it once as a user who may write to it, for example with 'mvr info'",
            code="needs_migration",
        )
    lock = WriterLock(folder)
    if not _take(lock, path):
        return
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            if _version_of(db) == VERSION:  # another process migrated it and released the lock since `version` was read
                return
            _copy(db, path, version)
            db.execute("PRAGMA foreign_keys = OFF")
            db.execute("BEGIN IMMEDIATE")
            try:
                for step in range(_version_of(db), VERSION):
                    _MIGRATIONS[step](db)
                db.execute(f"PRAGMA user_version = {VERSION}")
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
    finally:
        lock.release()


def _take(lock: WriterLock, path: Path) -> bool:
    """Take the writer lock; False if another process migrated the database meanwhile."""
    end = time.monotonic() + _SECONDS_TO_WAIT
    while True:
        try:
            lock.take()
            return True
        except CollectionError as error:
            if error.code != "collection_locked" or time.monotonic() > end:
                raise
        with closing(sqlite3.connect(path)) as db:
            if _version_of(db) == VERSION:
                return False
        time.sleep(0.05)


def _copy(db: sqlite3.Connection, path: Path, version: int) -> None:
    """Keep a copy of the database as it is, whole or not at all."""
    part = path.with_name(f"{path.name}.v{version}.part")
    part.unlink(missing_ok=True)
    with closing(sqlite3.connect(part)) as copy:
        db.backup(copy)
    os.replace(part, path.with_name(f"{path.name}.v{version}"))  # noqa: PTH105


def _version_of(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _from_1(db: sqlite3.Connection) -> None:
    """Version 2 names rows, changes and database-side augmentation by the terms of the code."""
    tables = ("objects", "metadata", "vectors", "views", "thumbnails", "deleted")
    for table in tables:
        db.execute(f"ALTER TABLE {table} RENAME COLUMN number TO row_id")
    for table in ("objects", "deleted"):
        db.execute(f"ALTER TABLE {table} RENAME COLUMN change TO sequence")
        db.execute(f"DROP INDEX {table}_by_change")
        db.execute(f"CREATE INDEX {table}_by_sequence ON {table} (sequence)")
    if db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'smoothed'").fetchone():
        db.execute("ALTER TABLE smoothed RENAME TO augmented")
        db.execute("ALTER TABLE augmented RENAME COLUMN number TO row_id")
        db.execute("ALTER TABLE augmented RENAME COLUMN change TO sequence")
        db.execute("DROP INDEX smoothed_by_change")
        db.execute("CREATE INDEX augmented_by_sequence ON augmented (sequence)")
    renamed = {
        "epoch": "generation",
        "change": "sequence",
        "statistics": "whitening",
        "smoothing": "augmentation",
        "smoothed_at": "augmented_at",
    }
    for old, new in renamed.items():
        db.execute("UPDATE meta SET key = ? WHERE key = ?", (new, old))
    db.execute("UPDATE meta SET value = 'ivf' WHERE key = 'index' AND value = 'approximate'")


def _from_2(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE objects ADD COLUMN reader INTEGER NOT NULL DEFAULT 1")


_MIGRATIONS: dict[int, Callable[[sqlite3.Connection], None]] = {1: _from_1, 2: _from_2}
"""By the version that each starts from."""
