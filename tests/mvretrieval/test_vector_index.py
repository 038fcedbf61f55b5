"""The vector index equals brute force after any sequence of puts, replacements and drops."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from error_codes import raises_code
from hypothesis import given, settings
from hypothesis import strategies as st
from made_meshes import unit
from numpy.typing import NDArray

from mvretrieval.errors import CollectionError, QueryError
from mvretrieval.index.exact import nearest
from mvretrieval.index.faiss_candidates import check_factory
from mvretrieval.index.kinds import EXACT_UP_TO, IndexKind, IndexParameters, resolve_kind
from mvretrieval.index.rows import Rows
from mvretrieval.index.vector_index import Found, VectorIndex

DIM = 32  # with fewer, one bit per dimension is too coarse to find a vector by itself
MANY = 4000  # enough for an approximate index
KINDS = (
    "ivf",
    "hnsw",
    "HNSW16",
    "IVF16,Flat",
    "IVF16,PQ16x4",
    "IVF16,PQ16x4fs",
    "SQ8",
    "PCA31,HNSW16,SQ8",
    "IVF16,SQ8,Refine(SQ8)",
)


def _vectors(n: int, seed: int = 0, dim: int = DIM) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).standard_normal((n, dim)))


def _empty(kind: IndexKind = "exact") -> VectorIndex:
    return VectorIndex.build(kind, DIM, 0, 1, [], 0)


def _full(kind: IndexKind, n: int = 300) -> VectorIndex:
    row_ids = np.arange(1, n + 1)
    return VectorIndex.build(
        kind, DIM, 0, 1, [(row_ids[:100], _vectors(n)[:100]), (row_ids[100:], _vectors(n)[100:])], n
    )


def _brute_force(
    truth: dict[int, NDArray[np.float32]], query: NDArray[np.float32], k: int, allowed: Sequence[int] | None = None
) -> list[int]:
    kept = sorted(truth if allowed is None else truth.keys() & set(allowed))
    if not kept:
        return []
    scores = np.stack([truth[n] for n in kept]) @ query
    return [kept[i] for i in np.argsort(-scores, kind="stable")[:k]]


def _assert_equals_brute_force(
    index: VectorIndex, truth: dict[int, NDArray[np.float32]], allowed: Sequence[int] | None = None
) -> None:
    queries = _vectors(3, seed=99)
    for k in (1, 4, 10_000):
        wanted = None if allowed is None else np.array(allowed, np.int64)
        for query, (scores, row_ids) in zip(queries, index.search(queries, k, wanted), strict=True):
            assert row_ids.tolist() == _brute_force(truth, query, k, allowed)
            np.testing.assert_allclose(scores, _vectors_of(truth, row_ids) @ query, atol=1e-5)


def _vectors_of(truth: dict[int, NDArray[np.float32]], row_ids: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.array([truth[int(n)] for n in row_ids], np.float32).reshape(-1, DIM)


puts = st.tuples(st.just("put"), st.lists(st.integers(0, 40), min_size=1, max_size=12, unique=True))
drops = st.tuples(st.just("drop"), st.lists(st.integers(0, 60), max_size=12, unique=True))
saves: st.SearchStrategy[tuple[str, list[int]]] = st.tuples(st.just("save"), st.just([]))
changes = st.lists(st.one_of(puts, drops, saves), max_size=12)


def _changed(
    index: VectorIndex, truth: dict[int, NDArray[np.float32]], steps: list[tuple[str, list[int]]], folder: Path
) -> VectorIndex:
    """Apply steps to the index and to `truth`."""
    for i, (step, row_ids) in enumerate(steps):
        if step == "put":
            vectors = _vectors(len(row_ids), seed=1000 + i)
            index.put(np.array(row_ids), vectors)
            truth |= dict(zip(row_ids, vectors, strict=True))
        elif step == "drop":
            index.drop(np.array(row_ids, np.int64))
            for row_id in row_ids:
                truth.pop(row_id, None)
        elif index.n_unsaved > 0.01 * index.n_slots:
            index.sequence = i + 1
            index.save(folder)
            loaded = VectorIndex.load(folder, 1)
            assert loaded is not None and loaded.sequence == i + 1
            index = loaded
        assert len(index) == len(truth)
    return index


@settings(max_examples=60)
@given(steps=changes, allowed=st.lists(st.integers(0, 80), max_size=30, unique=True))
def test_exact_index_equals_brute_force_after_any_changes(
    steps: list[tuple[str, list[int]]], allowed: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    truth: dict[int, NDArray[np.float32]] = {}
    index = _changed(_empty(), truth, steps, tmp_path_factory.mktemp("index"))
    _assert_equals_brute_force(index, truth)
    _assert_equals_brute_force(index, truth, allowed)


@settings(max_examples=15)
@given(kind=st.sampled_from(KINDS), steps=changes, allowed=st.lists(st.integers(0, 80), max_size=30, unique=True))
def test_approximate_index_is_up_to_date_after_any_changes(
    kind: IndexKind,
    steps: list[tuple[str, list[int]]],
    allowed: list[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    index, truth = _full(kind, MANY), dict(enumerate(_vectors(MANY), start=1))
    index = _changed(index, truth, steps, tmp_path_factory.mktemp("index"))
    assert index.kind == kind
    _assert_equals_brute_force(index, truth, allowed)
    queries = sorted(truth)[:60]
    for row_id, (scores, row_ids) in zip(queries, index.search(np.stack([truth[n] for n in queries]), 5), strict=True):
        assert row_ids[0] == row_id and len(row_ids) == 5
        np.testing.assert_allclose(scores, [truth[int(n)] @ truth[row_id] for n in row_ids], atol=1e-5)


def _recall(found: list[Found], truth: list[list[int]]) -> float:
    return float(
        np.mean([len(set(row) & set(row_ids)) / len(row) for row, (_, row_ids) in zip(truth, found, strict=True)])
    )


def _nearest_of(row_ids: NDArray[np.int64], queries: NDArray[np.float32]) -> list[list[int]]:
    """The ten nearest among some objects of `_full(kind, MANY)`."""
    scores = queries @ _vectors(MANY)[row_ids - 1].T
    return [row_ids[np.argsort(-row)[:10]].tolist() for row in scores]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_finds_the_nearest(kind: IndexKind) -> None:
    """Before and after removals, and with a filter that keeps half of the objects."""
    index, queries = _full(kind, MANY), _vectors(20, seed=5)
    every, odd = np.arange(1, MANY + 1), np.arange(1, MANY + 1, 2)
    assert index.kind == kind
    assert _recall(index.search(queries, 10), _nearest_of(every, queries)) > 0.8
    index.drop(list(range(1, 1001)))
    assert _recall(index.search(queries, 10), _nearest_of(every[1000:], queries)) > 0.8
    found = index.search(queries, 10, odd)
    assert all(row_id > 1000 and row_id % 2 for _, row_ids in found for row_id in row_ids)
    assert _recall(found, _nearest_of(odd[500:], queries)) > 0.8


def test_a_graph_over_vectors_of_low_rank_is_small_and_finds_the_nearest(tmp_path: Path) -> None:
    """They have a mean too, which FAISS's projection subtracts."""
    rng = np.random.default_rng(0)
    axes = rng.standard_normal((20, 128))
    vectors = unit(rng.standard_normal((3000, 20)) @ axes + 10 + 0.1 * rng.standard_normal((3000, 128)))
    queries = unit(vectors[:50] + 0.02 * unit(rng.standard_normal((50, 128))))
    index = VectorIndex.build("hnsw", 128, 0, 1, [(np.arange(3000), vectors)], 3000)
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :10].tolist()
    assert _recall(index.search(queries, 10), truth) > 0.97
    index.save(tmp_path)
    assert (tmp_path / "index-1-0.faiss").stat().st_size < 3000 * (32 + 260)
    loaded = VectorIndex.load(tmp_path, 1)
    assert loaded is not None and loaded.kind == "hnsw"
    found = loaded.search(queries, 10, np.arange(0, 3000, 2), IndexParameters(ef_search=200))
    assert (
        _recall(found, [row for row in (2 * np.argsort(-(queries @ vectors[::2].T), axis=1)[:, :10]).tolist()]) > 0.97
    )


@pytest.mark.parametrize("kind", ["ivf", "IVF16,PQ16x4fs", "IVF16,PQ16x4", "hnsw"])
def test_objects_that_are_added_after_removals_are_found(kind: IndexKind) -> None:
    """FAISS 1.15 itself computes wrong codes for these in fast-scan lists (see `FaissCandidates`)."""
    index, fresh = _full(kind, MANY), _vectors(300, seed=3)
    index.drop(list(range(1, MANY, 13)))
    index.put(np.arange(5000, 5300), fresh)
    assert [row_ids[0] for _, row_ids in index.search(fresh, 5)] == list(range(5000, 5300))


def test_a_kind_with_many_lists_is_exact_while_there_are_few_vectors() -> None:
    index = _full("IVF64,Flat", 2000)  # FAISS asks for 39 vectors per list
    assert index.kind == "exact" and not index.needs_rebuild("IVF64,Flat")
    index.put(np.arange(3000, 3500), _vectors(500, seed=1))
    assert index.needs_rebuild("IVF64,Flat") and _full("IVF64,Flat", 2500).kind == "IVF64,Flat"


@pytest.mark.parametrize("kind", ["Nope", "IVF16,PQ7", "IDMap,Flat", "", "approximate"])
def test_a_kind_that_cannot_be_made_is_refused(kind: IndexKind) -> None:
    with raises_code(
        CollectionError, "bad_index_kind", kind, "auto, exact, hnsw, ivf or cagra", "mvr index --index help"
    ):
        check_factory(kind, DIM)


def test_vectors_that_became_too_short_for_a_kind_are_searched_exactly() -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((1500, 20)))
    with pytest.warns(UserWarning, match="no index of kind 'IVF16,PQ16x4' can be built"):
        index = VectorIndex.build("IVF16,PQ16x4", 20, 0, 1, [(np.arange(1500), vectors)], 1500)
    assert index.kind == "exact" and not index.needs_rebuild("IVF16,PQ16x4")
    assert index.search(vectors[7:8], 1)[0][1].tolist() == [7]


@pytest.mark.parametrize(
    ("kind", "few", "many"),
    [
        ("ivf", IndexParameters(nprobe=1), IndexParameters(nprobe=100)),
        ("HNSW8,SQ8", IndexParameters(ef_search=1), IndexParameters(ef_search=400)),
        ("PCA31,IVF64,Flat", IndexParameters(nprobe=1), IndexParameters(nprobe=64)),
        ("IVF64,SQ8,Refine(SQ8)", IndexParameters(nprobe=1), IndexParameters(nprobe=64)),
    ],
)
def test_parameters_decide_how_thoroughly_is_searched(
    kind: IndexKind, few: IndexParameters, many: IndexParameters
) -> None:
    index, queries = _full(kind, MANY), _vectors(20, seed=5)
    wanted = _nearest_of(np.arange(1, MANY + 1), queries)
    quick, thorough = (_recall(index.search(queries, 10, parameters=given), wanted) for given in (few, many))
    assert quick < thorough - 0.02 and thorough > 0.85
    assert len(index.search(queries[:1], 10, parameters=IndexParameters(nprobe=3, ef_search=3))[0][1]) == 10


def test_parameters_are_checked() -> None:
    with raises_code(QueryError, "bad_index_parameters", "nprobe is at least 1, not 0"):
        IndexParameters(nprobe=0)
    with raises_code(QueryError, "bad_index_parameters", "ef_search is at least 1, not -2"):
        IndexParameters(ef_search=-2)


def test_an_index_of_another_kind_is_rebuilt() -> None:
    index = _full("ivf", MANY)
    assert index.needs_rebuild("hnsw") and index.needs_rebuild("IVF16,Flat") and not index.needs_rebuild("ivf")


def test_recall_of_the_approximate_index() -> None:
    rng = np.random.default_rng(0)
    centres = _vectors(200, dim=64)
    gallery = unit(centres[rng.integers(0, 200, 8000)] + 0.1 * rng.standard_normal((8000, 64)))
    queries = unit(centres[:100] + 0.1 * rng.standard_normal((100, 64)))
    index = VectorIndex.build("ivf", 64, 0, 1, [(np.arange(8000), gallery)], 8000)
    found = index.search(queries, 10)
    truth = np.argsort(-(queries @ gallery.T), axis=1)[:, :10]
    recall = np.mean([len(set(row) & set(row_ids)) / 10 for row, (_, row_ids) in zip(truth, found, strict=True)])
    assert index.kind == "ivf" and recall > 0.95


def test_all_vectors_are_scored_if_the_probed_lists_are_too_small() -> None:
    """Nearly all vectors are equal and form one list; a query far from them wants more hits than all other lists have."""
    n = 40_000
    vectors = np.concatenate([np.tile(_vectors(1, seed=7), (n - 400, 1)), -_vectors(400, seed=8)])
    index = VectorIndex.build("ivf", DIM, 0, 1, [(np.arange(n), vectors)], n)
    for query in (-_vectors(1, seed=7), _vectors(1, seed=7)):
        ((scores, row_ids),) = index.search(query, k=550)
        assert len(row_ids) == 550
        np.testing.assert_allclose(scores, np.sort(vectors @ query[0])[::-1][:550], atol=1e-5)


@pytest.mark.parametrize("n", [300, MANY])
@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_filtered_search_is_exact(kind: IndexKind, n: int) -> None:
    index, truth = _full(kind, n), dict(enumerate(_vectors(n), start=1))
    assert index.kind == (kind if n == MANY else "exact") and len(index) == n
    for allowed in ([], [7], list(range(1, 20)), list(range(1, 290)), [5000, 3]):
        _assert_equals_brute_force(index, truth, allowed)


@pytest.mark.parametrize(("kind", "n"), [("exact", 300), ("ivf", MANY)])
def test_loaded_index_equals_the_saved_one_and_can_change(kind: IndexKind, n: int, tmp_path: Path) -> None:
    index, truth = _full(kind, n), dict(enumerate(_vectors(n), start=1))
    index.drop([3, 4])
    index.sequence = 17
    index.save(tmp_path)
    loaded = VectorIndex.load(tmp_path, 1)
    assert loaded is not None
    assert (loaded.kind, loaded.dim, loaded.sequence, loaded.generation, len(loaded)) == (kind, DIM, 17, 1, n - 2)
    del truth[3], truth[4]
    some = [*range(200, 280), *range(1, 12)]
    _assert_equals_brute_force(loaded, truth, some)
    fresh = _vectors(3, seed=5)
    for one in (index, loaded):  # after `save`, the saved index reads its file too
        one.put(np.array([3, 10, n + 600]), fresh)
    truth |= dict(zip((3, 10, n + 600), fresh, strict=True))
    for one in (index, loaded):
        _assert_equals_brute_force(one, truth, [*some, n + 600])
        assert one.search(fresh, 1)[2][1].tolist() == [n + 600]


def test_save_removes_older_files(tmp_path: Path) -> None:
    index = _full("ivf", MANY)
    for sequence in (9, 10, 100):
        index.put(np.arange(50), _vectors(50, seed=sequence))
        index.sequence = sequence
        index.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"index-1-100.{s}" for s in ("faiss", "npz", "vectors")]


def test_save_skips_few_changes(tmp_path: Path) -> None:
    index = _full("exact", 1000)
    index.save(tmp_path)
    index.sequence = 1
    index.put(np.array([2000]), _vectors(1))
    index.drop([4])
    index.save(tmp_path)
    lagging = VectorIndex.load(tmp_path, 1)
    assert lagging is not None and (lagging.sequence, len(lagging)) == (0, 1000)
    index.drop(list(range(10, 30)))
    index.save(tmp_path)
    loaded = VectorIndex.load(tmp_path, 1)
    assert loaded is not None and (loaded.sequence, len(loaded)) == (1, 980)


def test_open_index_works_after_its_files_are_replaced(tmp_path: Path) -> None:
    _full("exact").save(tmp_path)
    reader, truth = VectorIndex.load(tmp_path, 1), dict(enumerate(_vectors(300), start=1))
    assert reader is not None
    other = VectorIndex.build("exact", DIM, 7, 1, [(np.arange(5), _vectors(5, seed=3))], 5)
    other.save(tmp_path)
    assert not (tmp_path / "index-1-0.vectors").exists()
    _assert_equals_brute_force(reader, truth)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _scramble(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


@pytest.mark.parametrize("suffix", ["vectors", "faiss", "npz"])
@pytest.mark.parametrize(
    "harm", [Path.unlink, _cut, _scramble, lambda p: p.write_bytes(b"")], ids=["gone", "cut", "noise", "empty"]
)
def test_damaged_files_are_not_loaded(suffix: str, harm: Callable[[Path], object], tmp_path: Path) -> None:
    _full("ivf", MANY).save(tmp_path)
    assert VectorIndex.load(tmp_path, 1) is not None
    harm(tmp_path / f"index-1-0.{suffix}")
    assert VectorIndex.load(tmp_path, 1) is None


@pytest.mark.parametrize("suffix", ["vectors", "faiss"])
def test_files_of_different_saves_are_not_loaded(suffix: str, tmp_path: Path) -> None:
    _full("ivf", MANY).save(tmp_path)
    (tmp_path / "other").mkdir()
    _full("ivf", MANY + 1).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / f"index-1-0.{suffix}", tmp_path)
    assert VectorIndex.load(tmp_path, 1) is None


def test_older_files_are_loaded_if_the_newest_are_damaged(tmp_path: Path) -> None:
    index = _full("exact")
    index.save(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "aside")
    index.sequence = 5
    index.put(np.arange(40), _vectors(40, seed=1))
    index.save(tmp_path)
    for name in ("index-1-0.vectors", "index-1-0.npz"):
        shutil.copy(tmp_path / "aside" / name, tmp_path)
    _cut(tmp_path / "index-1-5.vectors")
    loaded = VectorIndex.load(tmp_path, 1)
    assert loaded is not None and loaded.sequence == 0


def test_files_of_another_generation_or_name_are_ignored(tmp_path: Path) -> None:
    _full("exact").save(tmp_path)
    (tmp_path / "index-2-copy.npz").write_bytes(b"not ours")
    assert VectorIndex.load(tmp_path, 2) is None
    pair = [(tmp_path / f"index-1-0.{s}", tmp_path / f"index-2-0.{s}") for s in ("vectors", "npz")]
    for own, other in pair:
        own.rename(other)
    assert VectorIndex.load(tmp_path, 2) is None


def test_empty_index_has_no_hits(tmp_path: Path) -> None:
    for kind in ("exact", "ivf"):
        index = _empty(kind)
        assert [len(row_ids) for _, row_ids in index.search(_vectors(2), 5)] == [0, 0]
        assert index.search(_vectors(0), 5) == []
        assert index.sample(10).shape == (0, DIM)
        index.save(tmp_path)
        loaded = VectorIndex.load(tmp_path, 1)
        assert loaded is not None and len(loaded) == 0
        loaded.put(np.array([4]), _vectors(1))
        assert loaded.search(_vectors(1), 5)[0][1].tolist() == [4]
        for path in tmp_path.iterdir():
            path.unlink()


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_sample_has_no_dropped_vectors(kind: IndexKind) -> None:
    index = _full(kind, MANY)
    index.drop(list(range(1, 2000)))
    sample = index.sample(10_000)
    np.testing.assert_allclose(sample, _vectors(MANY)[1999:], atol=1e-6)
    assert index.sample(10).shape == (10, DIM)


def test_index_with_many_dropped_slots_needs_rebuild() -> None:
    index = VectorIndex.build("exact", DIM, 0, 1, [(np.arange(2000), _vectors(2000))], 2000)
    assert not index.needs_rebuild("auto")
    index.drop(list(range(700)))
    assert index.needs_rebuild("auto") and len(index) == 1300


def test_index_of_another_size_than_at_build_needs_rebuild() -> None:
    exact = _full("exact", 1000)
    assert not exact.needs_rebuild("ivf")
    exact.put(np.array([5000]), _vectors(1))
    assert exact.needs_rebuild("ivf") and not exact.needs_rebuild("exact")
    codes = _full("ivf", 1001)
    assert codes.needs_rebuild("exact") and codes.needs_rebuild("auto")
    codes.drop(list(range(1, 201)))
    assert not codes.needs_rebuild("ivf"), "hysteresis at the threshold"
    codes.put(np.arange(2000, 6000), _vectors(4000))
    assert codes.needs_rebuild("ivf"), "its lists are too long"


def test_auto_kind_depends_on_the_size() -> None:
    sizes = [0, EXACT_UP_TO, EXACT_UP_TO + 1, 10**12]
    assert [resolve_kind("auto", n, DIM) for n in sizes] == ["exact", "exact", "hnsw", "ivf"]
    assert resolve_kind("ivf", 0, DIM) == "exact" and resolve_kind("exact", 10**9, DIM) == "exact"


# -- exact search -----------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 400),
    n_queries=st.integers(1, 4),
    k=st.integers(1, 60),
    size=st.integers(1, 200),
)
def test_nearest_is_independent_of_blocks_and_breaks_ties_by_row_id(
    seed: int, n: int, n_queries: int, k: int, size: int
) -> None:
    rng = np.random.default_rng(seed)
    # Few distinct scores, so that ties occur across blocks and at rank k.
    vectors, queries = (
        rng.integers(-1, 2, (n, 3)).astype(np.float32),
        rng.integers(-1, 2, (n_queries, 3)).astype(np.float32),
    )
    row_ids, counts = rng.permutation(n), rng.random(n) < 0.8
    parts = [slice(start, start + size) for start in range(0, n, size)]
    found = nearest(queries, ((row_ids[p], vectors[p], counts[p] if seed % 2 else None) for p in parts), k)
    kept = np.flatnonzero(counts) if seed % 2 else np.arange(n)
    for query, (scores, best) in zip(queries, found, strict=True):
        wanted = sorted(kept, key=lambda i: (-float(vectors[i] @ query), row_ids[i]))[:k]
        assert best.tolist() == row_ids[wanted].tolist()
        assert scores.tolist() == (vectors[wanted] @ query).tolist()


def test_rows_in_a_file_and_appended_rows_are_one_sequence(tmp_path: Path) -> None:
    vectors = _vectors(50)
    rows = Rows(DIM)
    rows.append(vectors[:20])
    rows.write(tmp_path / "rows")
    opened = Rows.open(tmp_path / "rows")
    opened.append(vectors[20:])
    slots = np.array([49, 3, 20, 19, 3])
    assert np.array_equal(opened.take(slots), vectors[slots])
    blocks = list(opened.blocks(7))
    assert np.array_equal(np.concatenate([block for _, block in blocks]), vectors)
    assert [start for start, _ in blocks] == np.cumsum([0, *(len(block) for _, block in blocks)])[:-1].tolist()
