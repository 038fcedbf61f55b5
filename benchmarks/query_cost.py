"""Cost of a query beyond the search of the vectors: `python -m benchmarks.query_cost COLLECTION QUERIES.npy`, as JSON.

Measured in a fresh process: the memory state left by other computations costs a third more.
"""

from __future__ import annotations

import json
import sys

import faiss
import numpy as np

from benchmarks.commands import milliseconds
from mvretrieval import Collection, Query
from mvretrieval.search.encode import encode_query
from mvretrieval.search.explain import explain
from mvretrieval.search.options import RerankOptions

_K = 10
_RERANKED = RerankOptions(rerank_views=100)


def _overhead(collection: Collection, queries: list[Query], ids: list[str]) -> dict[str, float]:
    """Cost of ids, labels, best views and view weights of ten hits, beyond the vector search of FAISS and of ours."""
    index, sources = collection.session.index.get(), [encode_query(collection.session, query) for query in queries]
    vectors = [source.vector[None] for (source,) in sources]
    for query, object_id in zip(queries, ids, strict=True):  # later reads come from the page cache
        collection.search(query, k=_K)
        collection.search(Query(id=object_id), k=_K)

    def with_explanations(i: int) -> None:
        _, numbers = index.search(vectors[i], _K)[0]
        explain(collection.session, numbers.tolist(), sources[i])

    raw, explained, by_vector, by_id = milliseconds(
        len(queries),
        lambda i: index.search(vectors[i], _K),
        with_explanations,
        lambda i: collection.search(queries[i], k=_K),
        lambda i: collection.search(Query(id=ids[i]), k=_K),
    )
    # Separately: alternating between two indexes would evict their vectors from the CPU cache.
    flat = faiss.IndexFlatIP(collection.session.dim)
    for _, part in collection.session.store.vectors_since(-1):
        flat.add(part)
    (by_faiss,) = milliseconds(len(queries), lambda i: flat.search(vectors[i], _K))
    return {
        "over FAISS ms": by_vector - by_faiss,
        "over our own ms": by_vector - raw,
        "of it best views and weights ms": explained - raw,
        "by id, over our own ms": by_id - raw,
        "FAISS ms": by_faiss,
        "our own ms": raw,
    }


def _late_interaction(collection: Collection, ids: list[str]) -> dict[str, float]:
    """Cost of re-ranking the top 100 by late interaction, their views read from the store; and of the whole search."""
    for object_id in ids:
        collection.search(Query(id=object_id), k=_K, rerank=_RERANKED)
    plain, reranked = milliseconds(
        len(ids),
        lambda i: collection.search(Query(id=ids[i]), k=_K),
        lambda i: collection.search(Query(id=ids[i]), k=_K, rerank=_RERANKED),
    )
    return {"ms": reranked - plain, "whole search ms": reranked}


def main() -> None:
    """Print both results."""
    queries = [Query(vector=vector) for vector in np.load(sys.argv[2])]
    with Collection.open(sys.argv[1]) as collection:
        ids = collection.session.store.some_ids(len(queries))
        print(
            json.dumps(
                {"overhead": _overhead(collection, queries, ids), "matching": _late_interaction(collection, ids[:50])}
            )
        )


if __name__ == "__main__":
    main()
