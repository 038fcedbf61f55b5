"""A collection: writers, readers, the saved index, damage."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from conftest import small_collection
from error_codes import raises_code
from made_meshes import SMALL, new_object, unit, write_shapes
from waiting import wait_for

from mvrender.errors import MeshError
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.errors import CollectionError, DescriberError, EncoderError, LabelsError
from mvretrieval.index.kinds import IndexParameters
from mvretrieval.ingest.repool import repool
from mvretrieval.search.options import SearchOptions
from mvretrieval.search.query import Query, Term
from mvretrieval.store.store import FILE, VERSION

DIM = 1024  # of the built-in encoder


def _put(collection: Collection, *names: str, seed: int = 0) -> None:
    """Objects without meshes."""
    vectors = unit(np.random.default_rng(seed).standard_normal((len(names), DIM)))
    with collection.session.store.transaction():
        sequence = collection.session.store.next_sequence()
        for name, vector in zip(names, vectors, strict=True):
            collection.session.store.put(new_object(name, vector), sequence)


def _found(collection: Collection) -> set[str]:
    return {hit.id for hit in collection.search(Query(terms=[Term("vector", np.ones(DIM))]), k=1000)}


# -- adding and removing -----------------------------------------------------------------------------------------------


def test_add_replace_and_remove_one_mesh(collection: Collection, tmp_path: Path) -> None:
    a, b = write_shapes(tmp_path, [0, 1])
    assert collection.add(a, metadata={"label": "box", "flag": True, "size": np.int64(3)}) == a.name
    assert collection.add(b, id="ball") == "ball"
    assert collection.get(a.name).metadata == {"label": "box", "flag": 1, "size": 3}
    assert collection.search(Query(mesh=a), k=1)[0].id == a.name
    shutil.copy(b, a)
    assert collection.add(a) == a.name
    assert collection.search(Query(id="ball"), k=1)[0].score == pytest.approx(1, abs=1e-5)
    assert collection.remove(a.name, "unknown") == 1
    assert _found(collection) == {"ball"}
    bad = tmp_path / "bad.obj"
    bad.write_text("v 0 0 0")
    with raises_code(MeshError, "no_faces"):
        collection.add(bad)
    with raises_code(LabelsError, "bad_label_value", "'x'", "[1]"):
        collection.add(b, metadata={"x": [1]})


def test_unknown_id_suggests_the_nearest_known_one(things: Collection) -> None:
    with raises_code(CollectionError, "no_such_object", "'shape-03.ply'", "did you mean 'shape-003.ply'?"):
        things.get("shape-03.ply")


def test_empty_collection_has_no_hits(collection: Collection, shapes: Path) -> None:
    mesh = shapes / "shape-000.ply"
    assert collection.search(Query(mesh=mesh)) == []
    mixture = Query(terms=[Term("mesh", mesh), Term("mesh", shapes / "shape-001.ply", -0.5)])
    assert collection.search(mixture) == []
    assert len(collection) == 0


def test_k_may_be_larger_than_the_collection(things: Collection) -> None:
    assert len(things.search(Query(id="shape-000.ply"), k=10_000)) == 11


# -- concurrency ---------------------------------------------------------------------------------------------------


def test_open_reader_sees_every_write(collection: Collection) -> None:
    reader = Collection.open(collection.folder)
    assert _found(reader) == set()
    _put(collection, "a", "b", "c")
    assert _found(reader) == {"a", "b", "c"}
    collection.remove("b")
    assert _found(reader) == {"a", "c"} and len(reader.session.index.get()) == 2
    before = reader.search(Query(id="a"))[0].score
    _put(collection, "a", seed=5)
    assert reader.search(Query(id="a"))[0].score != before
    repool(collection.session, collection.describer.with_config(pooling="max"))
    assert reader.describer.config.pooling == "max"
    assert reader.session.index.get().generation == 2 and _found(reader) == {"a", "c"}
    reader.close()


def test_one_writer_at_a_time(collection: Collection) -> None:
    with raises_code(CollectionError, "collection_locked", str(os.getpid())):
        Collection.open(collection.folder, write=True)
    reader = Collection.open(collection.folder)
    for write in (lambda: reader.remove("a"), lambda: reader.add("a.ply"), lambda: reader.add_folder(".")):
        with raises_code(CollectionError, "collection_locked"):
            write()
    reader.close()
    collection.close()
    with Collection.open(collection.folder, write=True) as writer:
        assert writer.remove("a") == 0


def test_writer_lock_ends_with_its_process(tmp_path: Path) -> None:
    program = (
        "import os, sys; from mvretrieval.api import Collection; "
        "c = Collection.open(sys.argv[1], write=True); os.kill(os.getpid(), 9)"
    )
    small_collection(tmp_path / "c").close()
    assert subprocess.run([sys.executable, "-c", program, tmp_path / "c"], check=False).returncode == -9
    Collection.open(tmp_path / "c", write=True).close()


def test_searches_in_threads_during_writes(collection: Collection) -> None:
    names = [f"o{i}" for i in range(200)]
    _put(collection, *names)
    reader = Collection.open(collection.folder)
    wrong: list[BaseException] = []

    def search() -> None:
        try:
            for _ in range(15):
                hits = reader.search(Query(terms=[Term("vector", np.ones(DIM))]), k=20)
                assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(30):
        collection.remove(names[i])
        _put(collection, f"new{i}", seed=i)
    for thread in threads:
        thread.join()
    assert wrong == []
    assert _found(reader) == {*names[30:], *[f"new{i}" for i in range(30)]}
    reader.close()


def test_object_removed_during_a_search_is_a_hit_of_that_search(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(collection, "a", "b", "c")
    reader = Collection.open(collection.folder)
    search_vector = reader.session.search_vector

    def search_then_remove(*arguments: Any) -> Any:
        found = search_vector(*arguments)
        collection.remove("b")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(reader.session, "search_vector", search_then_remove)
        assert _found(reader) == {"a", "b", "c"}  # one snapshot for the index and the store
    assert _found(reader) == {"a", "c"}
    reader.close()


# -- the index is derived ----------------------------------------------------------------------------------------------


def _saved(folder: Path) -> list[Path]:
    return sorted(folder.glob("index-*"))


def test_reopened_copy_returns_identical_hits(things: Collection, tmp_path: Path) -> None:
    things.session.save_index()
    shutil.copytree(things.folder, tmp_path / "copy")
    with Collection.open(tmp_path / "copy") as copy:
        query = Query(id="shape-002.ply")
        for mine, its in zip(things.search(query), copy.search(query), strict=True):
            assert mine.to_json() == its.to_json()


@pytest.mark.parametrize("harm", ["gone", "noise", "old"])
def test_damaged_missing_or_old_index_is_rebuilt(harm: str, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with small_collection(folder) as collection:
        _put(collection, "a", "b")
    old = {path.name: path.read_bytes() for path in _saved(folder)}
    with Collection.open(folder, write=True) as collection:
        _put(collection, "c")
        collection.remove("a")
    for path in _saved(folder):
        path.write_bytes(b"noise") if harm == "noise" else path.unlink()
    if harm == "old":
        for name, data in old.items():
            (folder / name).write_bytes(data)
    with Collection.open(folder, write=True) as collection:
        assert _found(collection) == {"b", "c"}
    # The writer also rewrites the files.
    from mvretrieval.index.vector_index import VectorIndex

    loaded = VectorIndex.load(folder, 1)
    assert loaded is not None and loaded.sequence == 3 and len(loaded) == 2


def test_index_newer_than_the_store_is_rebuilt(tmp_path: Path) -> None:
    """Such as after restoring the database from a backup."""
    folder = tmp_path / "c"
    with small_collection(folder) as collection:
        _put(collection, "a")
    data = (folder / FILE).read_bytes()
    with Collection.open(folder, write=True) as collection:
        _put(collection, "b")
    (folder / FILE).write_bytes(data)
    with Collection.open(folder) as collection:
        assert _found(collection) == {"a"}
    # It is not used either when the store reaches the same sequence by other changes.
    with Collection.open(folder, write=True) as collection:
        _put(collection, "c", seed=5)
    with Collection.open(folder) as collection:
        (best,) = collection.search(
            Query(vector=collection.session.store.vector_of(collection.session.row_id_of("c"))), k=1
        )
        assert best.id == "c" and best.score == pytest.approx(1, abs=1e-5)


def test_a_collection_with_a_graph_is_saved_changed_and_searched(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with Collection.create(folder, SMALL, OpenOptions(workers=1), index="HNSW16,SQ8") as collection:
        store, dim = collection.session.store, collection.session.dim
        vectors = unit(np.random.default_rng(0).standard_normal((1200, dim)))
        with store.transaction():
            sequence = store.next_sequence()
            for i, vector in enumerate(vectors):
                store.put(new_object(f"{i}.ply", vector), sequence)
    with Collection.open(folder, write=True) as collection:
        assert collection.session.index.get().kind == "HNSW16,SQ8"
        thorough = SearchOptions(k=1, index=IndexParameters(ef_search=200))
        assert [collection.search(Query(vector=v), thorough)[0].id for v in vectors[:20]] == [
            f"{i}.ply" for i in range(20)
        ]
        collection.remove("3.ply")
        assert collection.search(Query(vector=vectors[3]), thorough)[0].id != "3.ply"
        with raises_code(CollectionError, "bad_index_kind", "HNSW16,Nope"):
            collection.set_index_kind("HNSW16,Nope")
        collection.set_index_kind("exact")
        assert collection.session.index.get().kind == "exact"
        assert collection.search(Query(vector=vectors[5]), k=1)[0].id == "5.ply"
    with Collection.open(folder) as collection:
        assert collection.session.index.get().kind == "exact" and len(collection) == 1199


def test_a_collection_with_an_unknown_kind_of_index_is_not_created(tmp_path: Path) -> None:
    with raises_code(CollectionError, "bad_index_kind", "approximate"):
        Collection.create(tmp_path / "c", SMALL, OpenOptions(workers=1), index="approximate")
    assert not (tmp_path / "c").exists()


def test_closed_collection_is_an_error(tmp_path: Path) -> None:
    collection = small_collection(tmp_path / "c")
    collection.close()
    with raises_code(CollectionError, "collection_closed"):
        _found(collection)


def test_threads_of_one_process_share_the_writer_lock(tmp_path: Path) -> None:
    small_collection(tmp_path / "c").close()
    with Collection.open(tmp_path / "c") as collection, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: collection.remove(f"unknown {n}"), range(32)))


AS_READER = """
import os, sys, urllib.parse  # pathlib imports urllib late, from Python 3.13 on
import numpy as np
from mvretrieval import Collection, Query
from mvretrieval.errors import CollectionError
def found(collection):
    return sorted(hit.id for hit in collection.search(Query(vector=np.ones(1024)), k=10))
with Collection.open(sys.argv[1]) as collection:
    found(collection)  # imports modules that the other user may not read
os.setgid(65534)
os.setuid(65534)
with Collection.open(sys.argv[1]) as collection:
    for line in sys.stdin:
        try:
            print(found(Collection.open(sys.argv[1]) if "open" in line else collection), flush=True)
        except CollectionError as error:
            print(error.code, flush=True)
    try:
        collection.remove("a")
    except CollectionError as error:
        print(error.code, flush=True)
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can change the user")
def test_user_with_read_permission_can_search() -> None:
    # In /tmp: the parents of tmp_path are closed to other users.
    folder = Path("/tmp") / f"mvr-reader-{os.getpid()}"
    try:
        with small_collection(folder) as collection:
            _put(collection, "a", "b")
        command = [sys.executable, "-c", AS_READER, str(folder)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdin is not None and reader.stdout is not None

            def reply_to(line: str) -> str:
                print(line, file=reader.stdin, flush=True)
                return reader.stdout.readline().strip()  # type: ignore[union-attr]

            assert reply_to("search") == "['a', 'b']"
            with Collection.open(folder, write=True) as writer:
                _put(writer, "c", seed=1)
                assert reply_to("search") == "changed_elsewhere"
                assert reply_to("open and search") == "['a', 'b', 'c']"
            assert reply_to("open and search") == "['a', 'b', 'c']"
            folder.chmod(0o700)
            assert reply_to("open and search") == "no_permission"
            shutil.rmtree(folder)
            assert reply_to("search") == "changed_elsewhere"
            last, _ = reader.communicate()
        assert last.strip() == "read_only"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_closed_collection_unmaps_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with small_collection(folder) as collection:
        _put(collection, "a")
    collection = Collection.open(folder)
    _found(collection)
    maps = Path("/proc/self/maps")
    assert str(folder / "index-") in maps.read_text()
    collection.close()
    assert str(folder) not in maps.read_text()


# -- errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        ("version", "newer_format"),
        ("deleted", "database_lost"),
        ("noise", "collection_damaged"),
        ("no describer", "collection_damaged"),
        ("gone", "not_a_collection"),
    ],
)
def test_damaged_collection_has_an_error_code(harm: str, code: str, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with small_collection(folder) as collection:
        _put(collection, "a")
    sql = {
        "version": f"PRAGMA user_version = {VERSION + 1}",
        "no describer": "DELETE FROM meta WHERE key = 'describer'",
    }
    if harm in sql:
        with sqlite3.connect(folder / FILE) as db:
            db.execute(sql[harm])
        db.close()
    elif harm == "deleted":
        (folder / FILE).unlink()
    elif harm == "noise":
        (folder / FILE).write_bytes(b"noise" * 1000)
    else:
        shutil.rmtree(folder)
    with raises_code(CollectionError, code, str(folder)):
        Collection.open(folder)
    if harm == "deleted":
        with raises_code(CollectionError, code, str(folder)):
            small_collection(folder)


def test_folders_in_which_no_collection_can_be_created(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    with raises_code(CollectionError, "folder_not_empty", "letter.txt"):
        small_collection(tmp_path / "full")
    with raises_code(CollectionError, "not_a_folder", "letter.txt"):
        small_collection(tmp_path / "full" / "letter.txt")
    with raises_code(CollectionError, "folder_not_created", "letter.txt"):
        small_collection(tmp_path / "full" / "letter.txt" / "c")
    small_collection(tmp_path / "c").close()
    with raises_code(CollectionError, "collection_exists"):
        small_collection(tmp_path / "c")


def test_create_opens_an_existing_collection_of_the_same_configuration(tmp_path: Path, shapes: Path) -> None:
    folder = tmp_path / "c"
    for n in (1, 2):
        with Collection.create(folder, SMALL, OpenOptions(workers=1), exist_ok=True) as collection:
            collection.add(shapes / f"shape-00{n}.ply")
            assert len(collection) == n
    with raises_code(DescriberError, "other_config", "size 64, not 96", "mvr reindex"):
        Collection.create(folder, replace(SMALL, size=96), exist_ok=True)
    with Collection.open(folder, write=True) as collection:  # the refused one has released its lock
        assert len(collection) == 2


def test_encoder_without_weights_leaves_no_folder(tmp_path: Path) -> None:
    config = replace(SMALL, encoder="image_only:mobilenet_v2@/nowhere.safetensors")
    with pytest.raises(EncoderError, match="/nowhere"):
        Collection.create(tmp_path / "c", config)
    assert not (tmp_path / "c").exists()


@pytest.mark.fresh_workers
def test_start_workers_starts_them_at_once_and_close_ends_them(tmp_path: Path) -> None:
    us = psutil.Process()
    machine = OpenOptions(workers=2, start_workers=True)
    one = replace(machine, workers=1)
    before = set(us.children())
    with Collection.create(tmp_path / "things", SMALL, machine):
        workers = set(us.children()) - before
        assert len(workers) == 2
        wait_for(lambda: all(worker.nice() == min(us.nice() + 10, 19) for worker in workers))  # lower priority
    with Collection.open(tmp_path / "things", one):
        assert len(set(us.children()) - before) == 1
    with pytest.raises(EncoderError):
        Collection.create(tmp_path / "others", replace(SMALL, encoder="image_only:mobilenet_v2@nothing.pt"), one)
    assert set(us.children()) == before


def test_failed_start_of_workers_releases_the_writer_lock(tmp_path: Path) -> None:
    Collection.create(tmp_path / "things", replace(SMALL, rig="views:3")).close()
    with raises_code(DescriberError, "unknown_directions") as _kept:  # the traceback keeps the session alive
        Collection.open(tmp_path / "things", OpenOptions(start_workers=True), write=True)
    Collection.open(tmp_path / "things", write=True).close()


def test_collection_can_be_created_after_a_kill_during_creation(tmp_path: Path) -> None:
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from made_meshes import SMALL
from mvretrieval.api import Collection
os.replace = lambda *names: os.kill(os.getpid(), 9)
Collection.create({str(tmp_path / "c")!r}, SMALL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert (tmp_path / "c").exists()
    with small_collection(tmp_path / "c") as collection:
        assert len(collection) == 0


def test_error_in_the_body_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(KeyError), small_collection(tmp_path / "c") as collection:
        collection.session.store.db.run("DROP TABLE vectors")
        raise KeyError
    with pytest.raises(CollectionError), Collection.open(tmp_path / "c", write=True) as collection:
        collection.session.index.get()
    with raises_code(CollectionError, "collection_damaged"):
        Collection.open(tmp_path / "c", write=True).close()
    # Even then the writer lock was released.
    Collection.open(tmp_path / "c", OpenOptions(), write=True).session.release()


def test_relocated_encoder_is_used_after_another_process_wrote(shapes: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from torchvision.models import mobilenet_v2

    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(mobilenet_v2().state_dict(), old)
    config = replace(SMALL, encoder=f"image_only:mobilenet_v2@{old}")
    with Collection.create(tmp_path / "c", config, OpenOptions(workers=1)) as collection:
        collection.add_folder(shapes)
    old.rename(new)
    with Collection.open(tmp_path / "c", OpenOptions(workers=1)) as collection:
        collection.session.relocate_encoder(f"image_only:mobilenet_v2@{new}")
        with Collection.open(tmp_path / "c") as another:
            another.augment(2)
        mesh = shapes / "shape-000.ply"
        hits = collection.search(Query(terms=[Term("mesh", mesh)]), k=3)  # augmented: a neighbour may come first
        assert "shape-000.ply" in [hit.id for hit in hits]
