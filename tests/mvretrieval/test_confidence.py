"""Confidence of hits against the plain formula, the minimum confidence, and the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import Mvr, as_json, runner
from error_codes import raises_code
from made_meshes import SMALL
from numpy.typing import NDArray
from PIL import Image
from synthetic_classes import N_CLASSES, make_synthetic_classes
from tiny_clip import tiny_clip

from mvretrieval.api import Collection
from mvretrieval.confidence.calibration import Calibration, put_calibration
from mvretrieval.confidence.curve import Curve, cohort_size
from mvretrieval.describe import DescriberConfig
from mvretrieval.errors import QueryError
from mvretrieval.search.options import RerankOptions, SearchOptions
from mvretrieval.search.query import Query, Term


@pytest.fixture(scope="module")
def uncalibrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    """A collection that tests only read."""
    with make_synthetic_classes(tmp_path_factory.mktemp("classes") / "c", SMALL) as collection:
        yield collection


@pytest.fixture
def collection(uncalibrated: Collection, tmp_path: Path) -> Iterator[Collection]:
    """A copy that a test may change."""
    shutil.copytree(uncalibrated.folder, tmp_path / "copy")
    with Collection.open(tmp_path / "copy", write=True) as copy:
        yield copy


@pytest.fixture
def mvr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mvr:
    return runner(monkeypatch, capsys)


def _vector(collection: Collection, object_id: str) -> NDArray[np.float32]:
    return collection.session.store.vector_of(collection.session.row_id_of(object_id))


def _vectors(collection: Collection) -> tuple[list[str], NDArray[np.float32]]:
    store = collection.session.store
    row_ids = store.select(None).tolist()
    records = store.records(row_ids)
    return [records[n].id for n in row_ids], np.stack([store.vector_of(n) for n in row_ids])


def _plain_confidences(collection: Collection, curve: Curve, object_id: str) -> dict[str, float]:
    """Id -> confidence, from all cosines with an object."""
    ids, vectors = _vectors(collection)
    cosines = vectors @ _vector(collection, object_id)
    others = [i for i, own in enumerate(ids) if own != object_id]
    cohort_mean = np.sort(cosines[others])[::-1][: cohort_size(len(ids))].mean()
    return {ids[i]: float(curve(cosines[i], cohort_mean)) for i in others}


# -- hits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [None, "split = 'a'"])
@pytest.mark.parametrize(
    "rerank", [RerankOptions(), RerankOptions(expand=4), RerankOptions(rerank_views=30), RerankOptions(2, 3.0, 30)]
)
def test_confidence_is_the_curve_of_the_plain_cosine_in_any_search(
    collection: Collection, where: str | None, rerank: RerankOptions
) -> None:
    curve = collection.calibrate("label").curves["objects"]
    assert curve.cohort_weight != 0
    expected = _plain_confidences(collection, curve, "005.ply")
    hits = collection.search(Query(id="005.ply"), k=30, where=where, rerank=rerank)
    assert len(hits) == 30
    found = {hit.id: hit.confidence for hit in hits}
    assert found == pytest.approx({hit.id: expected[hit.id] for hit in hits}, abs=1e-4)
    assert hits[0].to_json()["confidence"] == pytest.approx(hits[0].confidence, abs=1e-4)


def test_calibration_adds_confidence_and_changes_nothing_else(uncalibrated: Collection, collection: Collection) -> None:
    before = [hit.to_json() for hit in uncalibrated.search(Query(id="005.ply"))]
    assert all("confidence" not in hit for hit in before)
    collection.calibrate("label")
    after = [hit.to_json() for hit in collection.search(Query(id="005.ply"))]
    assert all(hit.pop("confidence") > 0 for hit in after)
    assert after == before


def test_the_minimum_confidence_is_a_filter(collection: Collection) -> None:
    collection.calibrate("label")
    hits = collection.search(Query(id="005.ply"), k=40)
    confidences = [hit.confidence for hit in hits if hit.confidence is not None]
    assert len(confidences) == len(hits) and confidences == sorted(confidences, reverse=True)
    for least in (0.0, 0.3, confidences[5], 0.9, 1.0):
        kept = collection.search(Query(id="005.ply"), k=40, min_confidence=least)
        expected = [h for h, confidence in zip(hits, confidences, strict=True) if round(confidence, 4) >= least]
        assert [h.to_json() for h in kept] == [h.to_json() for h in expected]
    assert 0 < len(collection.search(Query(id="005.ply"), k=40, min_confidence=0.5)) < 40
    for n, hit in enumerate(hits):  # the confidence that is shown, which is rounded, includes its own hit
        assert len(collection.search(Query(id="005.ply"), k=40, min_confidence=hit.to_json()["confidence"])) > n
    for bad in (-0.1, 1.5):
        with raises_code(QueryError, "bad_min_confidence", f"{bad:g}"):
            SearchOptions(min_confidence=bad)


def test_images_and_vectors_have_confidence_and_queries_of_several_terms_have_none(
    collection: Collection, tmp_path: Path
) -> None:
    calibration = collection.calibrate("label")
    assert set(calibration.curves) == {"objects", "images"} and "text tower" in calibration.left_out["text"]
    image = tmp_path / "image.png"
    Image.new("RGB", (64, 64), "navy").save(image)
    assert collection.search(Query(images=[image]))[0].confidence is not None
    vector = _vector(collection, "003.ply")
    cohort_mean = np.sort(_vectors(collection)[1] @ vector)[::-1][: cohort_size(100)].mean()
    expected = float(calibration.curves["objects"](1.0, cohort_mean))  # type: ignore[arg-type]
    assert collection.search(Query(vector=vector))[0].confidence == pytest.approx(expected, abs=1e-4)
    mixture = Query(terms=[Term("id", "003.ply"), Term("id", "004.ply", -0.5)])
    assert {hit.confidence for hit in collection.search(mixture)} == {None}
    with raises_code(QueryError, "no_confidence", "several terms"):
        collection.search(mixture, min_confidence=0.5)


def test_a_modality_without_a_curve_has_no_confidence(collection: Collection, tmp_path: Path) -> None:
    calibration = collection.calibrate("label")
    objects_only = {"objects": calibration.curves["objects"]}
    put_calibration(
        collection.session.store,
        Calibration(calibration.by, None, calibration.generation, objects_only, {"images": "the reason"}),
    )
    image = tmp_path / "image.png"
    Image.new("RGB", (64, 64), "navy").save(image)
    with raises_code(QueryError, "no_confidence", "by images", "by objects (the reason)"):
        collection.search(Query(images=[image]), min_confidence=0.5)
    assert collection.search(Query(images=[image]))[0].confidence is None


def test_text_queries_are_calibrated_with_a_clip_encoder(tmp_path: Path) -> None:
    config = DescriberConfig(tiny_clip(tmp_path), "ring:3@30", size=64)
    with make_synthetic_classes(tmp_path / "c", config) as collection:
        calibration = collection.calibrate("label")
        assert set(calibration.curves) == {"objects", "images", "text"} and not calibration.left_out
        curve = calibration.curves["text"]
        assert (curve.queries, curve.pairs, curve.groups) == (N_CLASSES, 10 * N_CLASSES, N_CLASSES)
        hits = collection.search(Query(text="class 4"), k=10)
        cohort = collection.search(Query(text="class 4"), k=cohort_size(100))
        cohort_mean = float(np.mean([hit.score for hit in cohort]))
        expected = curve(np.array([hit.score for hit in hits]), cohort_mean)
        np.testing.assert_allclose(np.array([hit.confidence for hit in hits], float), expected, atol=1e-4)
        few = collection.calibrate("label", "label in ('class 1', 'class 2', 'class 3')")
        assert "3 class names" in few.left_out["text"]
        with raises_code(QueryError, "no_confidence", "3 class names"):
            collection.search(Query(text="class 4"), min_confidence=0.1)


# -- command line ------------------------------------------------------------------------------------------------------


def test_calibrate_and_search_on_the_command_line(mvr: Mvr, uncalibrated: Collection, tmp_path: Path) -> None:
    folder = shutil.copytree(uncalibrated.folder, tmp_path / "c")
    search = ("search", folder, "--id", "005.ply")
    code, _, err = mvr(*search, "--min-confidence", "0.5")
    assert code == 1 and f"mvr calibrate {folder} --by label" in err
    code, out, err = mvr("calibrate", folder, "--by", "label")
    assert code == 0 and "objects " in out and "images" in out and "'label'" in out and "no text tower" in err
    facts = as_json(mvr("info", folder, "--json"))["confidence"]
    assert (facts["by"], facts["outdated"]) == ("label", False) and 0 <= facts["errors"]["objects"] < 1
    best = json.loads(mvr(*search, "--json")[1].splitlines()[0])["confidence"]
    assert f"{best:.0%}" in mvr(*search)[1]
    page = tmp_path / "page.html"
    code, out, _ = mvr(*search, "--min-confidence", "1", "--html", page)
    message = f"no object in the collection matches the query (highest confidence: {best:.0%})"
    assert (code, out) == (0, f"{message}\n") and message[1:] in page.read_text()
    out = mvr(*search, "--min-confidence", "1", "--where", "split = 'b'")[1]
    assert out.startswith("no object where split = 'b' matches the query (highest confidence: ")
    code, out, err = mvr(*search, "--min-confidence", "1", "--json")
    assert (code, out) == (0, "") and message in err
    mvr(*search, "--html", page)
    assert f"{best:.0%}" in page.read_text()
    assert mvr(*search, "--min-confidence", "1.5")[0] == 1


def test_outdated_and_removed_calibrations_on_the_command_line(
    mvr: Mvr, uncalibrated: Collection, tmp_path: Path
) -> None:
    folder = shutil.copytree(uncalibrated.folder, tmp_path / "c")
    assert mvr("calibrate", folder, "--by", "label")[0] == 0
    code, _, err = mvr("reindex", folder, "--whiten", "16")
    assert code == 0 and f"mvr calibrate {folder} --by label" in err
    assert as_json(mvr("info", folder, "--json"))["confidence"]["outdated"]
    code, out, err = mvr("search", folder, "--id", "005.ply")
    assert code == 0 and "%" not in out and "changed after calibration" in err
    assert mvr("calibrate", folder, "--by", "label")[0] == 0  # replaces the outdated one
    assert mvr("calibrate", folder, "--remove", "--by", "label")[0] == 1
    assert as_json(mvr("calibrate", folder, "--remove", "--json")) == {"removed": True}
    assert mvr("calibrate", folder, "--remove")[:2] == (0, f"{folder}: was not calibrated\n")
    assert as_json(mvr("info", folder, "--json"))["confidence"] is None
