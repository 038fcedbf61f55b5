"""Benchmarks of searching, group `speed`: 512-dimensional vectors with a realistic distribution (see `benchmarks.vectors`).

Times are medians. Compared implementations alternate, so that machine load affects both.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import data
from benchmarks.benchmark import Benchmark
from benchmarks.commands import milliseconds, script
from benchmarks.vectors import DIM, collection_of, gallery, new_object, query_vectors
from mvretrieval.api import Collection
from mvretrieval.index.kinds import IndexKind
from mvretrieval.index.vector_index import VectorIndex
from mvretrieval.search.query import Query

MILLION = 1_000_000
_SMALL = 20_000
_K = 10
_BATCH = 64

Vectors = NDArray[np.float32]


@cache
def _index(n: int, kind: IndexKind) -> tuple[VectorIndex, float]:
    """Index of the gallery after saving and opening, and the seconds for building and saving."""
    started = time.monotonic()
    vectors = gallery(n)
    parts = ((np.arange(s, min(n, s + 8192)), vectors[s : s + 8192]) for s in range(0, n, 8192))
    index = VectorIndex.build(kind, DIM, 0, 1, parts, n)
    folder = Path(tempfile.mkdtemp(prefix="index-", dir=data.WORK))
    index.save(folder)
    seconds = time.monotonic() - started
    for file in folder.iterdir():  # mapped data stay available until this process ends
        file.unlink()
    folder.rmdir()
    return index, seconds


def _numbers(found: Sequence[tuple[Vectors, NDArray[np.int64]]]) -> list[list[int]]:
    return [row_ids.tolist() for _, row_ids in found]


def _recall(truth: Sequence[Sequence[int]], found: Sequence[Sequence[int]]) -> float:
    return statistics.mean(len(set(own) & set(best)) / len(best) for best, own in zip(truth, found, strict=True))


def search_exact(n: int) -> dict[str, float]:
    """Exact search with 64 queries at once, over the faster of FAISS's flat index and a torch product with topk."""
    queries = query_vectors(_BATCH)
    index, _ = _index(n, "exact")
    vectors = gallery(n)
    flat = faiss.IndexFlatIP(DIM)
    flat.add(vectors)
    tensor, query_tensor = torch.from_numpy(np.array(vectors)), torch.from_numpy(queries)
    truth = (query_tensor @ tensor.T).topk(_K).indices.tolist()
    if _recall(truth, _numbers(index.search(queries, _K))) < 0.999:  # rounding may break ties
        raise RuntimeError("exact search and brute force do not agree")
    ours, by_faiss, by_torch, one, one_by_torch = milliseconds(
        7,
        lambda i: index.search(queries, _K),
        lambda i: flat.search(queries, _K),
        lambda i: (query_tensor @ tensor.T).topk(_K),
        lambda i: index.search(queries[i : i + 1], _K),
        lambda i: (tensor @ query_tensor[i]).topk(_K),
    )
    return {
        "ratio": ours / min(by_faiss, by_torch), "ours ms": ours, "FAISS ms": by_faiss, "torch ms": by_torch,
        "ours, one query ms": one, "torch, one query ms": one_by_torch,
    }  # fmt: skip


@cache
def _query_cost() -> dict[str, dict[str, float]]:
    """See `benchmarks.query_cost`."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "queries.npy"
        np.save(file, query_vectors(200))
        return script("query_cost", collection_of(_SMALL, 12), file)


def search_overhead() -> dict[str, float]:
    """Cost of ids, labels, best views and view weights of ten hits beyond the vector search.

    The target is relative to FAISS's flat search. Our own search takes half of its time; the cost beyond that is reported too.
    """
    return _query_cost()["overhead"]


def match_views() -> dict[str, float]:
    """Cost of re-ranking the top 100 by late interaction, their views read from the store; and of the whole search."""
    return _query_cost()["matching"]


def search_filtered() -> dict[str, float]:
    """A filter that keeps one object in a hundred: parsing, selecting, scoring, ten hits."""
    queries = query_vectors(20)
    with closing(Collection.open(collection_of(MILLION, 1))) as collection:
        store, vectors = collection.session.store, gallery(MILLION)
        wheres = [f"label = 'class {i}'" for i in range(len(queries))]
        for query, where in zip(queries, wheres, strict=True):
            kept = store.select(where)
            best = kept[np.argsort(-(vectors[kept - 1] @ query), kind="stable")[:_K]]
            if [
                collection.session.row_id_of(hit.id)
                for hit in collection.search(Query(vector=query), k=_K, where=where)
            ] != best.tolist():
                raise RuntimeError(f"the search with {where} and brute force do not agree")
        whole, select = milliseconds(
            len(queries),
            lambda i: collection.search(Query(vector=queries[i]), k=_K, where=wheres[i]),
            lambda i: store.select(wheres[i]),
        )
    return {"ms": whole, "SQL alone ms": select, "kept objects": float(len(kept))}


@cache
def _truth(n: int, n_queries: int) -> list[list[int]]:
    return _numbers(_index(n, "exact")[0].search(query_vectors(n_queries), _K))


def _search_one(index: VectorIndex, queries: Vectors, i: int) -> None:
    index.search(queries[i : i + 1], _K)


def search_ann() -> dict[str, float]:
    """One query at a time with the two kinds that `auto` chooses from: recall, and the speed-up of hnsw over exact search."""
    queries = query_vectors(500)
    exact = _index(MILLION, "exact")[0]
    (slow,) = milliseconds(20, lambda i: exact.search(queries[i : i + 1], _K))
    values: dict[str, float] = {"exact ms": slow}
    recalls: dict[str, float] = {}
    for kind in ("hnsw", "ivf"):
        index, values[f"{kind} build s"] = _index(MILLION, kind)
        found = [_numbers(index.search(query[None], _K))[0] for query in queries]
        recalls[kind] = _recall(_truth(MILLION, 500), found)
        (values[f"{kind} ms"],) = milliseconds(len(queries), partial(_search_one, index, queries))
    values |= {"recall": recalls["hnsw"], "speed": slow / values["hnsw ms"], "ivf recall": recalls["ivf"]}
    return values


def _open_and_query(folder: Path, queries: Vectors) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, queries)
        return script("open_and_query", folder, file.name)


def search_small() -> dict[str, float]:
    """Bytes of the vectors over the additional memory of a process that searches them; recall."""
    queries = query_vectors(100)
    large, few = (_open_and_query(collection_of(n, 1), queries)["bytes"] for n in (MILLION, _SMALL))
    with closing(Collection.open(collection_of(MILLION, 1))) as collection:
        found = [(collection.session.search_vector(query, _K)[1] - 1).tolist() for query in queries]
    recall = _recall(_truth(MILLION, 500)[: len(queries)], found)
    return {"recall": recall, "smaller": 4 * DIM * (MILLION - _SMALL) / (large - few), "size MB": (large - few) / 1e6}


def update_million() -> dict[str, float]:
    """Add an object and find it, remove it and no longer find it; each with the following search."""
    queries = query_vectors(10)
    with Collection.open(collection_of(MILLION, 1), write=True) as collection:
        store = collection.session.store

        def add(i: int) -> None:
            with store.transaction():
                store.put(new_object("new.off", queries[i], 1), store.next_sequence())
            if collection.search(Query(vector=queries[i]), k=1)[0].id != "new.off":
                raise RuntimeError("an added object is not found")

        def remove(i: int) -> None:
            collection.remove("new.off")
            if collection.search(Query(vector=queries[i]), k=1)[0].id == "new.off":
                raise RuntimeError("a removed object is found")

        collection.search(Query(vector=queries[0]))
        added, removed = milliseconds(len(queries), add, remove)
    return {"add": added, "remove": removed}


def open_million() -> dict[str, float]:
    """A fresh process including imports, until the first result."""
    folder, queries = collection_of(MILLION, 1), query_vectors(1)
    return {"seconds": statistics.median(_open_and_query(folder, queries)["seconds"] for _ in range(3))}


def _benchmark(
    name: str, what: str, measure: Any, full: bool = False, at_most: bool = True, **targets: float
) -> Benchmark:
    return Benchmark(name, "speed", what, targets, measure, at_most, full)


BENCHMARKS = (
    _benchmark("search-exact", "64 queries, 100k x 512, over FAISS or torch", lambda: search_exact(100_000), ratio=1.2),
    _benchmark("search-exact-1m", "the same, 1M x 512", lambda: search_exact(MILLION), full=True, ratio=1.2),
    Benchmark(
        "search-overhead",
        "speed",
        "Collection.search by vector beyond FAISS's flat search of the vectors, ms",
        {"over FAISS ms": 1.0},
        search_overhead,
        at_most=True,
    ),
    _benchmark("match-views", "late interaction with the top 100, 12 x 12 views x 512, ms", match_views, ms=10.0),
    _benchmark("search-filtered", "a filter that keeps 1 % of 1M, ms", search_filtered, full=True, ms=50),
    _benchmark(
        "search-ann", "1M, one at a time, hnsw over exact", search_ann, full=True, at_most=False, recall=0.95, speed=10
    ),
    _benchmark(
        "search-small",
        "1M: memory of float32 vectors over ours",
        search_small,
        full=True,
        at_most=False,
        recall=0.95,
        smaller=8,
    ),
    _benchmark("update-1m", "add and remove one object at 1M, ms", update_million, full=True, add=50, remove=50),
    _benchmark("open-1m", "open 1M and search once, s", open_million, full=True, seconds=2.0),
)
