"""One SQLite file, for several threads: statements, transactions, snapshots, and errors that say what to do."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mvretrieval.errors import CollectionError


class Database:
    """An open file in WAL mode. One instance may be used from several threads; calls are serialised."""

    def __init__(self, path: Path, connection: sqlite3.Connection, unwatched: bool = False) -> None:
        """Take over a connection.

        Args:
            path: of the file; its folder is what messages name.
            connection: opened for any thread, without implicit transactions.
            unwatched: SQLite takes it that nobody changes the file; so this looks whether somebody did.
        """
        self.path = path
        self._folder = path.parent
        self._seen = _state_of(path) if unwatched else None
        self._connection = connection
        self._lock = threading.RLock()
        # What was answered in the snapshot that is open, which holds until it ends.
        self._cached: dict[tuple[str, Sequence[Any]], Any] | None = None
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA busy_timeout = 10000")
        connection.execute(
            "PRAGMA cache_size = -32768"
        )  # KiB: the 2 MiB by default lose the inner pages of large tables

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. A full disk or a kill leaves what was there before."""
        with self._lock, translated_errors(self._folder):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite rolls back by itself on some errors
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """What is read inside is one state, whatever other processes write meanwhile."""
        with self._lock, translated_errors(self._folder):
            if self._connection.in_transaction:
                yield
                return
            if self._seen is not None and self._seen != _state_of(self.path):
                raise CollectionError(
                    f"{self._folder} was changed or removed by another program, and may only be read here: open it again"
                )
            self._connection.execute("BEGIN")
            self._cached = {}
            try:
                yield
            finally:
                self._cached = None
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Execute a statement that answers nothing."""
        with self._lock, translated_errors(self._folder):
            return self._connection.execute(sql, parameters)

    def all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """All rows that a statement answers."""
        with self._lock, translated_errors(self._folder):
            return self._connection.execute(sql, parameters).fetchall()

    def one(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """The first row that a statement answers; None without one."""
        with self._lock, translated_errors(self._folder):
            return self._connection.execute(sql, parameters).fetchone()

    def cached_one(self, sql: str, *parameters: Any) -> Any:
        """As `one`; what is asked again in a snapshot is remembered: right after a search every statement finds cold caches."""
        with self._lock:
            if self._cached is None:
                return self.one(sql, parameters)
            if (sql, parameters) not in self._cached:
                self._cached[sql, parameters] = self.one(sql, parameters)
            return self._cached[sql, parameters]


def _state_of(path: Path) -> tuple[int, int, bool]:
    try:
        info = path.stat()
    except FileNotFoundError:
        return 0, 0, False
    return info.st_mtime_ns, info.st_size, path.with_name(f"{path.name}-wal").exists()


@contextmanager
def translated_errors(folder: Path) -> Iterator[None]:
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
            raise CollectionError(
                f"{folder} is locked by another program ({text}); try again when it is done"
            ) from error
        raise CollectionError(f"{folder} cannot be used ({text}); it may be damaged or half deleted") from error
    except UnicodeEncodeError as error:
        raise CollectionError(f"{error.object!r} is not valid UTF-8, and no object of {folder} is called so") from error
    except sqlite3.ProgrammingError as error:
        if "closed" not in str(error):
            raise
        raise CollectionError(f"{folder} was closed: open it again with Collection.open") from error
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.IntegrityError):
            raise
        raise CollectionError(
            f"{folder} is damaged ({error}): restore it from a copy, or delete it and index the meshes again"
        ) from error
