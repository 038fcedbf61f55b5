"""Migration of version 1 collections: atomic, with a copy kept, safe for several processes at once."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from error_codes import raises_code

from mvretrieval.errors import CollectionError
from mvretrieval.store import migrations, schema
from mvretrieval.store.augmented import augmentation_of, is_up_to_date, search_vectors
from mvretrieval.store.store import FILE, VERSION, Store
from mvretrieval.store.writer_lock import WriterLock

FIXTURES = Path(__file__).parents[1] / "fixtures" / "v1"
COPY = f"{FILE}.v1"
PARENT_TABLES = ("objects", "metadata", "vectors", "views", "thumbnails", "deleted")


@pytest.fixture(params=["plain", "augmented", "whitened"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a version 1 collection."""
    return Path(shutil.copytree(FIXTURES / request.param, tmp_path / "c"))


@pytest.fixture
def augmented(tmp_path: Path) -> Path:
    """A copy of the version 1 collection that has all tables."""
    return Path(shutil.copytree(FIXTURES / "augmented", tmp_path / "c"))


def _read(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def _version(path: Path) -> int:
    return int(_read(path, "PRAGMA user_version")[0][0])


def _tables(path: Path) -> set[str]:
    return {row[0] for row in _read(path, "SELECT name FROM sqlite_master WHERE type = 'table'")}


def _columns(path: Path, table: str) -> list[str]:
    return [row[1] for row in _read(path, f"PRAGMA table_info({table})")]


def _rows(path: Path) -> dict[str, list[Any]]:
    """Rows of every table that all versions have, without the column that version 3 adds."""
    rows = {table: _read(path, f"SELECT * FROM {table} ORDER BY 1") for table in (*PARENT_TABLES, "failures", "runs")}
    if "reader" in (columns := _columns(path, "objects")):
        place = columns.index("reader")
        rows["objects"] = [row[:place] + row[place + 1 :] for row in rows["objects"]]
    return rows


def test_migration_renames_and_keeps_all_rows(folder: Path) -> None:
    before, old_tables = _rows(folder / FILE), _tables(folder / FILE)
    Store.open(folder).close()
    assert _version(folder / FILE) == VERSION and _rows(folder / FILE) == before
    assert all(_columns(folder / FILE, table)[0] == "row_id" for table in PARENT_TABLES)
    assert "sequence" in _columns(folder / FILE, "objects") and "sequence" in _columns(folder / FILE, "deleted")
    renamed = {"augmented" if table == "smoothed" else table for table in old_tables}
    assert _tables(folder / FILE) == renamed
    keys = {row[0] for row in _read(folder / FILE, "SELECT key FROM meta")}
    assert {"generation", "sequence", "describer"} <= keys
    assert not keys & {"epoch", "change", "statistics", "smoothing", "smoothed_at"}
    assert _read(folder / FILE, "PRAGMA integrity_check") == [("ok",)]
    assert _read(folder / FILE, "PRAGMA foreign_key_check") == []


def test_migrated_schema_is_that_of_a_new_collection(folder: Path, tmp_path: Path) -> None:
    Store.open(folder).close()
    (tmp_path / "new").mkdir()
    Store.create(tmp_path / "new").close()
    for table in ("meta", *PARENT_TABLES, "failures", "runs"):
        new, migrated = _columns(tmp_path / "new" / FILE, table), _columns(folder / FILE, table)
        assert migrated[: len(new)] == new, table  # the table `metadata` also has one column per label
    indices = "SELECT name FROM sqlite_master WHERE type = 'index'"
    assert set(_read(tmp_path / "new" / FILE, indices)) <= set(_read(folder / FILE, indices))


def test_kind_of_index_has_its_new_name(augmented: Path) -> None:
    with closing(sqlite3.connect(augmented / FILE)) as db:
        db.execute("UPDATE meta SET value = 'approximate' WHERE key = 'index'")
        db.commit()
    store = Store.open(augmented)
    assert store.get_meta("index") == "ivf"
    store.close()


def test_migrated_store_reads_and_writes(augmented: Path) -> None:
    (raw,) = _read(augmented / FILE, "SELECT vector FROM smoothed ORDER BY number LIMIT 1")[0]
    store = Store.open(augmented)
    row_ids = store.select(None).tolist()
    assert augmentation_of(store) is not None and is_up_to_date(store)
    np.testing.assert_array_equal(search_vectors(store, row_ids[:1])[1][0], np.frombuffer(raw, "<f4"))
    (record,) = store.records(row_ids[:1]).values()
    with store.transaction():
        assert store.delete([record.id], store.next_sequence()) == 1
    assert store.deleted_since(store.sequence - 1) == row_ids[:1]
    for table in ("metadata", "vectors", "views", "augmented"):  # foreign keys refer to the renamed column
        assert row_ids[0] not in [row[0] for row in store.db.all(f"SELECT * FROM {table}")]
    store.close()


def test_copy_of_version_1_is_kept(augmented: Path) -> None:
    before = _rows(augmented / FILE)
    Store.open(augmented).close()
    assert _version(augmented / COPY) == 1 and _rows(augmented / COPY) == before
    assert "smoothed" in _tables(augmented / COPY) and "augmented" not in _tables(augmented / COPY)
    assert _columns(augmented / COPY, "objects")[0] == "number"
    assert not (augmented / f"{COPY}.part").exists()


def test_second_open_does_not_migrate(augmented: Path) -> None:
    Store.open(augmented).close()
    kept = (augmented / COPY).stat().st_mtime_ns
    Store.open(augmented).close()
    assert (augmented / COPY).stat().st_mtime_ns == kept


# -- concurrency -------------------------------------------------------------------------------------------------------


def test_threads_that_open_at_once_all_succeed(augmented: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        stores = list(threads.map(lambda _: Store.open(augmented), range(4)))
    assert len({store.count() for store in stores}) == 1
    for store in stores:
        store.close()
    assert _version(augmented / FILE) == VERSION and _version(augmented / COPY) == 1


def test_processes_that_open_at_once_all_succeed(augmented: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from mvretrieval.store.store import Store; Store.open(Path(sys.argv[1]))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, str(augmented)]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert _version(augmented / FILE) == VERSION and _version(augmented / COPY) == 1


def test_a_process_that_read_the_old_version_before_another_migrated(augmented: Path) -> None:
    """It gets the lock only after the migration, and must not overwrite the copy with version 2."""
    Store.open(augmented).close()
    migrations.migrate(augmented, augmented / FILE, 1, writable=True)
    assert _version(augmented / FILE) == VERSION
    assert _version(augmented / COPY) == 1 and "smoothed" in _tables(augmented / COPY)


def test_open_waits_while_another_process_migrates(augmented: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = WriterLock(augmented)
    lock.take()
    monkeypatch.setattr(migrations, "_SECONDS_TO_WAIT", 0.1)
    with raises_code(CollectionError, "collection_locked", str(augmented)):
        Store.open(augmented)
    assert _version(augmented / FILE) == 1
    lock.release()
    Store.open(augmented).close()
    assert _version(augmented / FILE) == VERSION


# -- failures ----------------------------------------------------------------------------------------------------------


def _fails_late(db: sqlite3.Connection) -> None:
    migrations._from_1(db)
    raise RuntimeError("in the middle")


def _fails_in_sqlite(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE objects RENAME COLUMN number TO row_id")
    db.execute("ALTER TABLE no_such_table RENAME TO anything")


@pytest.mark.parametrize("step", [_fails_late, _fails_in_sqlite])
def test_failed_migration_leaves_version_1(
    step: Callable[[sqlite3.Connection], None], augmented: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _rows(augmented / FILE)
    with monkeypatch.context() as patch:
        patch.setitem(migrations._MIGRATIONS, 1, step)
        with pytest.raises((RuntimeError, CollectionError)):
            Store.open(augmented)
    assert _version(augmented / FILE) == 1 and _rows(augmented / FILE) == before
    assert "smoothed" in _tables(augmented / FILE)
    store = Store.open(augmented)  # the lock was released
    assert store.count() == len(before["objects"])
    store.close()


@pytest.mark.parametrize("moment", ["copy", "migration"])
def test_killed_migration_leaves_version_1(moment: str, augmented: Path) -> None:
    before = _rows(augmented / FILE)
    die = "lambda *arguments: os.kill(os.getpid(), 9)"
    patches = {
        "copy": f"migrations.os.replace = {die}",
        "migration": "real = migrations._from_1; migrations._MIGRATIONS[1] = lambda db: (real(db), os.kill(os.getpid(), 9))",
    }
    program = f"""
import os
from pathlib import Path
from mvretrieval.store import migrations
from mvretrieval.store.store import Store
{patches[moment]}
Store.open(Path({str(augmented)!r}))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert _version(augmented / FILE) == 1 and _rows(augmented / FILE) == before
    Store.open(augmented).close()
    assert _version(augmented / FILE) == VERSION and _version(augmented / COPY) == 1
    assert not (augmented / f"{COPY}.part").exists()


@pytest.mark.parametrize("how", ["mode=ro", "mode=ro&immutable=1"])
def test_read_only_collection_of_version_1_needs_migration(
    how: str, augmented: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(schema, "_read_only", lambda path: how)  # root may write whatever the mode is
        with raises_code(CollectionError, "needs_migration", str(augmented), "version 1"):
            Store.open(augmented)
    assert _version(augmented / FILE) == 1 and not (augmented / COPY).exists()


def test_later_version_is_an_error(augmented: Path) -> None:
    with closing(sqlite3.connect(augmented / FILE)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
    with raises_code(CollectionError, "newer_format", f"version {VERSION + 1}"):
        Store.open(augmented)
    assert _version(augmented / FILE) == VERSION + 1 and not (augmented / COPY).exists()
