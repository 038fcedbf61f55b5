"""Late interaction, re-ranking and query expansion, against loops over pairs of views."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from error_codes import raises_code
from hypothesis import given, settings
from hypothesis import strategies as st
from made_meshes import SMALL, new_object, unit, write_shapes
from numpy.typing import NDArray
from PIL import Image

from mvretrieval.api import Collection
from mvretrieval.augmentation import average_neighbours
from mvretrieval.errors import QueryError, ShapeError
from mvretrieval.ingest.repool import fit_whitening
from mvretrieval.search.encode import encode_query
from mvretrieval.search.hits import Hit
from mvretrieval.search.late_interaction import late_interaction
from mvretrieval.search.options import RerankOptions
from mvretrieval.search.query import Query, Term
from mvretrieval.store.batches import original_vectors, view_vectors

Array = NDArray[Any]
ALL = RerankOptions(rerank_views=1000, rerank_weight=1.0)


def _plain_maxsim(q: Array, q_mask: Array, o: Array, o_mask: Array, one_way: bool = False) -> float:
    """(S, n, D) with (S, V, D), one pair of views after the other."""
    per_style = []
    for s in range(len(q)):
        mine, its = np.flatnonzero(q_mask), np.flatnonzero(o_mask)
        forth = [max(float(q[s, i] @ o[s, j]) for j in its) for i in mine]
        back = [max(float(q[s, i] @ o[s, j]) for i in mine) for j in its]
        both = np.mean(forth) if one_way else (np.mean(forth) + np.mean(back)) / 2
        per_style.append(both)
    return float(np.mean(per_style))


def _some(seed: int, n_styles: int, n: int, n_objects: int, n_views: int) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(seed)
    query, gallery = rng.standard_normal((n_styles, n, 5)), rng.standard_normal((n_objects, n_styles, n_views, 5))
    masks = rng.random((n_objects, n_views)) < 0.6
    masks[np.arange(n_objects), rng.integers(n_views, size=n_objects)] = True
    mask = rng.random(n) < 0.6
    mask[rng.integers(n)] = True
    return unit(query), mask, unit(gallery), masks


sizes = st.tuples(st.integers(0, 99), st.integers(1, 3), st.integers(1, 5), st.integers(0, 6), st.integers(1, 5))


@settings(max_examples=60)
@given(size=sizes, one_way=st.booleans())
def test_late_interaction_equals_loops(size: tuple[int, int, int, int, int], one_way: bool) -> None:
    query, mask, gallery, masks = _some(*size)
    expected = [_plain_maxsim(query, mask, *pair, one_way) for pair in zip(gallery, masks, strict=True)]
    np.testing.assert_allclose(late_interaction(query, mask, gallery, masks, one_way), expected, atol=1e-6)


@settings(max_examples=30)
@given(size=sizes, one_way=st.booleans(), left=st.sampled_from([0.0, 9.0, np.nan, np.inf]))
def test_late_interaction_ignores_order_and_masked_views(
    size: tuple[int, int, int, int, int], one_way: bool, left: float
) -> None:
    query, mask, gallery, masks = _some(*size)
    expected = late_interaction(query, mask, gallery, masks, one_way)
    rng = np.random.default_rng(1)
    mine, its = rng.permutation(len(mask)), rng.permutation(masks.shape[1])
    permuted = late_interaction(query[:, mine], mask[mine], gallery[:, :, its], masks[:, its], one_way)
    np.testing.assert_allclose(permuted, expected, atol=1e-6)
    query[:, ~mask] = left
    np.swapaxes(gallery, 1, 2)[~masks] = left
    np.testing.assert_array_equal(late_interaction(query, mask, gallery, masks, one_way), expected)
    no_more = late_interaction(query[:, mask], np.ones(mask.sum(), bool), gallery, masks, one_way)
    np.testing.assert_allclose(no_more, expected, atol=1e-6)


def test_late_interaction_is_symmetric_and_one_for_the_object_itself() -> None:
    _, _, gallery, masks = _some(0, 2, 3, 6, 4)
    scores = np.stack(
        [late_interaction(views, mask, gallery, masks) for views, mask in zip(gallery, masks, strict=True)]
    )
    np.testing.assert_allclose(np.diag(scores), 1, atol=1e-6)
    np.testing.assert_allclose(scores, scores.T, atol=1e-6)
    assert scores.max() <= 1 + 1e-6


def test_one_way_ignores_other_views_of_the_object() -> None:
    """An image of one side scores 1, whatever the object's other views."""
    _, _, gallery, masks = _some(0, 1, 3, 6, 4)
    masks[:] = True
    one = np.ones(1, bool)
    for i in range(6):
        image = gallery[i][:, 2:3]
        assert late_interaction(image, one, gallery, masks, one_way=True)[i] == pytest.approx(1, abs=1e-6)
        assert late_interaction(image, one, gallery, masks)[i] < 0.99


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 3, 5), 3, (4, 1, 2, 5), (4, 2)),
        ((1, 3, 5), 2, (4, 1, 2, 5), (4, 2)),
        ((1, 3, 5), 3, (4, 1, 2, 5), (4, 3)),
    ],
)
def test_shapes_that_disagree_are_errors(shapes: tuple[Any, int, Any, Any]) -> None:
    query, mask, gallery, masks = shapes
    with raises_code(ShapeError, "bad_shape", str(shapes[0])):
        late_interaction(
            np.ones(query, np.float32), np.ones(mask, bool), np.ones(gallery, np.float32), np.ones(masks, bool)
        )


def test_object_without_a_view_is_an_error() -> None:
    query, mask, gallery, masks = _some(0, 1, 3, 4, 2)
    with raises_code(ShapeError, "no_views"):
        late_interaction(query, np.zeros(3, bool), gallery, masks)
    masks[2] = False
    with raises_code(ShapeError, "no_views"):
        late_interaction(query, mask, gallery, masks)


# -- re-ranking ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_styles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    """Twenty objects without meshes, in two styles, whitened; some views are masked."""
    config = replace(SMALL, styles=("clay", "depth"), rig="ring:4@30", whiten=6)
    collection = Collection.create(tmp_path_factory.mktemp("two") / "c", config)
    rng = np.random.default_rng(0)
    views = unit(rng.standard_normal((20, 2, 4, 1024)) + 1).astype(np.float16)
    masks = rng.random((20, 4)) < 0.7
    masks[:, 1] = True
    vectors, _ = collection.describer.pool(views.astype(np.float32), masks)
    with collection.session.store.transaction():
        sequence = collection.session.store.next_sequence()
        for i in range(20):
            new = replace(new_object(f"o{i:02}", vectors[i]), view_vectors=views[i], view_mask=masks[i])
            collection.session.store.set_metadata(collection.session.store.put(new, sequence), {"n": i})
    fit_whitening(collection.session)
    yield collection
    collection.session.release()


def _prepared(collection: Collection, object_id: str) -> tuple[Array, Array]:
    """(S, V, K) views of an object, whitened and of unit norm, and their mask."""
    views, mask = collection.session.views(collection.session.row_id_of(object_id))
    whitening = collection.describer.whitening
    if whitening is not None:
        views = np.stack([whitening.apply(own, s) for s, own in enumerate(views)])
    return unit(views), mask


def _ids(collection: Collection) -> list[str]:
    return [
        record.id
        for record in collection.session.store.records(collection.session.store.select(None).tolist()).values()
    ]


def _matches(collection: Collection, query_id: str) -> dict[str, float]:
    own = _prepared(collection, query_id)
    return {i: _plain_maxsim(*own, *_prepared(collection, i)) for i in _ids(collection) if i != query_id}


def _scores(hits: list[Hit]) -> dict[str, float]:
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    return {hit.id: hit.score for hit in hits}


@pytest.mark.parametrize("name", ["things", "two_styles"])
def test_reranking_all_objects_equals_brute_force(name: str, request: pytest.FixtureRequest) -> None:
    collection = request.getfixturevalue(name)
    query_id = _ids(collection)[3]
    expected = _matches(collection, query_id)
    hits = collection.search(Query(id=query_id), k=100, rerank=ALL)
    assert [hit.id for hit in hits] == sorted(expected, key=lambda i: -expected[i])
    assert _scores(hits) == pytest.approx(expected, abs=1e-5)
    assert {hit.id: hit.matches[0] for hit in hits} == pytest.approx(expected, abs=1e-5)


def test_rerank_weight_blends_both_scores(two_styles: Collection) -> None:
    cosines = _scores(two_styles.search(Query(id="o03"), k=100))
    matches = _matches(two_styles, "o03")
    for weight in (0.0, 0.3, 1.0):
        hits = two_styles.search(Query(id="o03"), k=100, rerank=RerankOptions(rerank_views=50, rerank_weight=weight))
        expected = {i: (1 - weight) * cosines[i] + weight * matches[i] for i in matches}
        assert _scores(hits) == pytest.approx(expected, abs=1e-5)


def test_only_the_top_n_are_reranked(two_styles: Collection) -> None:
    plain = [hit.id for hit in two_styles.search(Query(id="o03"), k=100)]
    matches = _matches(two_styles, "o03")
    for n, k in ((7, 3), (3, 7), (7, 7), (100, 5), (1, 1)):
        hits = two_styles.search(Query(id="o03"), k=k, rerank=RerankOptions(rerank_views=n, rerank_weight=1.0))
        among = plain[: max(n, k)]
        assert [hit.id for hit in hits] == sorted(among, key=lambda i: -matches[i])[:k]


def test_filter_applies_before_reranking(two_styles: Collection) -> None:
    hits = two_styles.search(Query(id="o03"), k=3, where="n > 15", rerank=ALL)
    matches = {i: m for i, m in _matches(two_styles, "o03").items() if int(i[1:]) > 15}
    assert [hit.id for hit in hits] == sorted(matches, key=lambda i: -matches[i])[:3]
    assert two_styles.search(Query(id="o03"), where="n > 99", rerank=ALL) == []


def test_mixture_reranks_each_positive_term_with_views(two_styles: Collection) -> None:
    vector = unit(np.random.default_rng(5).standard_normal(two_styles.session.dim))
    terms = [Term("id", "o03"), Term("id", "o08", 0.7), Term("vector", vector, 0.4), Term("id", "o12", -0.6)]
    hits = two_styles.search(Query(terms=terms), k=100, rerank=RerankOptions(rerank_views=100, rerank_weight=0.4))
    ids = _ids(two_styles)
    gallery = np.stack([two_styles.session.store.vector_of(two_styles.session.row_id_of(i)) for i in ids]).astype(float)
    expected = np.zeros(len(ids))
    for t, term in enumerate(terms):
        own = vector if term.kind == "vector" else gallery[ids.index(term.value)]
        cosines = gallery @ own
        blended = cosines.copy()
        if term.kind == "id" and term.weight > 0:
            matches = {**_matches(two_styles, term.value), term.value: 1.0}
            blended = 0.6 * cosines + 0.4 * np.array([matches[i] for i in ids])
            assert {h.id: h.matches[t] for h in hits} == pytest.approx({h.id: matches[h.id] for h in hits}, abs=1e-5)
        else:
            assert all(hit.matches[t] is None for hit in hits)
        expected += term.weight * (blended - cosines.mean()) / cosines.std()
    others = {i: e for i, e in zip(ids, expected, strict=True) if i not in ("o03", "o08", "o12")}
    assert _scores(hits) == pytest.approx(others, abs=1e-3)
    assert hits[0].to_json()["matches"][2:] == [None, None]


def test_images_are_reranked_in_image_styles(two_styles: Collection, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 256, (70, 70, 3), np.uint8)).save(tmp_path / f"{i}.png")
    query = Query(images=[tmp_path / "0.png", tmp_path / "1.png"], background="keep")
    (source,) = encode_query(two_styles.session, query)
    whitening = two_styles.describer.whitening
    assert whitening is not None
    own = unit(whitening.apply(source.views[0], 0))[None]
    expected = {}
    for object_id in _ids(two_styles):
        views, mask = _prepared(two_styles, object_id)
        # One of two styles is an image style, so cosine and late interaction of an image are at most sqrt(1/2).
        expected[object_id] = 0.5**0.5 * _plain_maxsim(own, np.ones(2, bool), views[:1], mask, one_way=True)
    hits = two_styles.search(query, k=100, rerank=ALL)
    assert _scores(hits) == pytest.approx(expected, abs=1e-5)
    assert {hit.best_view["style"] for hit in hits} == {"clay"}


def test_best_view_is_the_pair_of_highest_similarity(two_styles: Collection) -> None:
    own, own_mask = _prepared(two_styles, "o03")
    own = own[:, own_mask]
    for hit in two_styles.search(Query(id="o03"), k=100, rerank=ALL):
        views, mask = _prepared(two_styles, hit.id)
        similarity = np.einsum("svd,snd->svn", views, own)
        similarity[:, ~mask] = -np.inf
        s, v, n = map(int, np.unravel_index(int(similarity.argmax()), similarity.shape))
        best = hit.best_view
        assert (two_styles.describer.config.styles.index(best["style"]), best["view"], best["query_view"]) == (s, v, n)
        assert best["similarity"] == pytest.approx(float(similarity.max()), abs=1e-5)


def test_mesh_is_reranked_like_its_object(things: Collection, shapes: Path) -> None:
    expected = {**_matches(things, "shape-004.ply"), "shape-004.ply": 1.0}
    hits = things.search(Query(mesh=shapes / "shape-004.ply"), k=100, rerank=ALL)
    assert hits[0].id == "shape-004.ply"
    assert _scores(hits) == pytest.approx(expected, abs=2e-3)


def test_reranking_a_query_without_views_is_an_error(two_styles: Collection) -> None:
    vector = Term("vector", np.ones(two_styles.session.dim))
    for terms in ([vector], [vector, Term("id", "o01", -1.0)]):
        with raises_code(QueryError, "no_views_to_rerank"):
            two_styles.search(Query(terms=terms), rerank=ALL)
    assert two_styles.search(Query(terms=[vector]), rerank=RerankOptions(expand=2)) != []


def test_reranking_in_an_empty_collection(collection: Collection, shapes: Path) -> None:
    assert collection.search(Query(mesh=shapes / "shape-000.ply"), rerank=RerankOptions(expand=3, rerank_views=5)) == []


# -- query expansion ---------------------------------------------------------------------------------------------------------


def _vector_of(collection: Collection, object_id: str) -> Array:
    return collection.session.store.vector_of(collection.session.row_id_of(object_id))


@pytest.mark.parametrize(("expand", "alpha"), [(1, 3.0), (4, 0.0), (4, 2.0), (100, 1.0)])
def test_expanded_query_is_the_mean_with_its_neighbours(two_styles: Collection, expand: int, alpha: float) -> None:
    plain = [hit.id for hit in two_styles.search(Query(id="o03"), k=100)][:expand]
    neighbours = np.stack([_vector_of(two_styles, i) for i in plain])
    query = average_neighbours(_vector_of(two_styles, "o03"), neighbours, alpha)
    rerank = RerankOptions(expand=expand, expand_alpha=alpha)
    expected = {i: float(query @ _vector_of(two_styles, i)) for i in _ids(two_styles) if i != "o03"}
    assert _scores(two_styles.search(Query(id="o03"), k=100, rerank=rerank)) == pytest.approx(expected, abs=1e-5)
    kept = {i: score for i, score in expected.items() if int(i[1:]) > 12}
    found = two_styles.search(Query(id="o03"), k=100, where="n > 12", rerank=rerank)
    assert _scores(found) == pytest.approx(kept, abs=1e-5), "the filter does not apply to the neighbours"


def test_only_positive_terms_are_expanded(two_styles: Collection) -> None:
    terms = [Term("id", "o03"), Term("id", "o08", -0.5)]
    hits = two_styles.search(Query(terms=terms), k=100, rerank=RerankOptions(expand=3))
    near = [hit.id for hit in two_styles.search(Query(id="o03"), k=100) if hit.id != "o08"][:3]
    plus = average_neighbours(_vector_of(two_styles, "o03"), np.stack([_vector_of(two_styles, i) for i in near]))
    minus = _vector_of(two_styles, "o08")
    gallery = np.stack([_vector_of(two_styles, i) for i in _ids(two_styles)]).astype(float)
    for hit in hits:
        assert hit.parts == pytest.approx([_vector_of(two_styles, hit.id) @ v for v in (plus, minus)], abs=1e-5)
        z = [
            (part - (gallery @ v).mean()) / (gallery @ v).std()
            for part, v in zip(hit.parts, (plus, minus), strict=True)
        ]
        assert hit.score == pytest.approx(z[0] - 0.5 * z[1], abs=1e-3)


def test_expansion_in_an_augmented_collection_uses_augmented_vectors(tmp_path: Path, collection: Collection) -> None:
    paths = write_shapes(tmp_path, range(8))
    collection.add_folder(tmp_path)
    collection.augment(2)
    from mvretrieval.store.augmented import search_vectors

    own = _vector_of(collection, paths[1].name)
    row_ids = [collection.session.row_id_of(hit.id) for hit in collection.search(Query(id=paths[1].name), k=3)]
    query = average_neighbours(own, search_vectors(collection.session.store, row_ids)[1])
    hits = collection.search(Query(id=paths[1].name), k=100, rerank=RerankOptions(expand=3))
    for hit in hits:
        assert hit.score == pytest.approx(
            float(search_vectors(collection.session.store, [collection.session.row_id_of(hit.id)])[1][0] @ query),
            abs=1e-5,
        )


def test_bad_rerank_options_are_errors() -> None:
    for wrong, value in (
        ({"expand": -1}, "-1"),
        ({"rerank_views": -5}, "-5"),
        ({"rerank_weight": 1.5}, "1.5"),
        ({"rerank_weight": float("nan")}, "nan"),
        ({"expand_alpha": -1.0}, "-1"),
    ):
        with raises_code(QueryError, "bad_rerank_options", value):
            RerankOptions(**wrong)


# -- batches ----------------------------------------------------------------------------------------------


def test_batches_keep_the_order_of_row_ids(two_styles: Collection) -> None:
    row_ids = [7, 999, 3, 20, 1]
    there, views, masks = view_vectors(two_styles.session.store, row_ids, 2)
    assert there.tolist() == [7, 3, 20, 1] and views.shape == (4, 2, 4, 1024)
    found, vectors = original_vectors(two_styles.session.store, row_ids)
    assert found.tolist() == there.tolist()
    for i, row_id in enumerate(there.tolist()):
        one, mask = two_styles.session.views(row_id)
        np.testing.assert_array_equal(views[i], one)
        np.testing.assert_array_equal(masks[i], mask)
        np.testing.assert_array_equal(vectors[i], two_styles.session.store.vector_of(row_id))
    assert [part.size for part in view_vectors(two_styles.session.store, [999], 2)] == [0, 0, 0]
    assert [part.size for part in original_vectors(two_styles.session.store, [])] == [0, 0]
