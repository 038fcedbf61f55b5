"""Database-side augmentation and query expansion on arrays, against slow plain versions."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

import numpy as np
import pytest
from error_codes import raises_code
from hypothesis import given, settings
from hypothesis import strategies as st
from made_meshes import unit
from numpy.typing import NDArray

from mvretrieval.augmentation import augment_database, average_neighbours, expand_queries, scores_without_query
from mvretrieval.errors import ShapeError

Vectors = NDArray[np.float32]


def _vectors(n: int, dim: int = 6, seed: int = 0, repeated: int = 0) -> Vectors:
    """Vectors around a centre, so that most cosines are positive as in real data; the last few repeat the first."""
    rng = np.random.default_rng(seed)
    vectors = unit(rng.standard_normal((n, dim)) + 0.5)
    vectors[n - repeated :] = vectors[:repeated]
    return vectors


def _weight(cosine: float, alpha: float) -> float:
    return cosine**alpha if cosine > 0 else 0.0


def _plain_expand(x: Vectors, gallery: Vectors, k: int, alpha: float) -> Vectors:
    order = sorted(range(len(gallery)), key=lambda j: (-float(np.float32(x @ gallery[j])), j))[:k]
    total = x.astype(float) + sum(_weight(float(x @ gallery[j]), alpha) * gallery[j].astype(float) for j in order)
    return np.asarray(total / np.linalg.norm(total))


def _plain_augment(vectors: Vectors, k: int, alpha: float) -> Vectors:
    rows = [_plain_expand(x, np.delete(vectors, i, axis=0), k, alpha) for i, x in enumerate(vectors)]
    return np.stack(rows).astype(np.float32)


options = st.tuples(st.integers(0, 30), st.sampled_from([0.0, 0.5, 1.0, 3.0, 8.0]))


@settings(max_examples=40)
@given(n=st.integers(1, 25), how=options, seed=st.integers(0, 9), repeated=st.sampled_from([0, 0, 3]))
def test_augmentation_and_expansion_equal_plain_versions(
    n: int, how: tuple[int, float], seed: int, repeated: int
) -> None:
    vectors, queries = _vectors(n, seed=seed, repeated=min(repeated, n // 2)), _vectors(5, seed=seed + 100)
    np.testing.assert_allclose(augment_database(vectors, *how), _plain_augment(vectors, *how), atol=2e-6)
    expected = [_plain_expand(query, vectors, *how) for query in queries]
    np.testing.assert_allclose(expand_queries(queries, vectors, *how), expected, atol=2e-6)


@settings(max_examples=25)
@given(n=st.integers(1, 14), how=options, expand_k=st.integers(0, 16), seed=st.integers(0, 9))
def test_scores_without_query_equal_removing_it_from_the_gallery(
    n: int, how: tuple[int, float], expand_k: int, seed: int
) -> None:
    vectors = _vectors(n, seed=seed)
    scores = scores_without_query(vectors, *how, expand_k=expand_k, expand_alpha=2.0)
    for q in range(n):
        gallery = _plain_augment(np.delete(vectors, q, axis=0), *how) if n > 1 else np.empty((0, 6), np.float32)
        query = _plain_expand(vectors[q], gallery, expand_k, 2.0)
        np.testing.assert_allclose(np.delete(scores[q], q), gallery @ query, atol=5e-6)
        assert scores[q, q] == -np.inf


def test_scores_of_some_queries_equal_those_of_all() -> None:
    vectors = _vectors(40)
    some = np.array([7, 3, 39])
    np.testing.assert_allclose(
        scores_without_query(vectors, 4, expand_k=3, queries=some),
        scores_without_query(vectors, 4, expand_k=3)[some],
        atol=1e-6,
    )


def test_block_size_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = _vectors(50), _vectors(9, seed=1)

    def everything() -> tuple[Vectors, ...]:
        return (
            augment_database(vectors, 5),
            expand_queries(queries, vectors, 5),
            scores_without_query(vectors, 5, expand_k=2),
        )

    whole = everything()
    monkeypatch.setattr("mvretrieval.augmentation._BLOCK", 7)
    monkeypatch.setattr("mvretrieval.augmentation._GATHERED", 11)
    for mine, its in zip(everything(), whole, strict=True):
        np.testing.assert_allclose(mine, its, atol=1e-6)


@pytest.mark.skipif(sys.platform != "linux", reason="the blocks of an allocation are longer than one byte there")
def test_without_neighbours_nothing_is_read_beyond_empty_arrays() -> None:
    small = [np.zeros(1, np.uint8) for _ in range(64)]
    for array in small:
        ctypes.memset(array.ctypes.data, 0xFF, 16)  # NaN; the next empty arrays get these blocks
    del small
    vectors = _vectors(8)
    assert not np.isnan(scores_without_query(vectors, 0)).any()


def test_no_neighbours() -> None:
    vectors = _vectors(8)
    np.testing.assert_array_equal(augment_database(vectors, 0), vectors)
    np.testing.assert_array_equal(expand_queries(vectors, vectors, 0), vectors)
    np.testing.assert_array_equal(augment_database(vectors[:1], 5), vectors[:1])
    np.testing.assert_array_equal(expand_queries(vectors, vectors[:0], 5), vectors)
    assert augment_database(vectors[:0], 5).shape == expand_queries(vectors[:0], vectors, 5).shape == (0, 6)
    assert scores_without_query(vectors[:0], 5, expand_k=5).shape == (0, 0)
    plain = vectors @ vectors.T
    np.fill_diagonal(plain, -np.inf)
    np.testing.assert_allclose(scores_without_query(vectors, 0), plain, atol=1e-6)


def test_result_is_a_copy() -> None:
    vectors = _vectors(4)
    augment_database(vectors, 0)[:] = 7
    expand_queries(vectors, vectors, 0)[:] = 7
    np.testing.assert_array_equal(vectors, _vectors(4))


def test_neighbours_with_negative_cosine_have_weight_zero() -> None:
    x = np.array([1.0, 0.0], np.float32)
    away = np.array([[-1.0, 0.0], [0.0, 1.0]], np.float32)
    for alpha in (0.0, 1.0, 3.0):
        np.testing.assert_array_equal(average_neighbours(x, away, alpha), x)
        np.testing.assert_array_equal(expand_queries(x[None], away, 2, alpha), x[None])
        assert np.isfinite(augment_database(np.stack([x, away[0]]), 5, alpha)).all()


def test_order_of_the_gallery_does_not_matter() -> None:
    vectors = _vectors(30)
    order = np.random.default_rng(1).permutation(30)
    np.testing.assert_allclose(augment_database(vectors[order], 5), augment_database(vectors, 5)[order], atol=1e-6)


def test_ties_are_broken_by_index() -> None:
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.8, 0], [0.6, 0, 0.8], [0.6, -0.8, 0]], np.float32)
    np.testing.assert_allclose(augment_database(vectors, 1, 0)[0], unit(vectors[0] + vectors[3]), atol=1e-6)
    np.testing.assert_allclose(
        augment_database(vectors, 2, 0)[0], unit(vectors[0] + vectors[3] + vectors[4]), atol=1e-6
    )


def test_negative_number_of_neighbours_is_an_error() -> None:
    vectors = _vectors(3)
    calls: tuple[Callable[[], object], ...] = (
        lambda: augment_database(vectors, -1),
        lambda: expand_queries(vectors, vectors, -1),
        lambda: scores_without_query(vectors, 1, expand_k=-1),
    )
    for call in calls:
        with raises_code(ShapeError, "bad_neighbours", "-1"):
            call()


def test_augmentation_and_expansion_improve_clustered_data() -> None:
    """The purpose of both: less noise around few centres."""
    rng = np.random.default_rng(0)
    centres = unit(rng.standard_normal((5, 32)))
    kinds = np.repeat(np.arange(5), 20)
    vectors = unit(centres[kinds] + 0.25 * rng.standard_normal((100, 32)))

    def correct(scores: Vectors) -> float:
        order = np.argsort(-scores, axis=1)[:, :19]
        return float((kinds[order] == kinds[:, None]).mean())

    plain, augmented, both = (
        correct(scores_without_query(vectors, k, expand_k=e)) for k, e in ((0, 0), (8, 0), (8, 5))
    )
    assert plain + 0.02 < augmented and augmented <= both


def test_gallery_of_the_size_of_psb() -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((1809, 256)) + 0.2)
    assert scores_without_query(vectors, 10, expand_k=5).shape == (1809, 1809)
