"""The store: the one file that a collection cannot lose."""

from __future__ import annotations

import re
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
from made_meshes import new_object

from mvretrieval.errors import CollectionError, LabelsError
from mvretrieval.store import label_columns
from mvretrieval.store.blobs import widened
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


def test_what_is_put_comes_back(store: Store) -> None:
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


def test_stored_views_are_read_as_numpy_reads_them() -> None:
    finite = np.arange(1 << 16, dtype=np.uint16).view("<f2")
    finite = finite[np.isfinite(finite)]
    read = widened(finite.tobytes())
    assert read.dtype == np.float32 and np.array_equal(read.view(np.uint32), finite.astype(np.float32).view(np.uint32))


def test_replacing_keeps_id_number_and_labels(store: Store) -> None:
    (row_id,) = _put(store, "a")
    with store.transaction():
        store.set_metadata(row_id, {"label": "x"})
        again = store.put(replace(new_object("a", [0, 1], faces=99), id="b"), 5)
    record = store.records([row_id])[row_id]
    assert again == row_id and record.id == "a"
    assert record.facts["faces"] == 99 and record.metadata == {"label": "x"}
    assert store.vector_of(row_id).tolist() == [0, 1]
    assert store.count() == 1


def test_a_number_is_never_used_twice(store: Store) -> None:
    first = _put(store, "a", "b")
    with store.transaction():
        assert store.delete(["b", "nobody"], store.next_sequence()) == 1
    (again,) = _put(store, "b")
    assert again not in first
    assert store.deleted_since(1) == [first[1]] and store.deleted_since(2) == []


def test_deleting_leaves_nothing_behind(store: Store) -> None:
    row_ids = _put(store, "a", "b")
    with store.transaction():
        store.delete(["a"], store.next_sequence())
    for table in ("objects", "metadata", "vectors", "views"):
        found = [row[0] for row in store.db.all(f"SELECT * FROM {table}")]
        assert found == [row_ids[1]], table
    with pytest.raises(CollectionError, match="no views"):
        store.views_of(row_ids[0])


def test_a_transaction_is_all_or_nothing(store: Store) -> None:
    _put(store, "a")
    with pytest.raises(KeyError), store.transaction():
        store.put(new_object("b"), store.next_sequence())
        store.set_metadata(1, {"new": 1})
        raise KeyError
    assert store.count() == 1 and store.sequence == 1 and store.metadata_columns() == []
    _put(store, "c")
    assert store.count() == 2


def test_changes_since(store: Store) -> None:
    row_ids = _put(store, *[f"{i:05}" for i in range(20)])
    with store.transaction():
        store.put(new_object("00003", [0, 1]), store.next_sequence())
    parts = list(store.vectors_since(1))
    assert [part[0].tolist() for part in parts] == [[row_ids[3]]] and parts[0][1].tolist() == [[0, 1]]
    assert sum(len(part[0]) for part in store.vectors_since(-1)) == 20
    assert list(store.vectors_since(2)) == []


def _work(store: Store, ask: Callable[[], object]) -> int:
    """Hundreds of SQLite's instructions that a question takes."""
    count = 0

    def one_more() -> int:
        nonlocal count
        count += 1
        return 0

    store.db._connection.set_progress_handler(one_more, 100)
    ask()
    store.db._connection.set_progress_handler(None, 0)
    return count


def test_what_concerns_few_objects_does_not_look_at_all(store: Store) -> None:
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
    assert [_work(store, ask) <= 5 for ask in few] == [True] * 4


def test_records_of_very_many(store: Store) -> None:
    row_ids = _put(store, *[f"{i}" for i in range(1203)])
    assert len(store.records(row_ids)) == 1203


def test_free_ids(store: Store) -> None:
    _put(store, "a", "a~2")
    assert [store.free_id(name) for name in ("a", "b")] == ["a~3", "b"]


@pytest.mark.parametrize(
    "name", ["number", "NUMBER", "rowid", "order", 'a"b', "id", "path", " ", "ß", "x" * 500, "a.b", "[c]", "`d`"]
)
def test_any_name_can_be_a_label(store: Store, name: str) -> None:
    (row_id,) = _put(store, "a")
    with store.transaction():
        assert store.set_metadata(row_id, {name: "v", "other": 1})
        assert not store.set_metadata(row_id, {name: "v", "other": 1})
    assert store.records([row_id])[row_id].metadata == {name: "v", "other": 1}
    escaped = name.replace('"', '""')
    assert store.select(f"\"{escaped}\" = 'v'").tolist() == [row_id]
    assert store.column_values(name, [row_id, 77]) == ["v", None]


def test_labels_that_differ_in_case_are_one(store: Store) -> None:
    (row_id,) = _put(store, "a")
    with store.transaction():
        store.set_metadata(row_id, {"Label": "x"})
        store.set_metadata(row_id, {"label": "y"})
    assert store.records([row_id])[row_id].metadata == {"Label": "y"}


@pytest.mark.parametrize("values", [{"a": "\ud800"}, {"\udfff": 1}, {"": 1}, {"a\0": 1}, {"a": [1]}, {"a": 1 << 63}])
def test_what_cannot_be_stored_is_refused(store: Store, values: dict[str, Any]) -> None:
    (row_id,) = _put(store, "a")
    with pytest.raises(LabelsError, match="text and numbers can be stored"), store.transaction():
        store.set_metadata(row_id, values)


@pytest.mark.parametrize("most", [20, pytest.param(None, marks=pytest.mark.slow)])
def test_names_of_labels_come_to_an_end(most: int | None, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    if most is None:
        most = label_columns._MOST_LABELS
    monkeypatch.setattr(label_columns, "_MOST_LABELS", most)
    (row_id,) = _put(store, "a")
    with store.transaction():
        store.set_metadata(row_id, {f"label {i}": i for i in range(most)})
    with pytest.raises(LabelsError, match=f"at most {most} labels, and 'one' would be one more"), store.transaction():
        store.set_metadata(row_id, {"label 3": 4, "one": 1, "two": 2})
    with store.transaction():
        assert store.set_metadata(row_id, {"label 3": 5})
    assert store.select('"label 3" = 5').tolist() == [row_id]


def test_setting_the_type_of_a_label_anew_is_a_change(store: Store) -> None:
    (row_id,) = _put(store, "a")
    with store.transaction():
        assert store.set_metadata(row_id, {"x": 1})
        assert store.set_metadata(row_id, {"x": 1.0})
        assert store.set_metadata(row_id, {"x": "1"})
        assert store.set_metadata(row_id, {"x": None})
        assert not store.set_metadata(row_id, {"x": None})


def test_failures_are_kept_until_the_file_works(store: Store) -> None:
    with store.transaction():
        store.put_failure("/meshes/a", "unreadable", "why", "[1]")
        store.put_failure("/meshes/b", "timeout", "late", "[1]")
    assert [f[:2] for f in store.failures()] == [("/meshes/b", "timeout"), ("/meshes/a", "unreadable")]
    _put(store, "a")
    assert [path for path, *_ in store.failures()] == ["/meshes/b"]


def test_paths_under_a_folder_are_not_those_beside_it(store: Store) -> None:
    with store.transaction():
        for path in ("/m/a", "/m/sub/b", "/m2/c", "/m%/d"):
            store.put(replace(new_object("x"), path=path, id=path), 1)
    assert [path for _, path in store.paths_under("/m")] == ["/m/a", "/m/sub/b"]
    assert [path for _, path in store.paths_under("/m%/")] == ["/m%/d"]
    assert len(list(store.paths_under("/"))) == 4


def test_strings_that_are_no_unicode_are_refused_in_words(store: Store) -> None:
    with pytest.raises(CollectionError, match="UTF-8"):
        store.row_id_of("\udcff")


# -- several at once ---------------------------------------------------------------------------------------------------


def test_readers_see_whole_transactions_and_snapshots_stand_still(store: Store) -> None:
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


def test_threads_may_share_a_store(store: Store) -> None:
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


# -- harm --------------------------------------------------------------------------------------------------------------


def test_a_kill_in_a_transaction_loses_that_transaction_alone(tmp_path: Path) -> None:
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


def test_a_full_disk_loses_nothing_that_was_reported(store: Store) -> None:
    _put(store, "a")
    pages = store.db.all("PRAGMA page_count")[0][0]
    store.db.run(f"PRAGMA max_page_count = {pages + 5}")
    with pytest.raises(CollectionError, match=r"full.*safe.*free some space"):
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
    ("harm", "said"),
    [
        (
            lambda p: _sql(p, f"PRAGMA user_version = {VERSION + 1}"),
            f"has version {VERSION + 1}, this mvretrieval reads {VERSION}",
        ),
        (lambda p: _sql(p, "PRAGMA application_id = 5"), "not a collection's database"),
        (_noise, "is damaged"),
        (lambda p: p.write_bytes(b""), "half deleted"),
        (lambda p: p.write_bytes(p.read_bytes()[:5000]), "damaged"),
        (lambda p: _sql(p, "DROP TABLE meta"), "half deleted"),
        (Path.unlink, "is no collection: make one with 'mvr index"),
        (lambda p: (p.unlink(), (p.parent / "index-1-1.npz").touch()), f"lost its {FILE}"),
        (lambda p: shutil.rmtree(p.parent), "is no collection"),
    ],
    ids=["version", "other program", "noise", "empty", "cut", "table gone", "deleted", "half deleted", "folder gone"],
)
def test_what_cannot_be_opened_says_why_and_what_to_do(
    harm: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    (tmp_path / "c").mkdir()
    harm(_close(tmp_path / "c"))
    with pytest.raises(CollectionError, match=re.escape(said)):
        Store.open(tmp_path / "c")


def test_damage_further_in_is_explained_when_it_is_met(tmp_path: Path) -> None:
    path = _close(tmp_path)
    _noise(path, start=8192)
    with pytest.raises(CollectionError, match=r"damaged.*index"):
        store = Store.open(tmp_path)
        store.records(list(range(300)))


def test_creating_is_all_or_nothing(tmp_path: Path) -> None:
    """A kill while a collection is made leaves no file that looks like one."""
    program = f"""
import os, sqlite3
from pathlib import Path
from mvretrieval.store import store
os.replace = lambda *names: os.kill(os.getpid(), 9)
store.Store.create(Path({str(tmp_path)!r}))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    with pytest.raises(CollectionError, match="is no collection"):
        Store.open(tmp_path)
    store = Store.create(tmp_path)
    assert store.count() == 0
    store.close()
    assert [p.name for p in tmp_path.iterdir()] == [FILE]
