"""Approximate search against other libraries: recall@10 and queries per second, group `fidelity`.

Every index holds the same vectors (see `benchmarks.vectors`) and is searched with several settings of its parameter. Two ways: one
query at a time on one thread, as a service searches, and all queries at once on two threads. Compared indexes take turns, and the
best of three rounds counts, so that the load of the machine affects all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from benchmarks.benchmark import Benchmark, Skipped
from benchmarks.commands import milliseconds
from benchmarks.vectors import DIM, gallery, query_vectors
from mvretrieval.index.kinds import IndexParameters
from mvretrieval.index.vector_index import VectorIndex

faiss: Any = _faiss
CURVES = Path(__file__).parent / "curves.yaml"
_K = 10
_N_QUERIES = 500
_ROUNDS = 3
_RECALLS = (0.95, 0.99)
_RECALLS_OF_A_MILLION = (0.95, 0.98)  # no other library reaches 0.99 with these settings
_EF = (24, 28, 32, 36, 40, 48, 64, 80, 96, 112, 128, 160, 192, 256)
_NPROBE = (4, 8, 16, 32, 64, 128)

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]


@dataclass
class Contender:
    """An index that was built.

    Attributes:
        name: shown.
        ours: whether it is one of ours.
        build_seconds: how long that took, on two threads.
        settings: values of its parameter.
        search: returns (Q, 10) ids for queries (Q, D), a setting and a number of threads.
        points: measured (recall, queries/s one at a time on one thread, queries/s of a batch on two) by setting.
    """

    name: str
    ours: bool
    build_seconds: float
    settings: Sequence[int]
    search: Callable[[Vectors, int, int], Ids]
    points: dict[int, tuple[float, float, float]] = field(default_factory=dict)


def _ours(kind: str, vectors: Vectors) -> Contender:
    started = time.monotonic()
    faiss.omp_set_num_threads(2)
    parts = ((np.arange(s, min(len(vectors), s + 8192)), vectors[s : s + 8192]) for s in range(0, len(vectors), 8192))
    index = VectorIndex.build(kind, DIM, 0, 1, parts, len(vectors))
    seconds = time.monotonic() - started
    is_graph = "HNSW" in kind or kind == "hnsw"

    def search(queries: Vectors, setting: int, threads: int) -> Ids:
        faiss.omp_set_num_threads(threads)
        parameters = IndexParameters(ef_search=setting) if is_graph else IndexParameters(nprobe=setting)
        return np.stack([row_ids for _, row_ids in index.search(queries, _K, parameters=parameters)])

    return Contender(f"ours, {kind}", True, seconds, _EF if is_graph else _NPROBE, search)


def _faiss_hnsw(vectors: Vectors) -> Contender:
    faiss.omp_set_num_threads(2)
    index = faiss.IndexHNSWFlat(DIM, 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 80
    started = time.monotonic()
    index.add(vectors)
    seconds = time.monotonic() - started

    def search(queries: Vectors, setting: int, threads: int) -> Ids:
        faiss.omp_set_num_threads(threads)
        index.hnsw.efSearch = setting
        return np.asarray(index.search(queries, _K)[1])

    return Contender("FAISS HNSW32", False, seconds, _EF, search)


def _faiss_ivf_pq(vectors: Vectors) -> Contender:
    faiss.omp_set_num_threads(2)
    index = faiss.index_factory(DIM, "IVF1024,PQ64,RFlat", faiss.METRIC_INNER_PRODUCT)
    started = time.monotonic()
    index.train(vectors[:: max(1, len(vectors) // 65_536)])
    index.add(vectors)
    seconds = time.monotonic() - started
    lists = faiss.downcast_index(index.base_index)

    def search(queries: Vectors, setting: int, threads: int) -> Ids:
        faiss.omp_set_num_threads(threads)
        index.k_factor, lists.nprobe = 20, setting
        return np.asarray(index.search(queries, _K)[1])

    return Contender("FAISS IVF-PQ, re-scored", False, seconds, _NPROBE, search)


def _hnswlib(vectors: Vectors) -> Contender:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=DIM)
    index.init_index(len(vectors), ef_construction=80, M=32)
    started = time.monotonic()
    index.add_items(vectors, num_threads=2)
    seconds = time.monotonic() - started

    def search(queries: Vectors, setting: int, threads: int) -> Ids:
        index.set_ef(setting)
        return np.asarray(index.knn_query(queries, _K, num_threads=threads)[0], np.int64)

    return Contender("hnswlib", False, seconds, _EF, search)


def _usearch(vectors: Vectors) -> Contender:
    from usearch.index import Index

    index = Index(ndim=DIM, metric="ip", dtype="f32", connectivity=32, expansion_add=80)
    started = time.monotonic()
    index.add(np.arange(len(vectors)), np.asarray(vectors), threads=2)
    seconds = time.monotonic() - started

    def search(queries: Vectors, setting: int, threads: int) -> Ids:
        index.expansion_search = setting
        return np.asarray(index.search(queries, _K, threads=threads).keys, np.int64).reshape(len(queries), _K)

    return Contender("usearch", False, seconds, _EF, search)


def contenders(n: int, kinds: Sequence[str] = ("hnsw", "ivf")) -> list[Contender]:
    """All indexes, built and measured over n vectors.

    Raises:
        Skipped: hnswlib or usearch is not installed.
    """
    vectors, queries = np.array(gallery(n)), query_vectors(_N_QUERIES)
    truth = np.concatenate(
        [
            np.argsort(-(queries[s : s + 50] @ vectors.T), axis=1, kind="stable")[:, :_K]
            for s in range(0, len(queries), 50)
        ]
    )
    builds: list[Callable[[Vectors], Contender]] = [_faiss_hnsw, _faiss_ivf_pq, _hnswlib, _usearch]
    builds = [*(partial(_ours, kind) for kind in kinds), *builds]
    try:
        built = [build(vectors) for build in builds]
    except ImportError as error:
        raise Skipped(f"{error.name} is not installed: pip install 'mvretrieval[peers]'") from error
    for _ in range(_ROUNDS):
        for contender in built:
            for setting in contender.settings:
                _measure(contender, setting, queries, truth)
    return built


def _measure(contender: Contender, setting: int, queries: Vectors, truth: Ids) -> None:
    contender.search(queries[:10], setting, 1)
    started = time.perf_counter()
    found = np.concatenate([contender.search(query[None], setting, 1) for query in queries])
    one = len(queries) / (time.perf_counter() - started)
    started = time.perf_counter()
    contender.search(queries, setting, 2)
    batch = len(queries) / (time.perf_counter() - started)
    recall = float(np.mean([len(set(a) & set(b)) / _K for a, b in zip(found.tolist(), truth.tolist(), strict=True)]))
    before = contender.points.get(setting, (0.0, 0.0, 0.0))
    contender.points[setting] = (recall, max(one, before[1]), max(batch, before[2]))


def _fastest(contender: Contender, recall: float, column: int) -> float:
    """Queries per second of the fastest setting that reaches a recall; 0 if none does."""
    return max((point[column] for point in contender.points.values() if point[0] >= recall), default=0.0)


def search_peers(n: int, recalls: Sequence[float]) -> dict[str, float]:
    """Our queries per second over those of the best peer, at two recalls and in two ways; and all of them."""
    built = contenders(n)
    _store_curves(n, built)
    values: dict[str, float] = {}
    for recall in recalls:
        for way, column in (("one", 1), ("batch", 2)):
            rates = {contender.name: _fastest(contender, recall, column) for contender in built}
            ours = max(rates[contender.name] for contender in built if contender.ours)
            peers = max(rates[contender.name] for contender in built if not contender.ours)
            values[f"{way} at {recall}"] = ours / peers if peers else math.inf if ours else 0.0
            values |= {f"{name}, {way} at {recall}, queries/s": rate for name, rate in rates.items()}
    return values | {f"{contender.name}, build s": contender.build_seconds for contender in built}


def _store_curves(n: int, built: Sequence[Contender]) -> None:
    """Keep all measured points, for the plot: `curves.yaml` has [recall, queries/s one at a time, in a batch] by index."""
    curves: dict[str, Any] = yaml.safe_load(CURVES.read_text()) if CURVES.exists() else {}
    curves[f"search-peers-{n}"] = {
        contender.name: [[round(float(value), 4) for value in point] for point in contender.points.values()]
        for contender in built
    }
    CURVES.write_text(yaml.safe_dump(curves, sort_keys=True, default_flow_style=None, width=120))


def search_one() -> dict[str, float]:
    """One exact query at a time over 100,000 vectors: our time over that of the faster of FAISS's flat index and torch."""
    vectors, queries = np.array(gallery(100_000)), query_vectors(100)
    index = VectorIndex.build("exact", DIM, 0, 1, [(np.arange(len(vectors)), vectors)], len(vectors))
    flat = faiss.IndexFlatIP(DIM)
    flat.add(vectors)
    tensor, query_tensor = torch.from_numpy(vectors), torch.from_numpy(queries)
    ours, by_faiss, by_torch = milliseconds(
        len(queries),
        lambda i: index.search(queries[i : i + 1], _K),
        lambda i: flat.search(queries[i : i + 1], _K),
        lambda i: (tensor @ query_tensor[i]).topk(_K),
    )
    return {"ratio": ours / min(by_faiss, by_torch), "ours ms": ours, "FAISS ms": by_faiss, "torch ms": by_torch}


def _targets(recalls: Sequence[float]) -> dict[str, float]:
    return {f"{way} at {recall}": 1.0 for recall in recalls for way in ("one", "batch")}


BENCHMARKS = (
    Benchmark(
        "search-one",
        "fidelity",
        "one exact query, 100k x 512, over the faster of FAISS's flat index and torch",
        {"ratio": 1.1},
        search_one,
        at_most=True,
    ),
    Benchmark(
        "search-peers",
        "fidelity",
        "recall@10 and queries/s at 200k x 512 against FAISS, hnswlib and usearch",
        _targets(_RECALLS),
        partial(search_peers, 200_000, _RECALLS),
    ),
    Benchmark(
        "search-peers-1m",
        "fidelity",
        "the same at 1M x 512",
        _targets(_RECALLS_OF_A_MILLION),
        partial(search_peers, 1_000_000, _RECALLS_OF_A_MILLION),
        full=True,
    ),
)
