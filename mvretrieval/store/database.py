"""One SQLite file for several threads: statements, transactions, snapshots, and SQLite's errors translated to ours."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from mvretrieval.errors import CollectionError


class Database:
    """An open file in WAL mode. One instance may be used from several threads; calls are serialised."""

    def __init__(self, path: Path, connection: sqlite3.Connection, immutable: bool = False) -> None:
        """Configure a connection and own it from now on.

        Args:
            path: of the file; error messages name its folder.
            connection: opened for any thread, without implicit transactions.
            immutable: the file was opened with SQLite's `immutable=1`, which does not detect changes; `snapshot` checks for them.
        """
        self.path = path
        self._folder = path.parent
        self._state_when_opened = _state_of(path) if immutable else None
        self._connection = connection
        self._lock = threading.RLock()
        # Results of `cached_one` in the open snapshot; valid until it ends.
        self._cached: dict[tuple[str, Sequence[Any]], Any] | None = None
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA busy_timeout = 10000")
        # In KiB. The default of 2 MiB evicts the inner pages of large tables.
        connection.execute("PRAGMA cache_size = -32768")

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def backup(self, path: Path) -> None:
        """Write a consistent copy to `path`, whatever other processes write meanwhile."""
        with self._lock, translated_errors(self._folder), closing(sqlite3.connect(path)) as copy:
            self._connection.backup(copy)

    def integrity_problems(self) -> list[str]:
        """What SQLite finds wrong with the file: pages, indices, references. Reads all of it."""
        with self._lock, translated_errors(self._folder):
            found = [str(row[0]) for row in self._connection.execute("PRAGMA integrity_check(10)")]
            lost = [f"a row of {row[0]} has no object" for row in self._connection.execute("PRAGMA foreign_key_check")]
        return [text for text in found if text != "ok"] + sorted(set(lost))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything inside or nothing. A full disk or a kill leaves the earlier state."""
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
        """Read one state inside, whatever other processes write meanwhile."""
        with self._lock, translated_errors(self._folder):
            if self._connection.in_transaction:
                yield
                return
            if self._state_when_opened is not None and self._state_when_opened != _state_of(self.path):
                raise CollectionError(
                    f"{self._folder} is read-only here, and another process has changed or removed it: open it again",
                    code="changed_elsewhere",
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
        """Execute a statement without rows."""
        with self._lock, translated_errors(self._folder):
            return self._connection.execute(sql, parameters)

    def all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """All rows of a statement."""
        with self._lock, translated_errors(self._folder):
            return self._connection.execute(sql, parameters).fetchall()

    def one(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """The first row of a statement; None without one."""
        with self._lock, translated_errors(self._folder):
            return self._connection.execute(sql, parameters).fetchone()

    def cached_one(self, sql: str, *parameters: Any) -> Any:
        """Like `one`, but cached within a snapshot: right after a search, every statement finds cold CPU caches."""
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
    """Raise SQLite's errors as `CollectionError`, with a code and the next step."""
    try:
        yield
    except sqlite3.OperationalError as error:
        text = str(error)
        if "disk is full" in text or "disk I/O" in text:
            raise CollectionError(
                f"the disk of {folder} is full or failing ({text}). All objects reported as added are stored; "
                "free some space and run the same command again",
                code="disk_full",
            ) from error
        if "readonly" in text or "unable to open" in text:
            raise CollectionError(
                f"{folder} cannot be written ({text}): check its owner and mode", code="read_only"
            ) from error
        if "locked" in text:
            raise CollectionError(
                f"another process holds the database of {folder} ({text}): try again when it has finished",
                code="database_locked",
            ) from error
        raise CollectionError(
            f"{folder} cannot be read ({text}): it is damaged or half deleted; restore it from a backup",
            code="collection_damaged",
        ) from error
    except UnicodeEncodeError as error:
        raise CollectionError(
            f"{error.object!r} is not valid UTF-8: give an id or path that is", code="not_utf8"
        ) from error
    except sqlite3.ProgrammingError as error:
        if "closed" not in str(error):
            raise
        raise CollectionError(
            f"{folder} was closed: open it again with Collection.open", code="collection_closed"
        ) from error
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.IntegrityError):
            raise
        raise CollectionError(
            f"{folder} is damaged ({error}): restore it from a backup, or delete it and index the meshes again",
            code="collection_damaged",
        ) from error
