"""Augmented collections (DBA): after any history, for any reader, after any kill."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import small_collection
from error_codes import raises_code
from hypothesis import given, settings
from hypothesis import strategies as st
from made_meshes import SMALL, new_object, unit, write_shapes
from numpy.typing import NDArray
from waiting import PATIENCE_S

from mvretrieval.api import Collection
from mvretrieval.augmentation import augment_database, average_neighbours
from mvretrieval.errors import CollectionError, DescriberError
from mvretrieval.index.augmenter import ORIGINAL_INDEX
from mvretrieval.index.kinds import IndexKind
from mvretrieval.ingest.reembed import reembed
from mvretrieval.search.query import Query, Term
from mvretrieval.store.augmented import AugmentationConfig, augmentation_of, is_up_to_date, search_vectors_since

DIM = 1024  # of the built-in encoder
Vectors = NDArray[np.float32]


def _vectors(n: int, seed: int = 0) -> Vectors:
    """Three clusters."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((3, DIM))
    return unit(centres[rng.integers(3, size=n)] + rng.standard_normal((n, DIM)))


def _add(collection: Collection, *names: str, seed: int = 0) -> None:
    """Objects without meshes, as indexing writes them."""
    for name, vector in zip(names, _vectors(len(names), seed), strict=True):
        new = new_object(name, vector)
        (augmented,) = collection.session.augmenter.of_new(vector[None], [new.path])
        with collection.session.store.transaction():
            collection.session.store.put(replace(new, augmented=augmented), collection.session.store.next_sequence())


def _names(n: int) -> list[str]:
    return [f"o{i:02}" for i in range(n)]


def _originals(collection: Collection) -> tuple[list[int], Vectors]:
    row_ids = [int(n) for n in collection.session.store.select(None)]
    vectors = [collection.session.store.vector_of(n) for n in row_ids]
    return row_ids, np.stack(vectors) if vectors else np.empty((0, DIM), np.float32)


def _searched(collection: Collection) -> dict[int, Vectors]:
    return {
        int(n): v
        for some, vectors in search_vectors_since(collection.session.store, -1)
        for n, v in zip(some, vectors, strict=True)
    }


def _found(collection: Collection, query: Vectors) -> dict[int, float]:
    scores, row_ids = collection.session.search_vector(query, 10_000)
    return dict(zip(row_ids.tolist(), scores.tolist(), strict=True))


def _assert_searches(collection: Collection, expected: dict[int, Vectors]) -> None:
    """Check the searched vectors, in the store and through the index."""
    present = _searched(collection)
    assert present.keys() == expected.keys()
    for row_id, vector in expected.items():
        np.testing.assert_allclose(present[row_id], vector, atol=2e-5)
    query = _vectors(1, seed=1234)[0]
    assert _found(collection, query) == pytest.approx({n: float(v @ query) for n, v in expected.items()}, abs=1e-4)


def _assert_augmented(collection: Collection, k: int, alpha: float = 3.0) -> None:
    row_ids, vectors = _originals(collection)
    _assert_searches(collection, dict(zip(row_ids, augment_database(vectors, k, alpha), strict=True)))


# -- any history -------------------------------------------------------------------------------------------------------


def test_augmentation_turned_on_changed_and_off(collection: Collection) -> None:
    _add(collection, *_names(25))
    row_ids, before = _originals(collection)
    for k, alpha in ((4, 3.0), (4, 1.0), (60, 0.0)):
        collection.augment(k, alpha)
        _assert_augmented(collection, k, alpha)
        assert augmentation_of(collection.session.store) == AugmentationConfig(k, alpha) and is_up_to_date(
            collection.session.store
        )
        np.testing.assert_array_equal(_originals(collection)[1], before)
    collection.augment(0)
    _assert_searches(collection, dict(zip(row_ids, before, strict=True)))
    assert augmentation_of(collection.session.store) is None


def test_augmentation_without_neighbours(collection: Collection) -> None:
    collection.augment(5)
    assert (
        collection.search(Query(terms=[Term("vector", np.ones(DIM))])) == []
        and collection.session.augmenter.refresh() == 0
    )
    _add(collection, "alone")
    collection.session.augmenter.refresh()
    _assert_augmented(collection, 5)
    row_ids, vectors = _originals(collection)
    _assert_searches(collection, dict(zip(row_ids, vectors, strict=True)))


def test_new_object_is_augmented_at_once_and_its_neighbours_by_refresh(collection: Collection) -> None:
    _add(collection, *_names(12))
    collection.augment(3)
    before = _searched(collection)
    _add(collection, "new", seed=7)
    row_id = collection.session.row_id_of("new")
    row_ids, vectors = _originals(collection)
    expected = before | {row_id: augment_database(vectors, 3)[row_ids.index(row_id)]}
    _assert_searches(collection, expected)
    assert not is_up_to_date(collection.session.store)
    assert 0 < collection.session.augmenter.refresh() < 13
    _assert_augmented(collection, 3)
    assert collection.session.augmenter.refresh() == 0 and is_up_to_date(collection.session.store)


def test_replaced_object_is_not_its_own_neighbour(collection: Collection) -> None:
    _add(collection, *_names(12))
    collection.augment(3)
    _add(collection, "o05", seed=8)
    row_ids, vectors = _originals(collection)
    place = row_ids.index(collection.session.row_id_of("o05"))
    np.testing.assert_allclose(_searched(collection)[row_ids[place]], augment_database(vectors, 3)[place], atol=2e-5)


def test_object_stored_without_augmentation_is_searched_by_its_own_vector(collection: Collection) -> None:
    """As an earlier release would write it."""
    _add(collection, *_names(8))
    collection.augment(3)
    for name, seed in (("o02", 5), ("new", 6)):
        vector = _vectors(1, seed)[0]
        with collection.session.store.transaction():
            collection.session.store.put(new_object(name, vector), collection.session.store.next_sequence())
        np.testing.assert_array_equal(_searched(collection)[collection.session.row_id_of(name)], vector)
    collection.session.augmenter.refresh()
    _assert_augmented(collection, 3)


def test_removed_objects_affect_their_neighbours_until_refresh(collection: Collection) -> None:
    _add(collection, *_names(12))
    collection.augment(3)
    before = _searched(collection)
    gone = [collection.session.row_id_of(name) for name in ("o00", "o07")]
    collection.remove("o00", "o07")
    _assert_searches(collection, {row_id: vector for row_id, vector in before.items() if row_id not in gone})
    collection.session.augmenter.refresh()
    _assert_augmented(collection, 3)
    assert (
        sorted(row[0] for row in collection.session.store.db.all("SELECT row_id FROM augmented"))
        == _originals(collection)[0]
    )


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 20), st.integers(0, 5)),
        st.tuples(st.just("remove"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("augment"), st.integers(0, 4), st.just(0)),
        st.tuples(st.just("refresh"), st.just(0), st.just(0)),
        st.tuples(st.just("reopen"), st.just(0), st.just(0)),
    ),
    max_size=10,
)


@settings(max_examples=8)
@given(steps=steps, kind=st.sampled_from(["exact", "ivf"]))
def test_refresh_after_any_history_equals_augmenting_all(
    steps: list[tuple[str, int, int]], kind: IndexKind, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("history") / "c"
    collection = Collection.create(folder, SMALL, index=kind)
    k = 3
    try:
        _add(collection, *_names(15))
        collection.augment(k)
        for step, n, seed in steps:
            if step == "add":
                _add(collection, f"o{n:02}", seed=seed)
            elif step == "remove":
                collection.remove(f"o{n:02}")
            elif step == "augment":
                k = n
                collection.augment(k)
            elif step == "refresh":
                collection.session.augmenter.refresh()
                _assert_augmented(collection, k)
            else:
                collection.close()
                collection = Collection.open(folder, write=True)
            assert _found(collection, _vectors(1)[0]).keys() == _searched(collection).keys()
        collection.session.augmenter.refresh()
        _assert_augmented(collection, k)
    finally:
        collection.session.release()


def test_refresh_after_few_changes_searches_few_objects(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(collection, *_names(40))
    collection.augment(4)
    searched: list[int] = []
    index = collection.session.augmenter._originals()
    real = type(index).search

    def search(self: Any, queries: Any, *more: Any) -> Any:
        searched.append(len(queries))
        return real(self, queries, *more)

    monkeypatch.setattr(type(index), "search", search)
    changes = (
        lambda: _add(collection, "a", "b", seed=3),
        lambda: collection.remove("o03"),
        lambda: _add(collection, "o10", seed=4),
    )
    for sequence in changes:
        sequence()
        searched.clear()
        collection.session.augmenter.refresh()
        assert 0 < sum(searched) < 40
        _assert_augmented(collection, 4)


# -- readers and kills -------------------------------------------------------------------------------------------------


def test_reader_sees_the_old_or_the_new_state(collection: Collection) -> None:
    _add(collection, *_names(12))
    reader = Collection.open(collection.folder)
    query = _vectors(1)[0]
    plain = _found(reader, query)
    real, seen = collection.session.augmenter._write, []

    def observed(*arguments: object) -> int:
        seen.append(_found(reader, query))
        result = real(*arguments)  # type: ignore[arg-type]
        seen.append(_found(reader, query))
        return result

    collection.session.augmenter._write = observed  # type: ignore[assignment, method-assign]
    collection.augment(4)
    assert seen == [plain, plain]
    _assert_augmented(reader, 4)
    with reader.session.reading():
        snapshot = _found(reader, query)
        _add(collection, "x", seed=3)
        collection.augment(2)
        assert _found(reader, query) == snapshot
    _assert_augmented(reader, 2)
    collection.augment(0)
    assert _found(reader, query).keys() == plain.keys() | {collection.session.row_id_of("x")}
    reader.close()


def test_searches_in_threads_during_augmentation(collection: Collection) -> None:
    _add(collection, *_names(30))
    wrong: list[BaseException] = []
    stop = threading.Event()

    def search() -> None:
        try:
            while not stop.is_set():
                hits = collection.search(Query(terms=[Term("vector", np.ones(DIM))]), k=5)
                assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(5):
        collection.augment(i)
        _add(collection, f"new{i}", seed=i)
        collection.session.augmenter.refresh()
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert wrong == []
    _assert_augmented(collection, 4)


_KILLS = {  # program, and the state after it is killed
    "augmenter.put_augmented = die; c.augment(5)": "old",
    "c.session.augmenter._write = die; c.augment(5)": "old",
    "augmenter.reset_augmentation = die; c.augment(0)": "old",
    "c.augment(5); die()": "new",
    "t._add(c, 'x', seed=5); die()": "one more",
    "t._add(c, 'x', seed=5); augmenter.put_augmented = die; c.session.augmenter.refresh()": "one more",
    "t._add(c, 'x', seed=5); c.session.augmenter.refresh(); c.session.save_index = die; c.close()": "refreshed",
    "c.session.augmenter.recompute = die; repool(c.session, c.describer)": "old",
}
_KILLER = """
import os, sys
sys.path[:0] = {folders!r}
from mvretrieval.index import augmenter
from mvretrieval.api import Collection
from mvretrieval.ingest.repool import repool
import test_augmented as t
die = lambda *a, **k: os.kill(os.getpid(), 9)
for folder, program in {todo!r}:
    child = os.fork()
    if child == 0:
        c = Collection.open(folder, write=True)
        exec(program)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9, program
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[int, Vectors]]:
    """The collection of each killed program, and the searched vectors before."""
    folder = tmp_path_factory.mktemp("killed")
    with small_collection(folder / "c") as collection:
        _add(collection, *_names(12))
        collection.augment(3)
        before = _searched(collection)
    folders = {program: folder / str(i) for i, program in enumerate(_KILLS)}
    for copy in folders.values():
        shutil.copytree(folder / "c", copy)
    todo = [(str(copy), program) for program, copy in folders.items()]
    here = Path(__file__).parent
    source = _KILLER.format(folders=[str(here), str(here.parent / "support")], todo=todo)
    subprocess.run([sys.executable, "-c", source], check=True)
    return folders, before


@pytest.mark.parametrize(("program", "after"), _KILLS.items())
def test_kill_leaves_the_old_or_the_new_state(
    program: str, after: str, killed: tuple[dict[str, Path], dict[int, Vectors]]
) -> None:
    folders, before = killed
    with Collection.open(folders[program], write=True) as collection:
        if after == "new":
            _assert_augmented(collection, 5)
        elif after == "refreshed":
            _assert_augmented(collection, 3)
        else:
            present = _searched(collection)
            more = {collection.session.row_id_of("x")} if after == "one more" else set()
            assert present.keys() == before.keys() | more
            _assert_searches(collection, before | {n: present[n] for n in more})
            collection.session.augmenter.refresh()
            _assert_augmented(collection, 3)


def test_index_of_original_vectors_is_rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("kinds", "faiss_candidates"):
        monkeypatch.setattr(f"mvretrieval.index.{module}.FEWEST_WITH_CODES", 5)
    folder = tmp_path / "c"
    with Collection.create(folder, SMALL, index="ivf") as collection:
        _add(collection, *_names(12))
        collection.augment(3)
    for harm in ("kept", "gone", "noise"):
        (saved,) = (folder / ORIGINAL_INDEX).glob("*.faiss")
        if harm == "gone":
            shutil.rmtree(folder / ORIGINAL_INDEX)
        elif harm == "noise":
            saved.write_bytes(b"noise")
        with Collection.open(folder, write=True) as collection:
            _add(collection, harm, seed=9)
            collection.session.augmenter.refresh()
            _assert_augmented(collection, 3)
    with Collection.open(folder, write=True) as collection:
        collection.augment(0)
    assert not (folder / ORIGINAL_INDEX).exists()


# -- with meshes -------------------------------------------------------------------------------------------------------


def test_indexing_adding_and_reembedding_keep_augmentation_up_to_date(collection: Collection, tmp_path: Path) -> None:
    meshes = tmp_path / "meshes"
    paths = write_shapes(meshes, range(6))
    collection.add_folder(meshes)
    collection.augment(2)
    write_shapes(meshes, range(6, 9))
    shutil.copy(paths[0], meshes / "twin.ply")
    report = collection.add_folder(meshes)
    assert (report.added, report.identical) == (4, 1) and report.augmented > 0
    _assert_augmented(collection, 2)
    assert collection.add_folder(meshes).augmented == 0

    shutil.copy(paths[1], tmp_path / "one.ply")
    collection.add(tmp_path / "one.ply")
    row_ids, vectors = _originals(collection)
    place = row_ids.index(collection.session.row_id_of("one.ply"))
    np.testing.assert_allclose(_searched(collection)[row_ids[place]], augment_database(vectors, 2)[place], atol=2e-5)
    collection.remove("shape-000.ply")
    (meshes / "shape-000.ply").unlink()
    assert collection.add_folder(meshes).augmented > 0
    _assert_augmented(collection, 2)

    reembed(collection.session, replace(SMALL, whiten=4))
    assert collection.session.index.get().dim == 4 and is_up_to_date(collection.session.store)
    row_ids, vectors = _originals(collection)
    for row_id, vector in zip(row_ids, augment_database(vectors, 2), strict=True):
        np.testing.assert_allclose(_searched(collection)[row_id], vector, atol=2e-5)
    reembed(collection.session, replace(SMALL, styles=("clay", "depth")))
    row_ids, vectors = _originals(collection)
    assert vectors.shape[1] == 2 * DIM
    for row_id, vector in zip(row_ids, augment_database(vectors, 2), strict=True):
        np.testing.assert_allclose(_searched(collection)[row_id], vector, atol=2e-5)
    assert len(collection.search(Query(id="one.ply"), k=20)) == len(row_ids) - 1


def test_query_by_id_equals_query_by_file(collection: Collection, tmp_path: Path) -> None:
    """Both use the original vector: the augmented one contains neighbours."""
    paths = write_shapes(tmp_path / "meshes", range(6))
    collection.add_folder(tmp_path / "meshes")
    collection.augment(2)
    by_file = collection.search(Query(mesh=paths[2]), k=6)
    by_id = collection.search(Query(id=paths[2].name), k=6)
    assert [hit.id for hit in by_id] == [hit.id for hit in by_file if hit.id != paths[2].name]
    own, searched = (
        collection.session.store.vector_of(collection.session.row_id_of(paths[2].name)),
        _searched(collection),
    )
    for hit in by_id:
        assert hit.score == pytest.approx(float(own @ searched[collection.session.row_id_of(hit.id)]), abs=1e-5)


def test_mixture_in_an_augmented_collection_is_z_scored_over_augmented_vectors(collection: Collection) -> None:
    _add(collection, *_names(20))
    collection.augment(4)
    terms = [Term("id", "o01"), Term("id", "o06", -0.5)]
    hits = collection.search(Query(terms=terms), k=100)
    searched = _searched(collection)
    gallery = np.stack(list(searched.values())).astype(float)
    total = np.zeros(len(gallery))
    for term in terms:
        cosines = gallery @ collection.session.store.vector_of(collection.session.row_id_of(term.value))
        total += term.weight * (cosines - cosines.mean()) / cosines.std()
    expected = dict(zip(searched, total, strict=True))
    assert {collection.session.row_id_of(hit.id): hit.score for hit in hits} == pytest.approx(
        {
            n: s
            for n, s in expected.items()
            if n not in (collection.session.row_id_of("o01"), collection.session.row_id_of("o06"))
        },
        abs=1e-3,
    )
    own = collection.session.store.vector_of(collection.session.row_id_of("o01"))
    assert hits[0].parts[0] == pytest.approx(float(searched[collection.session.row_id_of(hits[0].id)] @ own), abs=1e-5)


# -- errors ---------------------------------------------------------------------------------------------------------


def test_bad_augmentation_options_are_errors(collection: Collection) -> None:
    with raises_code(DescriberError, "bad_augmentation", "-2"):
        collection.augment(-2)
    for alpha in (-1.0, float("nan"), float("inf")):
        with raises_code(DescriberError, "bad_augmentation", f"{alpha:g}"):
            collection.augment(2, alpha)
    assert augmentation_of(collection.session.store) is None
    reader = Collection.open(collection.folder)
    with raises_code(CollectionError, "collection_locked"):
        reader.augment(3)
    reader.close()


def test_removed_neighbour_is_ignored(collection: Collection) -> None:
    _add(collection, *_names(3))
    collection.augment(5)
    vector = _vectors(1, seed=2)[0]
    assert collection.session.augmenter._average(vector, [777], AugmentationConfig(5)) is vector
    row_ids, vectors = _originals(collection)
    np.testing.assert_allclose(
        collection.session.augmenter._average(vector, [777, row_ids[1]], AugmentationConfig(5)),
        average_neighbours(vector, vectors[1:2]),
        atol=1e-6,
    )
