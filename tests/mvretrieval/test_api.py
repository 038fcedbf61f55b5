"""The facade: a small set of verbs, and nothing of the layers below."""

from __future__ import annotations

from mvretrieval.api import Collection
from mvretrieval.search.options import RerankOptions, SearchOptions
from mvretrieval.search.query import Query

MOST_NAMES = 20


def test_the_facade_is_small(things: Collection) -> None:
    names = [name for name in dir(things) if not name.startswith("_")]
    assert len(names) <= MOST_NAMES, names


def test_keywords_override_options(things: Collection) -> None:
    query = Query(id="shape-000.ply")
    options = SearchOptions(k=5, where="label = 'box'", rerank=RerankOptions(expand=2))
    by_options = things.search(query, options)
    assert [hit.id for hit in things.search(query, options, k=1)] == [by_options[0].id]
    by_keywords = things.search(query, k=5, where="label = 'box'", rerank=RerankOptions(expand=2))
    assert [(hit.id, hit.score) for hit in by_keywords] == [(hit.id, hit.score) for hit in by_options]
    assert len(things.search(query)) == 10


def test_ids_come_in_order_of_addition(things: Collection) -> None:
    ids = list(things.ids())
    assert len(ids) == len(things) == 12
    assert list(things.ids("label = 'box'")) == [i for i in ids if things.get(i).metadata["label"] == "box"]
