"""Search on a GPU equals search on the CPU, and falls back to it with a reason.

A GPU's copies are FAISS indexes that are made in main memory and then moved. Without a GPU they are searched where they are made,
the flat ones with the same float16 codes: this tests everything but the GPU itself. Tests marked `gpu` move them.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
import pytest
from commands import runner
from hypothesis import given, settings
from hypothesis import strategies as st
from made_meshes import SMALL, new_object, unit
from main_memory import MainMemory
from numpy.typing import NDArray

from mvretrieval.api import Collection, OpenOptions
from mvretrieval.cli import doctor
from mvretrieval.index import gpu_search
from mvretrieval.index.gpu import choose_gpu, has_cagra, has_gpu_driver, why_no_gpu
from mvretrieval.index.gpu_copy import MOST_CANDIDATES, GpuPlace, Place, bytes_needed, form_of
from mvretrieval.index.gpu_search import ROUNDING, GpuSearch, why_too_large
from mvretrieval.index.kinds import IndexKind, IndexParameters
from mvretrieval.index.vector_index import Found, VectorIndex
from mvretrieval.search.options import SearchOptions
from mvretrieval.search.query import Query

faiss: Any = _faiss
DIM = 32
MANY = 4000
without_gpu = pytest.mark.skipif(has_gpu_driver(), reason="there is a GPU")
gpu_build = pytest.mark.skipif(not hasattr(faiss, "StandardGpuResources"), reason="a build without GPU support")


@pytest.fixture(params=["main memory", pytest.param("gpu", marks=pytest.mark.gpu)])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "main memory":
        return MainMemory()
    if not has_gpu_driver() or why_no_gpu():
        pytest.skip("no GPU that FAISS can use")
    return GpuPlace(0)


def _vectors(n: int, seed: int = 0) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).standard_normal((n, DIM)))


def _index(kind: IndexKind, vectors: NDArray[np.float32]) -> VectorIndex:
    return VectorIndex.build(kind, DIM, 0, 1, [(np.arange(1, len(vectors) + 1), vectors)], len(vectors))


def _search_on(place: Place | None, kind: IndexKind = "exact", device: str = "cuda") -> GpuSearch:
    return GpuSearch(device, lambda: kind, place)


def _assert_same(found: list[Found], wanted: list[Found]) -> None:
    """Scores that differ by rounding only may come in another order."""
    for (scores, row_ids), (wanted_scores, _) in zip(found, wanted, strict=True):
        np.testing.assert_allclose(scores, wanted_scores, rtol=0, atol=5e-7)
        assert len(set(row_ids.tolist())) == len(row_ids)


def _assert_exact(search: GpuSearch, index: VectorIndex, allowed: NDArray[np.int64] | None = None) -> None:
    queries = _vectors(4, seed=99)
    slots = None if allowed is None else index.slots_of(allowed)
    for k in (1, 10, 700, 10_000):
        n_found = min(k, len(index) if slots is None else len(slots))
        wanted = index.exact(queries, n_found, slots) if n_found else index.search(queries, 0)
        found = search.search(index, queries, k, allowed)
        _assert_same(found, wanted)
        for query, (scores, row_ids) in zip(queries, found, strict=True):
            own = index.slot_of[row_ids]
            assert (own >= 0).all() and (allowed is None or np.isin(row_ids, allowed).all())
            np.testing.assert_allclose(scores, index.rows.take(own) @ query, rtol=0, atol=5e-7)


# -- exact search -----------------------------------------------------------------------------------------------------

puts = st.tuples(st.just("put"), st.integers(1, 900))
drops = st.tuples(st.just("drop"), st.integers(1, 900))


def _put(index: VectorIndex, row_ids: NDArray[np.int64], seed: int) -> None:
    index.put(row_ids, _vectors(len(row_ids), seed))


@settings(max_examples=12)
@given(steps=st.lists(st.one_of(puts, drops), max_size=6), kept=st.floats(0, 1))
@pytest.mark.parametrize("kind", ["exact", "auto"])
def test_exact_search_after_any_changes(kind: IndexKind, steps: list[tuple[str, int]], kept: float) -> None:
    """Additions, replacements, removals and filters, with the same search object as before."""
    index, search = _index("exact", _vectors(3000)), _search_on(MainMemory(), kind)
    _assert_exact(search, index)
    rng = np.random.default_rng(len(steps))
    for i, (step, n) in enumerate(steps):
        row_ids = rng.choice(4000, n, replace=False)
        if step == "put":
            _put(index, row_ids, seed=i)
        else:
            index.drop(row_ids)
    _assert_exact(search, index)
    _assert_exact(search, index, np.flatnonzero(rng.random(4000) < kept))
    assert search.is_used and search.notices() == []


@pytest.mark.gpu
def test_exact_search_on_a_gpu_after_changes() -> None:
    if not has_gpu_driver() or why_no_gpu():
        pytest.skip("no GPU that FAISS can use")
    index, search = _index("exact", _vectors(50_000)), _search_on(GpuPlace(0))
    _assert_exact(search, index)
    _put(index, np.arange(49_000, 52_000), seed=1)
    index.drop(np.arange(0, 9000, 2))
    _assert_exact(search, index)
    for share in (2, 5, 100):
        _assert_exact(search, index, np.arange(0, 52_000, share))
    assert search.is_used and search.notices() == []


def _crowd(n: int) -> NDArray[np.float32]:
    """A crowd of vectors that float16 cannot tell apart, among others; they are the nearest of the first of `_vectors(4, 99)`."""
    rng = np.random.default_rng(1)
    query, other = _vectors(4, seed=99)[:2]
    near = unit(query + 0.3 * other) + 1e-4 * rng.standard_normal((n, DIM))
    return unit(np.concatenate([_vectors(3000 - n), near]).astype(np.float32))


@pytest.mark.parametrize("n_crowd", [1500, 2600])
def test_vectors_that_float16_cannot_tell_apart_are_ranked_exactly(n_crowd: int, place: Place) -> None:
    """The first crowd fits into the candidates that are taken at most; with the second, the CPU searches."""
    _assert_exact(_search_on(place), _index("exact", _crowd(n_crowd)))


def test_without_the_error_bound_they_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_search, "ROUNDING", -3.0)
    with pytest.raises(AssertionError):
        _assert_exact(_search_on(MainMemory()), _index("exact", _crowd(1500)))


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), dim=st.sampled_from([1, 3, 64, 1280]))
def test_the_error_bound_holds_for_float16(seed: int, dim: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (unit(rng.standard_normal((50, dim)) ** 3) for _ in range(2))
    rounded = a.astype(np.float16).astype(np.float32) @ b.astype(np.float16).astype(np.float32).T
    assert np.abs(rounded - a @ b.T).max() < 0.6 * ROUNDING


def test_an_empty_index_and_no_queries(place: Place) -> None:
    search, empty = _search_on(place), VectorIndex.build("exact", DIM, 0, 1, [], 0)
    assert [len(row_ids) for _, row_ids in search.search(empty, _vectors(2), 5)] == [0, 0]
    _put(empty, np.array([7]), seed=1)
    assert search.search(empty, _vectors(1), 5)[0][1].tolist() == [7]
    assert search.search(empty, _vectors(0), 5) == []


def test_another_index_gets_its_own_copy(place: Place) -> None:
    search = _search_on(place)
    for seed in range(3):
        _assert_exact(search, _index("exact", _vectors(500, seed)))
    search.close()
    _assert_exact(search, _index("exact", _vectors(500)))


# -- other kinds ------------------------------------------------------------------------------------------------------

LISTS = ("ivf", "IVF16,Flat", "IVF16,SQ8", "PCA31,IVF16,SQ8", "IVF16,PQ16x4")


def _recall(found: list[Found], wanted: list[Found]) -> float:
    pairs = zip(found, wanted, strict=True)
    return float(np.mean([len(set(a.tolist()) & set(b.tolist())) / len(b) for (_, a), (_, b) in pairs]))


@pytest.mark.parametrize("kind", [*LISTS, "cagra"])
def test_other_kinds_find_the_nearest(kind: IndexKind, place: Place) -> None:
    """As well as on the CPU, before and after changes, and with a filter; every hit has its exact score."""
    if kind == "cagra" and isinstance(place, GpuPlace) and not has_cagra():
        pytest.skip("this build of FAISS has no CAGRA")
    if isinstance(place, GpuPlace):
        kind = kind.replace("x4", "")  # GPUs have product quantization with 8 bits; its training takes minutes on a CPU
    index, search, queries = _index(kind, _vectors(10_500)), _search_on(place, kind), _vectors(30, seed=5)
    assert index.kind == kind
    odd = np.arange(1, 22_000, 2)
    for step in range(3):
        if step == 1:
            _put(index, np.arange(10_400, 10_800), seed=1)
            index.drop(np.arange(1, 1000))
        elif step == 2:
            _put(index, np.arange(20_000, 21_000), seed=2)
        for allowed in (None, odd):
            found = search.search(index, queries, 10, allowed)
            slots = None if allowed is None else index.slots_of(allowed)
            wanted = index.exact(queries, 10, slots)
            assert _recall(found, wanted) >= min(0.95, _recall(index.search(queries, 10, allowed), wanted)) - 0.05
            for query, (scores, row_ids) in zip(queries, found, strict=True):
                assert (index.slot_of[row_ids] >= 0).all() and (allowed is None or (row_ids % 2 == 1).all())
                np.testing.assert_allclose(scores, index.rows.take(index.slot_of[row_ids]) @ query, atol=1e-5)
    assert search.is_used and search.notices() == []


@pytest.mark.parametrize("kind", ["ivf", "PCA31,IVF64,Flat"])
def test_nprobe_decides_how_many_lists_are_searched(kind: IndexKind, place: Place) -> None:
    index, search, queries = _index(kind, _vectors(6000)), _search_on(place, kind), _vectors(30, seed=5)
    wanted = index.exact(queries, 10, None)
    few, many = (
        _recall(search.search(index, queries, 10, parameters=IndexParameters(nprobe=n)), wanted) for n in (1, 10_000)
    )
    assert few < 0.9 < many and search.is_used


@pytest.mark.parametrize(
    "kind", ["hnsw", "HNSW16", "SQ8", "IVF16,PQ16x4fs", "IVF16,SQ8,Refine(SQ8)", "IVF16_HNSW8,Flat"]
)
def test_kinds_that_the_gpu_does_not_have_are_searched_on_the_cpu(kind: IndexKind) -> None:
    index, search, queries = _index(kind, _vectors(MANY)), _search_on(MainMemory(), kind), _vectors(5, seed=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _assert_same(search.search(index, queries, 10), index.search(queries, 10))
    (notice,) = search.notices()
    assert f"'{kind}'" in notice and "on the CPU" in notice and not search.is_used


def test_auto_is_exact_on_a_gpu_whatever_the_cpu_searches(place: Place) -> None:
    index = _index("hnsw", _vectors(MANY))  # as `auto` among many objects
    _assert_exact(_search_on(place, "auto"), index)


def test_forms_and_their_memory() -> None:
    exact, lists, graph = (_index(kind, _vectors(MANY)) for kind in ("exact", "ivf", "cagra"))
    assert [form_of(exact, "exact"), form_of(lists, "ivf"), form_of(graph, "cagra")] == [
        ("flat", ""), ("lists", ""), ("graph", ""),
    ]  # fmt: skip
    assert form_of(graph, "auto") == ("flat", "") and form_of(_index("ivf", _vectors(100)), "ivf") == ("flat", "")
    fixed = 512 << 20
    assert bytes_needed(exact, "flat") == fixed + 2 * MANY * (2 * DIM + 4)
    assert bytes_needed(lists, "lists") == fixed + 2 * MANY * (DIM + 8)
    assert bytes_needed(_index("IVF16,PQ16x4", _vectors(MANY)), "lists") == fixed + 2 * MANY * (8 + 8)
    assert bytes_needed(graph, "graph") == fixed + 3 * MANY * (4 * DIM + 4 * 64)


# -- choice, reasons and fallback -------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda:", "cuda:x", "cuda:-1", ""])
def test_other_devices_have_no_gpu_and_need_no_reason(device: str) -> None:
    assert choose_gpu(device) == (None, "")


@without_gpu
def test_without_a_gpu_auto_is_silent_and_cuda_has_a_reason() -> None:
    assert choose_gpu("auto") == (None, "")
    assert choose_gpu("cuda") == choose_gpu("cuda:3") == (None, why_no_gpu())
    assert why_no_gpu() == "FAISS finds no GPU" or not hasattr(faiss, "StandardGpuResources")
    assert GpuSearch.for_device("auto", lambda: "auto") is None and GpuSearch.for_device("cpu", lambda: "auto") is None


def test_a_build_without_gpu_support_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    why_no_gpu.cache_clear()
    try:
        number, reason = choose_gpu("cuda")
    finally:
        why_no_gpu.cache_clear()
    assert number is None and "build without GPU support" in reason and "faiss-gpu" in reason


@without_gpu
@gpu_build
def test_the_trial_in_a_subprocess_tells_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a driver is there, and FAISS finds no GPU."""
    monkeypatch.setattr("mvretrieval.index.gpu.has_gpu_driver", lambda: True)
    why_no_gpu.cache_clear()
    try:
        assert choose_gpu("auto") == (None, "FAISS finds 0 GPUs, and no cuda:0")
    finally:
        why_no_gpu.cache_clear()


def test_memory() -> None:
    assert why_too_large(10**9, None) == "" and why_too_large(8 * 10**8, 10**9) == ""
    assert "9.0 GB" in why_too_large(9 * 10**9, 10**10) and "10.0 GB are free" in why_too_large(9 * 10**9, 10**10)


@without_gpu
@gpu_build
@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_an_error_of_faiss_while_copying_is_the_reason(kind: IndexKind) -> None:
    """FAISS's own error for a GPU that is not there."""
    index, search, queries = _index(kind, _vectors(MANY)), _search_on(GpuPlace(0), kind), _vectors(3, seed=5)
    for _ in range(2):
        _assert_same(search.search(index, queries, 10), index.search(queries, 10))
    (notice,) = search.notices()
    assert "FAISS failed on the GPU" in notice and "Invalid GPU device 0" in notice


class _FailsLater:
    """A flat index whose second search fails."""

    def __init__(self, index: Any) -> None:
        self._index, self._n_calls = index, 0
        self._search = getattr(index, "search_numpy", index.search)  # see `GpuCopy`

    def add(self, vectors: NDArray[np.float32]) -> None:
        self._index.add(vectors)

    def search(self, *arguments: Any, **named: Any) -> Any:
        self._n_calls += 1
        if self._n_calls == 2:
            raise RuntimeError("Error in void faiss::gpu::x() at gpu/x.cu:65: Error: 'a == b' failed: out of memory")
        return self._search(*arguments, **named)


class _Failing(MainMemory):
    def move(self, index: Any) -> Any:
        return _FailsLater(super().move(index))


def test_an_error_of_a_search_moves_all_later_ones_to_the_cpu() -> None:
    index, search = _index("exact", _vectors(MANY)), _search_on(_Failing())
    queries = _vectors(3, seed=5)
    _assert_same(search.search(index, queries, 10), index.search(queries, 10))
    with pytest.warns(UserWarning, match="on the CPU from now on: FAISS failed on the GPU .*out of memory"):
        _assert_same(search.search(index, queries, 10), index.search(queries, 10))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _assert_same(search.search(index, queries, 10), index.search(queries, 10))
    assert not search.is_used and "out of memory" in search.notices()[0]


def test_auto_copies_only_when_that_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_search, "AUTO_FROM_SCORES", 10 * MANY)
    index, search = _index("exact", _vectors(MANY)), _search_on(MainMemory(), device="auto")
    used = []
    for _ in range(4):
        _assert_same(search.search(index, _vectors(3, seed=5), 10), index.search(_vectors(3, seed=5), 10))
        used.append(search.is_used)
    assert used == [False, False, False, True]


def test_more_hits_than_a_gpu_can_select() -> None:
    index, search = _index("exact", _vectors(MANY)), _search_on(MainMemory())
    for k in (MOST_CANDIDATES, MOST_CANDIDATES + 1, MANY):
        _assert_same(search.search(index, _vectors(2, seed=5), k), index.search(_vectors(2, seed=5), k))


# -- collections and commands -----------------------------------------------------------------------------------------


@without_gpu
def test_a_collection_is_searched_and_says_why_not_on_the_gpu(things: Collection) -> None:
    folder = things.session.folder
    query = next(things.ids())
    notices, hits = {}, {}
    for device in ("auto", "cpu", "cuda"):
        with Collection.open(folder, OpenOptions(device)) as collection:
            session = collection.session
            found = session.search_vector(_own(session, query), 5)
            hits[device] = found[1].tolist()
            notices[device] = session.index.notices()
    assert hits["auto"] == hits["cpu"] == hits["cuda"]
    assert notices == {"auto": [], "cpu": [], "cuda": [f"vectors are searched on the CPU: {why_no_gpu()}"]}


def test_the_copy_of_a_collection_follows_its_changes(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Additions, replacements, removals, another kind, and a filter, as a search of the collection sees them."""
    opened: list[GpuSearch] = []

    def for_device(device: str, kind: Any) -> GpuSearch:
        opened.append(GpuSearch(device, kind, place))
        return opened[-1]

    monkeypatch.setattr(GpuSearch, "for_device", for_device)
    with Collection.create(tmp_path / "c", SMALL, OpenOptions("cuda")) as collection:
        store = collection.session.store
        store.set_meta("view_dim", DIM)

        def put(start: int, stop: int, seed: int) -> None:
            with store.transaction():
                sequence = store.next_sequence()
                for n, vector in zip(range(start, stop), _vectors(stop - start, seed), strict=True):
                    row_id = store.put(new_object(str(n), vector), sequence)
                    store.set_metadata(row_id, {"parity": n % 2})

        def nearest(vector: NDArray[np.float32], where: str | None = None) -> str:
            return collection.search(Query(vector=vector), SearchOptions(k=1, where=where))[0].id

        put(0, 1200, seed=0)
        assert nearest(_vectors(1200)[7]) == "7" and [search.is_used for search in opened] == [True]
        put(1200, 1210, seed=1)
        put(7, 8, seed=2)
        assert nearest(_vectors(10, 1)[3]) == "1203" and nearest(_vectors(1, 2)[0]) == "7"
        assert nearest(_vectors(10, 1)[3], "parity = 1") == "1203" != nearest(_vectors(10, 1)[3], "parity = 0")
        collection.remove("1203")
        assert nearest(_vectors(10, 1)[3]) != "1203"
        collection.set_index_kind("ivf")
        assert nearest(_vectors(10, 1)[4]) == "1204" and nearest(_vectors(10, 1)[3]) != "1203"
        assert opened[0].is_used and collection.session.index.notices() == []
    assert len(opened) == 1 and not opened[0].is_used, "closing releases the memory"


def test_the_doctor_tells_whether_vectors_are_searched_on_the_gpu() -> None:
    (finding,) = doctor._vector_search()
    assert finding.state == ("missing" if why_no_gpu() else "ok") and why_no_gpu() in finding.detail


def _own(session: Any, object_id: str) -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = session.index.get().rows.take(
        session.index.get().slots_of(np.array([session.row_id_of(object_id)]))
    )[0]
    return vectors


@without_gpu
def test_the_command_says_it_once(
    things: Collection, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mvr = runner(monkeypatch, capsys, "search", str(things.session.folder), "--id", next(things.ids()))
    for device, n in (("cuda", 1), ("auto", 0)):
        code, _, err = mvr("--device", device)
        assert code == 0
        assert err.count(f"note: vectors are searched on the CPU: {why_no_gpu()}") == n


@pytest.mark.skipif(has_cagra(), reason="this build of FAISS has CAGRA")
def test_cagra_without_its_build_is_a_graph_on_the_cpu(tmp_path: Path) -> None:
    index = _index("cagra", _vectors(MANY))
    assert index.kind == "cagra" and not index.needs_rebuild("cagra") and index.needs_rebuild("hnsw")
    index.save(tmp_path)
    loaded = VectorIndex.load(tmp_path, 1)
    assert loaded is not None and loaded.kind == "cagra"
    queries = _vectors(20, seed=5)
    assert _recall(loaded.search(queries, 10), loaded.exact(queries, 10, None)) > 0.8
    assert "faiss-gpu-cuvs" in gpu_search.notices_without_gpu("cagra")[0]
    assert gpu_search.notices_without_gpu("hnsw") == []
