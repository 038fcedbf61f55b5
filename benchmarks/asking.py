"""What asking a collection costs beyond the search of its vectors: `python -m benchmarks.asking COLLECTION QUESTIONS.npy`, as JSON.

In a process of its own, which has loaded and computed nothing else: what others left in memory costs a third more.
"""

from __future__ import annotations

import json
import sys

import faiss
import numpy as np

from benchmarks.commands import milliseconds
from mvretrieval import Collection, Query
from mvretrieval.search.explain import explain
from mvretrieval.search.options import Refinement
from mvretrieval.search.query import resolve

_K = 10
_MATCHED = Refinement(match_views=100)


def _overhead(collection: Collection, questions: list[Query], ids: list[str]) -> dict[str, float]:
    """What ids, labels, best views and view weights of ten hits add to FAISS's search of the vectors, and to our own."""
    index, sources = collection.index(), [resolve(collection, question) for question in questions]
    vectors = [source.vector[None] for (source,) in sources]
    for question, object_id in zip(questions, ids, strict=True):  # what is read comes from the system's memory later
        collection.search(question, _K)
        collection.search(Query(id=object_id), _K)

    def with_reasons(i: int) -> None:
        _, numbers = index.search(vectors[i], _K)[0]
        explain(collection, numbers.tolist(), sources[i])

    raw, reasons, by_vector, by_id = milliseconds(
        len(questions),
        lambda i: index.search(vectors[i], _K),
        with_reasons,
        lambda i: collection.search(questions[i], _K),
        lambda i: collection.search(Query(id=ids[i]), _K),
    )
    # By itself: each of two indexes in turn would drive the other's vectors out of the processor's cache.
    flat = faiss.IndexFlatIP(collection.dim)
    for _, part in collection.store.vectors_since(-1):
        flat.add(part)
    (by_faiss,) = milliseconds(len(questions), lambda i: flat.search(vectors[i], _K))
    return {
        "over FAISS ms": by_vector - by_faiss,
        "over our own ms": by_vector - raw,
        "of it best views and weights ms": reasons - raw,
        "by id, over our own ms": by_id - raw,
        "FAISS ms": by_faiss,
        "our own ms": raw,
    }


def _matching(collection: Collection, ids: list[str]) -> dict[str, float]:
    """What matching the 100 best view by view adds, their views read from the store; and the search as a whole."""
    for object_id in ids:
        collection.search(Query(id=object_id), _K, refine=_MATCHED)
    plain, matched = milliseconds(
        len(ids),
        lambda i: collection.search(Query(id=ids[i]), _K),
        lambda i: collection.search(Query(id=ids[i]), _K, refine=_MATCHED),
    )
    return {"ms": matched - plain, "whole search ms": matched}


def main() -> None:
    """Both figures."""
    questions = [Query(vector=vector) for vector in np.load(sys.argv[2])]
    with Collection.open(sys.argv[1]) as collection:
        ids = collection.store.some_ids(len(questions))
        print(
            json.dumps({"overhead": _overhead(collection, questions, ids), "matching": _matching(collection, ids[:50])})
        )


if __name__ == "__main__":
    main()
