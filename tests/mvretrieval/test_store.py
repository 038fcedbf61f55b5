"""The store of a collection: records, labels, transactions, concurrency, damage."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from error_codes import raises_code
from made_meshes import new_object

from mvretrieval.errors import CollectionError, LabelsError
from mvretrieval.store import label_columns
from mvretrieval.store.blobs import float16_to_float32
from mvretrieval.store.store import FILE, VERSION, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.create(tmp_path)
    yield store
    store.close()


def _put(store: Store, *names: str) -> list[int]:
    with store.transaction():
        sequence = store.next_sequence()
        return [store.put(new_object(name), sequence) for name in names]


def test_stored_object_reads_back_equal(store: Store) -> None:
    new = new_object("a", vector=[0.6, 0.8], faces=7)
    with store.transaction():
        row_id = store.put(new, store.next_sequence())
        store.set_metadata(row_id, {"label": "x", "size": 3, "price": 2.5, "missing": None})
    record = store.records([row_id])[row_id]
    assert (record.id, record.path, record.content_hash) == (new.id, new.path, new.content_hash)
    assert record.facts == {"format": "ply", "faces": 7, "vertices": 8, "textured": 0, "up": "+y"}
    assert record.metadata == {"label": "x", "size": 3, "price": 2.5}
    assert np.array_equal(store.vector_of(row_id), new.vector)
    views, mask = store.views_of(row_id)
    assert np.array_equal(views, new.view_vectors.ravel()) and np.array_equal(mask, new.view_mask)


def test_float16_to_float32_equals_numpy() -> None:
    finite = np.arange(1 << 16, dtype=np.uint16).view("<f2")
    finite = finite[np.isfinite(finite)]
    read = float16_to_float32(finite.tobytes())
    assert read.dtype == np.float32 and np.array_equal(read.view(np.uint32), finite.astype(np.float32).view(np.uint32))


def test_replacing_keeps_id_row_id_and_labels(store: Store) -> None:
    (row_id,) = _put(store, "a")
    with store.transaction():
        store.set_metadata(row_id, {"label": "x"})
        again = store.put(replace(new_object("a", [0, 1], faces=99), id="b"), 5)
    record = store.records([row_id])[row_id]
    assert again == row_id and record.id == "a"
    assert record.facts["faces"] == 99 and record.metadata == {"label": "x"}
    assert store.vector_of(row_id).tolist() == [0, 1]
    assert store.count() == 1


def test_row_ids_are_never_reused(store: Store) -> None:
    first = _put(store, "a", "b")
    with store.transaction():
        assert store.delete(["b", "unknown"], store.next_sequence()) == 1
    (again,) = _put(store, "b")
    assert again not in first
    assert store.deleted_since(1) == [first[1]] and store.deleted_since(2) == []


def test_delete_removes_all_rows(store: Store) -> None:
    row_ids = _put(store, "a", "b")
    with store.transaction():
        store.delete(["a"], store.next_sequence())
    for table in ("objects", "metadata", "vectors", "views"):
        found = [row[0] for row in store.db.all(f"SELECT * FROM {table}")]
        assert found == [row_ids[1]], table
    with raises_code(CollectionError, "no_stored_views"):
        store.views_of(row_ids[0])


def test_transaction_is_atomic(store: Store) -> None:
    _put(store, "a")
    with pytest.raises(KeyError), store.transaction():
        store.put(new_object("b"), store.next_sequence())
        store.set_metadata(1, {"new": 1})
        raise KeyError
    assert store.count() == 1 and store.sequence == 1 and store.metadata_columns() == []
    _put(store, "c")
    assert store.count() == 2


def test_vectors_since_a_sequence(store: Store) -> None:
    row_ids = _put(store, *[f"{i:05}" for i in range(20)])
    with store.transaction():
        store.put(new_object("00003", [0, 1]), store.next_sequence())
    parts = list(store.vectors_since(1))
    assert [part[0].tolist() for part in parts] == [[row_ids[3]]] and parts[0][1].tolist() == [[0, 1]]
    assert sum(len(part[0]) for part in store.vectors_since(-1)) == 20
    assert list(store.vectors_since(2)) == []


def _work(store: Store, run: Callable[[], object]) -> int:
    """SQLite VM instructions that a call takes, in hundreds."""
    count = 0

    def one_more() -> int:
        nonlocal count
        count += 1
        return 0

    store.db._connection.set_progress_handler(one_more, 100)
    run()
    store.db._connection.set_progress_handler(None, 0)
    return count


def test_selective_queries_use_indices(store: Store) -> None:
    row_ids = _put(store, *[f"{i:05}" for i in range(3000)])
    with store.transaction():
        for row_id in row_ids:
            store.set_metadata(row_id, {"label": f"class {row_id % 1000}"})
        store.put(new_object("00003", [0, 1]), store.next_sequence())
        store.delete(["00007"], store.next_sequence())
    assert store.select("label = 'class 5'").tolist() == [5, 1005, 2005]
    few = (
        lambda: store.select("label = 'class 5'"),
        lambda: store.select("label in ('class 5', 'class 6') and faces > 3"),
        lambda: list(store.vectors_since(1)),
        lambda: store.deleted_since(2),
    )
    assert _work(store, lambda: store.select("faces > 3")) > 100
    assert [_work(store, run) <= 5 for run in few] == [True] * 4


def test_records_of_many_objects(store: Store) -> None:
    row_ids = _put(store, *[f"{i}" for i in range(1203)])
    assert len(store.records(row_ids)) == 1203


def test_free_id(store: Store) -> None:
    _put(store, "a", "a~2")
    assert [store.free_id(name) for name in ("a", "b")] == ["a~3", "b"]


@pytest.mark.parametrize(
    "name", ["row_id", "ROW_ID", "rowid", "order", 'a"b', "id", "path", " ", "ß", "x" * 500, "a.b", "[c]", "`d`"]
)
def test_label_of_any_name(store: Store, name: str) -> None:
    (row_id,) = _put(store, "a")
    with store.transaction():
        assert store.set_metadata(row_id, {name: "v", "other": 1})
        assert not store.set_metadata(row_id, {name: "v", "other": 1})
    assert store.records([row_id])[row_id].metadata == {name: "v", "other": 1}
    escaped = name.replace('"', '""')
    assert store.select(f"\"{escaped}\" = 'v'").tolist() == [row_id]
    assert store.column_values(name, [row_id, 77]) == ["v", None]


def test_label_names_ignore_case(store: Store) -> None:
    (row_id,) = _put(store, "a")
    with store.transaction():
        store.set_metadata(row_id, {"Label": "x"})
        store.set_metadata(row_id, {"label": "y"})
    assert store.records([row_id])[row_id].metadata == {"Label": "y"}


@pytest.mark.parametrize("values", [{"a": "\ud800"}, {"\udfff": 1}, {"": 1}, {"a\0": 1}, {"a": [1]}, {"a": 1 << 63}])
def test_label_value_that_cannot_be_stored_is_an_error(store: Store, values: dict[str, Any]) -> None:
    (row_id,) = _put(store, "a")
    with raises_code(LabelsError, "bad_label_value"), store.transaction():
        store.set_metadata(row_id, values)


def test_label_names_that_differ_in_case_in_one_call_are_an_error(store: Store) -> None:
    (row_id,) = _put(store, "a")
    with raises_code(LabelsError, "duplicate_label", "Label"), store.transaction():
        store.set_metadata(row_id, {"label": 1, "Label": 2})


@pytest.mark.parametrize("limit", [20, pytest.param(label_columns._MAX_LABELS, marks=pytest.mark.slow)])
def test_number_of_labels_is_limited(limit: int, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_columns, "_MAX_LABELS", limit)
    (row_id,) = _put(store, "a")
    with store.transaction():
        store.set_metadata(row_id, {f"label {i}": i for i in range(limit)})
    with raises_code(LabelsError, "too_many_labels", str(limit), "'one'"), store.transaction():
        store.set_metadata(row_id, {"label 3": 4, "one": 1, "two": 2})
    with store.transaction():
        assert store.set_metadata(row_id, {"label 3": 5})
    assert store.select('"label 3" = 5').tolist() == [row_id]


def test_another_type_of_the_same_value_is_a_change(store: Store) -> None:
    (row_id,) = _put(store, "a")
    with store.transaction():
        assert store.set_metadata(row_id, {"x": 1})
        assert store.set_metadata(row_id, {"x": 1.0})
        assert store.set_metadata(row_id, {"x": "1"})
        assert store.set_metadata(row_id, {"x": None})
        assert not store.set_metadata(row_id, {"x": None})


def test_failure_is_kept_until_the_file_is_indexed(store: Store) -> None:
    with store.transaction():
        store.put_failure("/meshes/a", "unreadable", "why", "[1]")
        store.put_failure("/meshes/b", "timeout", "late", "[1]")
    assert [f[:2] for f in store.failures()] == [("/meshes/b", "timeout"), ("/meshes/a", "unreadable")]
    _put(store, "a")
    assert [path for path, *_ in store.failures()] == ["/meshes/b"]


def test_paths_under_a_folder(store: Store) -> None:
    with store.transaction():
        for path in ("/m/a", "/m/sub/b", "/m2/c", "/m%/d"):
            store.put(replace(new_object("x"), path=path, id=path), 1)
    assert [path for _, path in store.paths_under("/m")] == ["/m/a", "/m/sub/b"]
    assert [path for _, path in store.paths_under("/m%/")] == ["/m%/d"]
    assert len(list(store.paths_under("/"))) == 4


def test_text_that_is_not_utf8_is_an_error(store: Store) -> None:
    with raises_code(CollectionError, "not_utf8"):
        store.row_id_of("\udcff")


# -- concurrency ---------------------------------------------------------------------------------------------------


def test_readers_see_whole_transactions_and_snapshots_do_not_change(store: Store) -> None:
    _put(store, "a")
    reader = Store.open(store.path.parent)
    with store.transaction():
        store.put(new_object("b"), store.next_sequence())
        assert reader.count() == 1
    assert reader.count() == 2
    with reader.snapshot():
        assert reader.count() == 2
        _put(store, "c")
        assert reader.count() == 2
        with reader.snapshot():
            assert reader.count() == 2
    assert reader.count() == 3
    reader.close()


def test_threads_share_a_store(store: Store) -> None:
    wrong: list[object] = []

    def read() -> None:
        try:
            for _ in range(200):
                count = store.count()
                if count % 5:  # half of a transaction
                    wrong.append(count)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(20):
        _put(store, *[f"{i}-{j}" for j in range(5)])
    for thread in threads:
        thread.join()
    assert wrong == [] and store.count() == 100


# -- damage --------------------------------------------------------------------------------------------------------------


def test_kill_in_a_transaction_loses_only_that_transaction(tmp_path: Path) -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from made_meshes import new_object
from mvretrieval.store.store import Store
store = Store.create(Path({str(tmp_path)!r}))
with store.transaction():
    store.put(new_object("a"), store.next_sequence())
with store.transaction():
    for i in range(500):
        store.put(new_object(f"b{{i}}"), store.next_sequence())
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    store = Store.open(tmp_path)
    assert store.count() == 1 and store.sequence == 1
    assert store.db.all("PRAGMA integrity_check") == [("ok",)]
    store.close()


def test_full_disk_keeps_committed_objects(store: Store) -> None:
    _put(store, "a")
    pages = store.db.all("PRAGMA page_count")[0][0]
    store.db.run(f"PRAGMA max_page_count = {pages + 5}")
    with raises_code(CollectionError, "disk_full", str(store.path.parent)):
        _put(store, *[f"b{i}" for i in range(2000)])
    assert store.count() == 1
    store.db.run("PRAGMA max_page_count = 1000000")
    _put(store, *[f"b{i}" for i in range(2000)])
    assert store.count() == 2001


def _close(folder: Path) -> Path:
    store = Store.create(folder)
    _put(store, *[f"{i}" for i in range(300)])
    store.close()
    return folder / FILE


def _sql(path: Path, sql: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(sql)
    db.close()


def _noise(path: Path, start: int = 0) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:start] + np.random.default_rng(0).bytes(len(data) - start))


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (lambda p: _sql(p, f"PRAGMA user_version = {VERSION + 1}"), "newer_format"),
        (lambda p: _sql(p, "PRAGMA application_id = 5"), "not_a_collection"),
        (_noise, "collection_damaged"),
        (lambda p: p.write_bytes(b""), "collection_damaged"),
        (lambda p: p.write_bytes(p.read_bytes()[:5000]), "collection_damaged"),
        (lambda p: _sql(p, "DROP TABLE meta"), "collection_damaged"),
        (Path.unlink, "not_a_collection"),
        (lambda p: (p.unlink(), (p.parent / "index-1-1.npz").touch()), "database_lost"),
        (lambda p: shutil.rmtree(p.parent), "not_a_collection"),
    ],
    ids=["version", "other program", "noise", "empty", "cut", "table gone", "deleted", "half deleted", "folder gone"],
)
def test_damaged_store_has_an_error_code(harm: Callable[[Path], object], code: str, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    harm(_close(tmp_path / "c"))
    with raises_code(CollectionError, code, str(tmp_path / "c")):
        Store.open(tmp_path / "c")


def test_damage_inside_the_file_is_an_error_when_read(tmp_path: Path) -> None:
    path = _close(tmp_path)
    _noise(path, start=8192)
    with raises_code(CollectionError, "collection_damaged", str(tmp_path)):
        store = Store.open(tmp_path)
        store.records(list(range(300)))


def test_create_is_atomic(tmp_path: Path) -> None:
    """A kill during creation leaves no database."""
    program = f"""
import os, sqlite3
from pathlib import Path
from mvretrieval.store import store
os.replace = lambda *names: os.kill(os.getpid(), 9)
store.Store.create(Path({str(tmp_path)!r}))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    with raises_code(CollectionError, "not_a_collection"):
        Store.open(tmp_path)
    store = Store.create(tmp_path)
    assert store.count() == 0
    store.close()
    assert [p.name for p in tmp_path.iterdir()] == [FILE]
