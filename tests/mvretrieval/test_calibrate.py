"""Calibrating a collection: its queries, with and without labels, what is refused, and what outdates a calibration."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from error_codes import raises_code
from made_meshes import SMALL
from numpy.typing import NDArray
from synthetic_classes import N_CLASSES, make_synthetic_classes

from mvretrieval.api import Collection
from mvretrieval.confidence import fit as fitting
from mvretrieval.confidence.calibration import Calibration, calibration_of, is_outdated
from mvretrieval.confidence.calibration_queries import CalibrationObjects, image_queries, object_queries
from mvretrieval.confidence.curve import cohort_size
from mvretrieval.errors import CalibrationError, FilterError, MvrError, QueryError
from mvretrieval.search.query import Query


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    """A collection that tests only read."""
    with make_synthetic_classes(tmp_path_factory.mktemp("classes") / "c", SMALL) as collection:
        yield collection


@pytest.fixture
def collection(shared: Collection, tmp_path: Path) -> Iterator[Collection]:
    """A copy that a test may change."""
    shutil.copytree(shared.folder, tmp_path / "copy")
    with Collection.open(tmp_path / "copy", write=True) as copy:
        yield copy


def _labeled(collection: Collection) -> tuple[NDArray[np.bool_], CalibrationObjects, NDArray[np.float32]]:
    """Mask (N,) of labeled objects, those objects, and all vectors (N, D)."""
    store = collection.session.store
    row_ids = store.select(None)
    labels = store.column_values("label", row_ids.tolist())
    names = sorted({label for label in labels if label is not None})
    kept = np.array([label is not None for label in labels])
    class_ids = np.array([names.index(label) for label in labels if label is not None])
    vectors = np.stack([store.vector_of(int(n)) for n in row_ids])
    return kept, CalibrationObjects(row_ids[kept], class_ids, False), vectors


# -- queries -----------------------------------------------------------------------------------------------------------


def test_pairs_are_the_first_ten_hits_of_each_labeled_object_with_cohorts_of_all_objects(shared: Collection) -> None:
    kept, objects, vectors = _labeled(shared)
    pairs = object_queries(shared.session, objects, np.random.default_rng(0))
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    hits = np.argsort(-cosines[kept][:, kept], axis=1)[:, :10]
    expected = np.take_along_axis(cosines[kept][:, kept], hits, axis=1)
    cohorts = -np.sort(-cosines[kept], axis=1)[:, : cohort_size(100)]
    assert pairs.queries == 96 and len(pairs.cosines) == 960
    np.testing.assert_allclose(pairs.cosines, expected.ravel(), atol=1e-5)
    np.testing.assert_allclose(pairs.cohort_means, np.repeat(cohorts.mean(axis=1), 10), atol=1e-5)
    np.testing.assert_array_equal(pairs.same, (objects.class_ids[hits] == objects.class_ids[:, None]).ravel())


def test_image_queries_pool_views_like_query_images(shared: Collection) -> None:
    describer, session = shared.describer, shared.session
    views, mask = session.views(session.row_id_of("000.ply"))
    images = describer.pool_images(views[:, :2], np.array([[True, True]]))
    pooled = describer.pool(views[None, :, :2], mask[None, :2], known_directions=False)[0]
    np.testing.assert_allclose(images, pooled, atol=1e-6)
    padded_views, padded_mask = np.pad(views[:, :2], ((0, 0), (0, 1), (0, 0))), np.array([[True, True, False]])
    np.testing.assert_allclose(describer.pool_images(padded_views, padded_mask), images, atol=1e-6)
    _, objects, _ = _labeled(shared)
    pairs = image_queries(session, objects, np.random.default_rng(0))
    again = image_queries(session, objects, np.random.default_rng(0))
    np.testing.assert_array_equal(pairs.cosines, again.cosines)
    assert pairs.queries == 96 and 0 < pairs.same.mean() < 1


# -- with labels, or without -------------------------------------------------------------------------------------------


def test_a_calibration_is_stored_exactly(collection: Collection) -> None:
    calibration = collection.calibrate("label", "label is not null")
    store = collection.session.store
    assert Calibration.from_json(calibration.to_json()) == calibration == calibration_of(store)
    with Collection.open(collection.folder) as again:
        assert calibration_of(again.session.store) == calibration
    assert not is_outdated(store, calibration)
    assert calibration.curves["objects"].groups == N_CLASSES


def test_without_labels_each_object_is_its_own_class(collection: Collection) -> None:
    calibration = collection.calibrate()
    curve = calibration.curves["objects"]
    assert calibration.by is None and set(calibration.left_out) == {"text"} and "--by" in calibration.left_out["text"]
    assert curve.groups == 100 and curve.same <= 0.1 + 1e-9  # one of ten hits at most
    assert collection.calibrate() == calibration
    by_label = collection.calibrate("label").curves["objects"]
    # The same object is a stricter criterion than the same class.
    confidences = [c(np.array([0.9]), 0.4)[0] for c in (curve, by_label)]
    assert by_label.same > 3 * curve.same and confidences[0] <= confidences[1] + 0.05


def test_the_same_seed_gives_the_same_curves_and_where_selects_objects(collection: Collection) -> None:
    first = collection.calibrate("label", seed=1)
    assert collection.calibrate("label", seed=1) == first
    half = collection.calibrate("label", "split = 'a'")
    assert half.curves["objects"].queries == 48 and half.where == "split = 'a'"


@pytest.mark.parametrize(
    ("by", "where", "code", "value"),
    [
        ("same", None, "one_class", "'same' (one)"),
        ("own", None, "all_distinct", "no two of 96"),
        ("label", "label = 'class 1' and id < '020'", "too_few_objects", "2 objects"),
        ("label", "label = 'nothing'", "too_few_objects", "0 objects"),
        (None, "id = '000.ply'", "too_few_objects", "1 object where"),
    ],
)
def test_too_few_objects_or_classes_are_refused_and_the_old_calibration_stays(
    collection: Collection, by: str | None, where: str | None, code: str, value: str
) -> None:
    calibration = collection.calibrate("label")
    with raises_code(CalibrationError, code, value):
        collection.calibrate(by, where)
    assert calibration_of(collection.session.store) == calibration


def test_unknown_labels_and_negative_seeds_are_refused(collection: Collection) -> None:
    errors: list[tuple[type[MvrError], tuple[str | None, str | None, int], str]] = [
        (FilterError, ("lable", None, 0), "did you mean 'label'"),
        (FilterError, ("label", "labell = 'x'", 0), "label"),
        (CalibrationError, ("label", None, -1), "-1"),
    ]
    for error, arguments, value in errors:
        with pytest.raises(error, match=value):
            collection.calibrate(*arguments)


def test_scikit_learn_is_needed_for_calibration_and_not_for_search(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.calibrate("label")
    monkeypatch.setattr(fitting, "find_spec", lambda name: None)
    with raises_code(CalibrationError, "needs_extra", "pip install 'mvretrieval[calibrate]'"):
        collection.calibrate("label")
    assert collection.search(Query(id="005.ply"))[0].confidence is not None


# -- what outdates it --------------------------------------------------------------------------------------------------


def test_a_calibration_is_outdated_by_other_vectors_and_not_by_other_objects(collection: Collection) -> None:
    store = collection.session.store
    calibration = collection.calibrate("label")
    collection.remove("007.ply")
    assert not is_outdated(store, calibration) and collection.search(Query(id="005.ply"))[0].confidence is not None
    collection.augment(3)
    assert is_outdated(store, calibration) and collection.search(Query(id="005.ply"))[0].confidence is None
    with raises_code(CalibrationError, "needs_labels"):
        collection.calibrate()
    calibration = collection.calibrate("label")
    assert collection.search(Query(id="005.ply"))[0].confidence is not None
    collection.reembed(replace(collection.describer.config, whiten=16))
    assert is_outdated(store, calibration)
    with raises_code(QueryError, "no_confidence", f"run 'mvr calibrate {collection.folder} --by label' again"):
        collection.search(Query(id="005.ply"), min_confidence=0.5)
