"""A collection as a whole: who may write, what readers see, and what it survives."""

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

import numpy as np
import psutil
import pytest
from conftest import small_collection
from made_meshes import SMALL, new_object, unit, write_shapes
from waiting import wait_for

from mvrender.errors import MeshError
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.errors import CollectionError, DescriberError, EncoderError, LabelsError
from mvretrieval.search.query import Query, Term
from mvretrieval.store.store import FILE, VERSION

DIM = 1024  # of the built-in encoder


def _put(collection: Collection, *names: str, seed: int = 0) -> None:
    """Objects without meshes."""
    vectors = unit(np.random.default_rng(seed).standard_normal((len(names), DIM)))
    with collection.store.transaction():
        sequence = collection.store.next_sequence()
        for name, vector in zip(names, vectors, strict=True):
            collection.store.put(new_object(name, vector), sequence)


def _found(collection: Collection) -> set[str]:
    return {hit.id for hit in collection.search(Query(terms=[Term("vector", np.ones(DIM))]), k=1000)}


# -- adding and removing -----------------------------------------------------------------------------------------------


def test_one_mesh_can_be_added_replaced_and_removed(collection: Collection, tmp_path: Path) -> None:
    a, b = write_shapes(tmp_path, [0, 1])
    assert collection.add(a, metadata={"label": "box", "flag": True, "size": np.int64(3)}) == a.name
    assert collection.add(b, id="ball") == "ball"
    assert collection.get(a.name).metadata == {"label": "box", "flag": 1, "size": 3}
    assert collection.search(Query(mesh=a), k=1)[0].id == a.name
    shutil.copy(b, a)
    assert collection.add(a) == a.name
    assert collection.search(Query(id="ball"), k=1)[0].score == pytest.approx(1, abs=1e-5)
    assert collection.remove(a.name, "nobody") == 1
    assert _found(collection) == {"ball"}
    bad = tmp_path / "bad.obj"
    bad.write_text("v 0 0 0")
    with pytest.raises(MeshError, match="no_faces"):
        collection.add(bad)
    with pytest.raises(LabelsError, match=r"label 'x' cannot be \[1\]"):
        collection.add(b, metadata={"x": [1]})


def test_an_unknown_id_gets_the_nearest_known_one(things: Collection) -> None:
    with pytest.raises(CollectionError, match=r"no object 'shape-03.ply'.*did you mean 'shape-003.ply'\?"):
        things.get("shape-03.ply")


def test_an_empty_collection_has_no_hits(collection: Collection, shapes: Path) -> None:
    mesh = shapes / "shape-000.ply"
    assert collection.search(Query(mesh=mesh)) == []
    mixture = Query(terms=[Term("mesh", mesh), Term("mesh", shapes / "shape-001.ply", -0.5)])
    assert collection.search(mixture) == []
    assert len(collection) == 0


def test_k_may_be_larger_than_the_collection(things: Collection) -> None:
    assert len(things.search(Query(id="shape-000.ply"), k=10_000)) == 11


# -- several at once ---------------------------------------------------------------------------------------------------


def test_an_open_reader_notices_every_write(collection: Collection) -> None:
    reader = Collection.open(collection.folder)
    assert _found(reader) == set()
    _put(collection, "a", "b", "c")
    assert _found(reader) == {"a", "b", "c"}
    collection.remove("b")
    assert _found(reader) == {"a", "c"} and len(reader.session.index.get()) == 2
    before = reader.search(Query(id="a"))[0].score
    _put(collection, "a", seed=5)
    assert reader.search(Query(id="a"))[0].score != before
    collection.repool(collection.describer.with_config(pooling="max"))
    assert reader.describer.config.pooling == "max"
    assert reader.session.index.get().generation == 2 and _found(reader) == {"a", "c"}
    reader.close()


def test_one_writer_at_a_time(collection: Collection) -> None:
    with pytest.raises(
        CollectionError, match=rf"another program is writing to .* \(process {os.getpid()}\).*searching works"
    ):
        Collection.open(collection.folder, write=True)
    reader = Collection.open(collection.folder)
    for write in (lambda: reader.remove("a"), lambda: reader.add("a.ply"), lambda: reader.add_folder(".")):
        with pytest.raises(CollectionError, match="another program is writing"):
            write()
    reader.close()
    collection.close()
    with Collection.open(collection.folder, write=True) as writer:
        assert writer.remove("a") == 0


def test_the_right_to_write_ends_with_its_process(tmp_path: Path) -> None:
    program = (
        "import os, sys; from mvretrieval.api import Collection; "
        "c = Collection.open(sys.argv[1], write=True); os.kill(os.getpid(), 9)"
    )
    small_collection(tmp_path / "c").close()
    assert subprocess.run([sys.executable, "-c", program, tmp_path / "c"], check=False).returncode == -9
    Collection.open(tmp_path / "c", write=True).close()


def test_searches_in_threads_while_another_process_would_write(collection: Collection) -> None:
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


def test_an_object_removed_between_index_and_store_is_no_hit(collection: Collection) -> None:
    _put(collection, "a", "b", "c")
    reader = Collection.open(collection.folder)
    index = reader.session.index.get()
    reader.index = lambda: index  # type: ignore[method-assign]  # the moment before it would notice
    collection.remove("b")
    hits = reader.search(Query(terms=[Term("vector", np.ones(DIM))]))
    assert {hit.id for hit in hits} == {"a", "c"} and [hit.rank for hit in hits] == [1, 2]
    reader.close()


# -- the index is derived ----------------------------------------------------------------------------------------------


def _saved(folder: Path) -> list[Path]:
    return sorted(folder.glob("index-*"))


def test_saved_opened_and_searched_is_identical(things: Collection, tmp_path: Path) -> None:
    things.save_index()
    shutil.copytree(things.folder, tmp_path / "copy")
    with Collection.open(tmp_path / "copy") as copy:
        query = Query(id="shape-002.ply")
        for mine, its in zip(things.search(query), copy.search(query), strict=True):
            assert mine.to_json() == its.to_json()


@pytest.mark.parametrize("harm", ["gone", "noise", "old"])
def test_an_index_that_is_damaged_missing_or_old_is_made_anew(harm: str, tmp_path: Path) -> None:
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
    # The writer mends the files, too.
    from mvretrieval.index.vector_index import VectorIndex

    loaded = VectorIndex.load(folder, 1)
    assert loaded is not None and loaded.sequence == 3 and len(loaded) == 2


def test_an_index_from_a_later_state_than_the_store_is_made_anew(tmp_path: Path) -> None:
    """The database was restored from a copy."""
    folder = tmp_path / "c"
    with small_collection(folder) as collection:
        _put(collection, "a")
    data = (folder / FILE).read_bytes()
    with Collection.open(folder, write=True) as collection:
        _put(collection, "b")
    (folder / FILE).write_bytes(data)
    with Collection.open(folder) as collection:
        assert _found(collection) == {"a"}
    # Nor is it taken for that of the state that the store comes to by other changes.
    with Collection.open(folder, write=True) as collection:
        _put(collection, "c", seed=5)
    with Collection.open(folder) as collection:
        (best,) = collection.search(Query(vector=collection.store.vector_of(collection.row_id_of("c"))), k=1)
        assert best.id == "c" and best.score == pytest.approx(1, abs=1e-5)


def test_a_closed_collection_says_that_it_is(tmp_path: Path) -> None:
    collection = small_collection(tmp_path / "c")
    collection.close()
    with pytest.raises(CollectionError, match="was closed: open it again"):
        _found(collection)


def test_threads_of_one_process_share_the_right_to_write(tmp_path: Path) -> None:
    small_collection(tmp_path / "c").close()
    with Collection.open(tmp_path / "c") as collection, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: collection.remove(f"nobody {n}"), range(32)))


AS_READER = """
import os, sys
import numpy as np
from mvretrieval import Collection, Query
from mvretrieval.errors import CollectionError
def found(collection):
    return sorted(hit.id for hit in collection.search(Query(vector=np.ones(1024)), k=10))
with Collection.open(sys.argv[1]) as collection:
    found(collection)  # imports what nobody may not read
os.setgid(65534)
os.setuid(65534)
with Collection.open(sys.argv[1]) as collection:
    for line in sys.stdin:
        try:
            print(found(Collection.open(sys.argv[1]) if "open" in line else collection), flush=True)
        except CollectionError as error:
            print(error, flush=True)
    try:
        collection.remove("a")
    except CollectionError as error:
        print(error, flush=True)
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become nobody")
def test_who_may_only_read_can_search() -> None:
    # In /tmp and not in tmp_path, whose parents are closed to others.
    folder = Path("/tmp") / f"mvr-reader-{os.getpid()}"
    try:
        with small_collection(folder) as collection:
            _put(collection, "a", "b")
        command = [sys.executable, "-c", AS_READER, str(folder)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
            assert reader.stdin is not None and reader.stdout is not None

            def says(line: str) -> str:
                print(line, file=reader.stdin, flush=True)
                return reader.stdout.readline().strip()  # type: ignore[union-attr]

            assert says("search") == "['a', 'b']"
            with Collection.open(folder, write=True) as writer:
                _put(writer, "c", seed=1)
                assert "changed or removed by another program, and may only be read here: open it" in says("search")
                assert says("open and search") == "['a', 'b', 'c']"
            assert says("open and search") == "['a', 'b', 'c']"
            shutil.rmtree(folder)
            assert "changed or removed by another program" in says("search")
            last, _ = reader.communicate()
        assert "cannot be written" in last
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.skipif(sys.platform != "linux", reason="what a process has mapped is told by Linux")
def test_a_closed_collection_lets_go_of_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with small_collection(folder) as collection:
        _put(collection, "a")
    collection = Collection.open(folder)
    _found(collection)
    maps = Path("/proc/self/maps")
    assert str(folder / "index-") in maps.read_text()
    collection.close()
    assert str(folder) not in maps.read_text()


# -- what cannot be opened ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("version", f"has version {VERSION + 1}"),
        ("deleted", f"lost its {FILE}"),
        ("noise", "damaged"),
        ("no describer", "delete it and index again"),
        ("gone", "is no collection"),
    ],
)
def test_what_cannot_be_opened_says_why(harm: str, said: str, tmp_path: Path) -> None:
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
    with pytest.raises(CollectionError, match=said):
        Collection.open(folder)
    if harm == "deleted":
        with pytest.raises(CollectionError, match=said):
            small_collection(folder)


def test_where_no_collection_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    with pytest.raises(CollectionError, match=r"not empty \(letter.txt\)"):
        small_collection(tmp_path / "full")
    with pytest.raises(CollectionError, match="is a file"):
        small_collection(tmp_path / "full" / "letter.txt")
    with pytest.raises(CollectionError, match="cannot be made: Not a directory"):
        small_collection(tmp_path / "full" / "letter.txt" / "c")
    small_collection(tmp_path / "c").close()
    with pytest.raises(CollectionError, match="has a collection already"):
        small_collection(tmp_path / "c")


def test_an_encoder_that_cannot_be_had_leaves_nothing_behind(tmp_path: Path) -> None:
    config = replace(SMALL, encoder="image_only:mobilenet_v2@/nowhere.safetensors")
    with pytest.raises(EncoderError, match="no weights at /nowhere"):
        Collection.create(tmp_path / "c", config)
    assert not (tmp_path / "c").exists()


@pytest.mark.fresh_workers
def test_render_workers_start_at_once_where_asked_and_end_with_the_collection(tmp_path: Path) -> None:
    us = psutil.Process()
    machine = OpenOptions(workers=2, start_workers=True)
    before = set(us.children())
    with Collection.create(tmp_path / "things", SMALL, machine):
        workers = set(us.children()) - before
        assert len(workers) == 2
        wait_for(lambda: all(worker.nice() == min(us.nice() + 10, 19) for worker in workers))  # they step back
    with Collection.open(tmp_path / "things", machine):
        assert len(set(us.children()) - before) == 2
    with pytest.raises(EncoderError):
        Collection.create(tmp_path / "others", replace(SMALL, encoder="image_only:mobilenet_v2@nothing.pt"), machine)
    assert set(us.children()) == before


def test_workers_that_cannot_be_started_leave_the_right_to_write(tmp_path: Path) -> None:
    Collection.create(tmp_path / "things", replace(SMALL, rig="views:3")).close()
    with pytest.raises(DescriberError, match="no mesh can be seen") as _kept:  # with what is left of the attempt
        Collection.open(tmp_path / "things", OpenOptions(start_workers=True), write=True)
    Collection.open(tmp_path / "things", write=True).close()


def test_a_kill_while_a_collection_is_made_leaves_room_for_the_next_try(tmp_path: Path) -> None:
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


def test_an_error_in_the_body_is_the_one_that_is_seen(tmp_path: Path) -> None:
    with pytest.raises(KeyError), small_collection(tmp_path / "c") as collection:
        collection.store.db.run("DROP TABLE vectors")
        raise KeyError
    with pytest.raises(CollectionError), Collection.open(tmp_path / "c", write=True) as collection:
        collection.session.index.get()
    with pytest.raises(CollectionError, match="damaged or half deleted"):
        Collection.open(tmp_path / "c", write=True).close()
    # Even then the right to write was given back.
    Collection.open(tmp_path / "c", OpenOptions(), write=True)._release()


def test_weights_that_moved_are_found_after_another_writer_too(shapes: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from torchvision.models import mobilenet_v2

    old, new = tmp_path / "old.safetensors", tmp_path / "new.safetensors"
    save_file(mobilenet_v2().state_dict(), old)
    config = replace(SMALL, encoder=f"image_only:mobilenet_v2@{old}")
    with Collection.create(tmp_path / "c", config, OpenOptions(workers=1)) as collection:
        collection.add_folder(shapes)
    old.rename(new)
    with Collection.open(tmp_path / "c", OpenOptions(workers=1)) as collection:
        collection.relocate_encoder(f"image_only:mobilenet_v2@{new}")
        with Collection.open(tmp_path / "c") as another:
            another.smooth(2)
        mesh = shapes / "shape-000.ply"
        assert collection.search(Query(terms=[Term("mesh", mesh)]), k=1)[0].id == "shape-000.ply"
