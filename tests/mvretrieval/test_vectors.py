"""The FAISS index finds what scoring every vector finds, whatever was put, replaced and dropped before."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_meshes import unit
from numpy.typing import NDArray

from mvretrieval.collection.vectors import EXACT_UP_TO, HNSW_UP_TO, IndexKind, VectorIndex, resolve_kind

DIM = 8


def _vectors(n: int, seed: int = 0) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).standard_normal((n, DIM)))


def _empty(kind: IndexKind = "exact") -> VectorIndex:
    return VectorIndex.build(kind, DIM, 0, 1, [], 0)


def _full(kind: IndexKind, n: int = 300) -> VectorIndex:
    numbers = np.arange(1, n + 1)
    return VectorIndex.build(kind, DIM, 0, 1, [(numbers[:100], _vectors(n)[:100]), (numbers[100:], _vectors(n)[100:])], n)


def _brute_force(
    truth: dict[int, NDArray[np.float32]], query: NDArray[np.float32], k: int, allowed: Sequence[int] | None = None
) -> list[int]:
    kept = [n for n in sorted(truth) if allowed is None or n in set(allowed)]
    return sorted(kept, key=lambda n: (-float(truth[n] @ query), n))[:k]


def _assert_equal(index: VectorIndex, truth: dict[int, NDArray[np.float32]], allowed: Sequence[int] | None = None) -> None:
    queries = _vectors(3, seed=99)
    for k in (1, 4, 10_000):
        wanted = None if allowed is None else np.array(allowed, np.int64)
        for query, (scores, numbers) in zip(queries, index.search(queries, k, wanted), strict=True):
            assert numbers.tolist() == _brute_force(truth, query, k, allowed)
            np.testing.assert_allclose(scores, [truth[int(n)] @ query for n in numbers], atol=1e-5)


puts = st.tuples(st.just("put"), st.lists(st.integers(0, 40), min_size=1, max_size=12, unique=True))
drops = st.tuples(st.just("drop"), st.lists(st.integers(0, 60), max_size=12, unique=True))


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.one_of(puts, drops), max_size=12),
    allowed=st.lists(st.integers(0, 80), max_size=30, unique=True),
    kind=st.sampled_from(["exact", "hnsw"]),
)
def test_any_sequence_of_changes_finds_what_brute_force_finds(
    steps: list[tuple[str, list[int]]], allowed: list[int], kind: IndexKind
) -> None:
    index, truth = _empty(kind), {}
    for i, (what, numbers) in enumerate(steps):
        if what == "put":
            vectors = _vectors(len(numbers), seed=i)
            index.put(np.array(numbers), vectors)
            truth |= dict(zip(numbers, vectors, strict=True))
        else:
            index.drop(np.array(numbers, np.int64))
            truth = {n: v for n, v in truth.items() if n not in numbers}
        assert len(index) == len(truth)
    _assert_equal(index, truth)
    _assert_equal(index, truth, allowed)


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivf"])
def test_every_kind_finds_what_brute_force_finds(kind: IndexKind) -> None:
    index, truth = _full(kind), dict(enumerate(_vectors(300), start=1))
    assert index.kind == kind and len(index) == 300
    _assert_equal(index, truth)
    for allowed in ([], [7], list(range(1, 20)), list(range(1, 290)), [5000, 3]):
        _assert_equal(index, truth, allowed)


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivf"])
def test_saved_and_loaded_is_the_same_and_goes_on(kind: IndexKind, tmp_path: Path) -> None:
    index, truth = _full(kind), dict(enumerate(_vectors(300), start=1))
    index.drop([3, 4])
    index.change = 17
    index.save(tmp_path)
    loaded = VectorIndex.load(tmp_path, 1)
    assert loaded is not None
    assert (loaded.kind, loaded.dim, loaded.change, loaded.epoch, len(loaded)) == (kind, DIM, 17, 1, 298)
    del truth[3], truth[4]
    _assert_equal(loaded, truth)
    fresh = _vectors(3, seed=5)
    loaded.put(np.array([3, 10, 900]), fresh)
    truth |= dict(zip((3, 10, 900), fresh, strict=True))
    _assert_equal(loaded, truth)


def test_only_the_newest_save_stays(tmp_path: Path) -> None:
    index = _full("exact")
    for change in (9, 10, 100):
        index.change = change
        index.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index-1-100.faiss", "index-1-100.npz"]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _scramble(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


@pytest.mark.parametrize("suffix", ["faiss", "npz"])
@pytest.mark.parametrize(
    "harm", [Path.unlink, _cut, _scramble, lambda p: p.write_bytes(b"")], ids=["gone", "cut", "noise", "empty"]
)
def test_damaged_files_are_not_loaded(suffix: str, harm: Callable[[Path], object], tmp_path: Path) -> None:
    _full("exact").save(tmp_path)
    harm(tmp_path / f"index-1-0.{suffix}")
    assert VectorIndex.load(tmp_path, 1) is None


def test_an_older_pair_is_loaded_where_the_newest_is_damaged(tmp_path: Path) -> None:
    index = _full("exact")
    index.save(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "aside")
    index.change = 5
    index.save(tmp_path)
    for name in ("index-1-0.faiss", "index-1-0.npz"):
        shutil.copy(tmp_path / "aside" / name, tmp_path)
    _cut(tmp_path / "index-1-5.faiss")
    loaded = VectorIndex.load(tmp_path, 1)
    assert loaded is not None and loaded.change == 0


def test_files_of_another_epoch_or_with_strange_names_are_left_alone(tmp_path: Path) -> None:
    _full("exact").save(tmp_path)
    (tmp_path / "index-2-copy.npz").write_bytes(b"not ours")
    assert VectorIndex.load(tmp_path, 2) is None
    pair = [(tmp_path / f"index-1-0.{s}", tmp_path / f"index-2-0.{s}") for s in ("faiss", "npz")]
    for own, other in pair:
        own.rename(other)
    assert VectorIndex.load(tmp_path, 2) is None


def test_an_empty_index_answers_nothing(tmp_path: Path) -> None:
    for kind in ("exact", "hnsw", "ivf"):
        index = _empty(kind)  # type: ignore[arg-type]
        assert [len(numbers) for _, numbers in index.search(_vectors(2), 5)] == [0, 0]
        assert index.sample(10).shape == (0, DIM)
        index.save(tmp_path)
        loaded = VectorIndex.load(tmp_path, 1)
        assert loaded is not None and len(loaded) == 0
        loaded.put(np.array([4]), _vectors(1))
        assert loaded.search(_vectors(1), 5)[0][1].tolist() == [4]
        for path in tmp_path.iterdir():
            path.unlink()


@pytest.mark.parametrize("kind", ["exact", "hnsw", "ivf"])
def test_a_sample_holds_living_vectors_alone(kind: IndexKind) -> None:
    index = _full(kind)
    index.drop(list(range(1, 200)))
    sample = index.sample(1000)
    np.testing.assert_allclose(sample, _vectors(300)[199:], atol=1e-6)
    assert index.sample(10).shape == (10, DIM)


def test_an_index_of_mostly_dead_slots_is_worn() -> None:
    index = VectorIndex.build("exact", DIM, 0, 1, [(np.arange(2000), _vectors(2000))], 2000)
    assert not index.worn
    index.drop(list(range(700)))
    assert index.worn and len(index) == 1300


def test_auto_follows_the_size() -> None:
    sizes = [0, EXACT_UP_TO, EXACT_UP_TO + 1, HNSW_UP_TO, HNSW_UP_TO + 1]
    assert [resolve_kind("auto", n) for n in sizes] == ["exact", "exact", "hnsw", "hnsw", "ivf"]
    assert resolve_kind("ivf", 0) == "ivf"
