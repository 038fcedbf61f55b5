"""Search on a GPU against the same search on the CPU, group `fidelity`.

Vectors are drawn around centres, since the recall of inverted lists depends on their distribution. No data set is needed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.benchmark import Benchmark, Skipped
from benchmarks.commands import milliseconds
from mvretrieval.index.gpu import has_cagra, why_no_gpu
from mvretrieval.index.gpu_search import GpuSearch
from mvretrieval.index.kinds import IndexKind
from mvretrieval.index.vector_index import Found, VectorIndex
from mvretrieval.normalize import l2_normalize

_DIM = 512
_K = 10
_BATCH = 64
_AT_ONCE = 1 << 16
_NOISE = 0.8  # norm of what is added to a centre: the nearest of a million have cosines around 0.7

Vectors = NDArray[np.float32]


class Case(NamedTuple):
    """How much is measured.

    Attributes:
        n: objects.
        n_queries: to compare results.
        rounds: on the GPU; the CPU takes a tenth.
    """

    n: int
    n_queries: int = 256
    rounds: int = 100


def gpu_index() -> dict[str, float]:
    """A million vectors of 512 numbers: recall, queries per second, and the times to copy and to add."""
    reason = why_no_gpu()
    if reason:
        raise Skipped(reason)
    kinds = ("exact", "ivf", "cagra") if has_cagra() else ("exact", "ivf")
    return compare(Case(1_000_000), kinds, lambda kind: GpuSearch("cuda", lambda: kind))


def compare(case: Case, kinds: Sequence[IndexKind], open_search: Callable[[IndexKind], GpuSearch]) -> dict[str, float]:
    """Search with copies of indexes of some kinds, and without.

    Args:
        case: how much.
        kinds: of index; the first is `exact`.
        open_search: returns what searches a kind on the GPU.

    Raises:
        RuntimeError: the GPU was not used.
    """
    vectors, queries = _vectors(case)
    exact = _built("exact", vectors)
    truth = exact.search(queries, _K)
    values: dict[str, float] = {}
    for kind in kinds:
        index = exact if kind == "exact" else _built(kind, vectors)
        search = open_search(kind)
        started = time.monotonic()
        found = search.search(index, queries, _K)
        seconds = time.monotonic() - started
        if not search.is_used:
            raise RuntimeError(f"kind {kind} is not searched on the GPU: {search.notices()}")
        measured = {"recall@10": _recall(truth, found), "copy and first search s": seconds}
        measured |= _rates(case, index, search, queries)
        if kind == "exact":
            measured |= _changes(case, index, search, queries)
        values |= {f"{kind}, {name}": value for name, value in measured.items()}
        search.close()
    return values


def _vectors(case: Case) -> tuple[Vectors, Vectors]:
    """Vectors (n, 512) and queries (Q, 512)."""
    rng = np.random.default_rng(0)
    centres = l2_normalize(rng.standard_normal((max(1, case.n // 200), _DIM), np.float32))
    vectors = np.empty((case.n, _DIM), np.float32)
    for start in range(0, case.n, _AT_ONCE):
        some = vectors[start : start + _AT_ONCE]
        some[:] = _near(centres[rng.integers(len(centres), size=len(some))], rng)
    return vectors, _near(centres[rng.integers(len(centres), size=case.n_queries)], rng)


def _near(centres: Vectors, rng: np.random.Generator) -> Vectors:
    noise = rng.standard_normal(centres.shape, np.float32) * np.float32(_NOISE / _DIM**0.5)
    return np.asarray(l2_normalize(centres + noise), np.float32)


def _built(kind: IndexKind, vectors: Vectors) -> VectorIndex:
    n = len(vectors)
    parts = ((np.arange(s, min(n, s + _AT_ONCE)), vectors[s : s + _AT_ONCE]) for s in range(0, n, _AT_ONCE))
    return VectorIndex.build(kind, _DIM, 0, 1, parts, n)


def _recall(truth: Sequence[Found], found: Sequence[Found]) -> float:
    return statistics.mean(
        len(set(a.tolist()) & set(b.tolist())) / len(a) for (_, a), (_, b) in zip(truth, found, strict=True)
    )


def _rates(case: Case, index: VectorIndex, search: GpuSearch, queries: Vectors) -> dict[str, float]:
    """Queries per second, one at a time and 64 at once."""
    many = queries[:_BATCH]

    def one(i: int) -> Vectors:
        return np.asarray(queries[i % len(queries)])[None]

    gpu = milliseconds(
        case.rounds, lambda i: search.search(index, one(i), _K), lambda i: search.search(index, many, _K)
    )
    cpu = milliseconds(max(1, case.rounds // 10), lambda i: index.search(one(i), _K), lambda i: index.search(many, _K))
    return {
        f"{where}, {way} queries/s": 1000 * n / ms
        for where, times in (("GPU", gpu), ("CPU", cpu))
        for way, n, ms in (("one", 1, times[0]), (f"{len(many)}", len(many), times[1]))
    }


def _changes(case: Case, index: VectorIndex, search: GpuSearch, queries: Vectors) -> dict[str, float]:
    """Milliseconds to add an object, or remove it, with the following search."""

    def add(i: int) -> None:
        index.put(np.array([case.n]), queries[i % len(queries)][None])
        if search.search(index, queries[i % len(queries)][None], 1)[0][1].tolist() != [case.n]:
            raise RuntimeError("an added object is not found")

    def remove(i: int) -> None:
        index.drop([case.n])
        if search.search(index, queries[i % len(queries)][None], 1)[0][1].tolist() == [case.n]:
            raise RuntimeError("a removed object is found")

    added, removed = milliseconds(max(1, case.rounds // 10), add, remove)
    return {"add ms": added, "remove ms": removed}


BENCHMARKS = (
    Benchmark(
        "gpu-index",
        "fidelity",
        "1M x 512 on a GPU and on the CPU: recall@10 and queries/s of each kind",
        {"exact, recall@10": 0.999},  # rounding may break ties
        gpu_index,
        device="cuda",
    ),
)
