"""Confidence: the curve against scikit-learn, hits against the plain formula, what outdates it, and what an empty answer says."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import Mvr, as_json, runner
from hypothesis import given
from hypothesis import strategies as st
from made_meshes import SMALL, new_object, unit
from numpy.typing import NDArray
from PIL import Image
from tiny_clip import tiny_clip

from mvretrieval.api import Collection, OpenOptions
from mvretrieval.confidence import fit as fitting
from mvretrieval.confidence.calibration import Calibration, calibration_of, is_outdated, put_calibration
from mvretrieval.confidence.calibration_queries import Labelled, asked_with_objects, asked_with_pictures
from mvretrieval.confidence.curve import Curve, cohort_size, expected_calibration_error
from mvretrieval.confidence.fit import Asked, fit_curve, fit_one
from mvretrieval.describe import DescriberConfig
from mvretrieval.errors import CalibrationError, FilterError, QueryError
from mvretrieval.search.options import RerankOptions
from mvretrieval.search.query import Query, Term

N_KINDS, N_EACH = 12, 8


def _make(folder: Path, config: DescriberConfig) -> Collection:
    """96 made-up objects of twelve kinds and four without a label, with three views each."""
    rng = np.random.default_rng(3)
    collection = Collection.create(folder, config, OpenOptions(workers=1))
    describer, dim = collection.describer, collection.describer.encoder.dim
    middles = unit(rng.normal(size=(N_KINDS, dim)) + 1.2 * rng.normal(size=dim))
    with collection.store.transaction():
        change = collection.store.next_sequence()
        for i in range(N_KINDS * N_EACH + 4):
            middle = middles[i % N_KINDS] if i < N_KINDS * N_EACH else unit(rng.normal(size=dim))
            # Some kinds are narrow, some wide.
            own = middle + (0.5 + i % N_KINDS / 8) * rng.normal(size=dim) / math.sqrt(dim)
            views = unit(own + 0.5 * rng.normal(size=(1, 3, dim)) / math.sqrt(dim)).astype(np.float16)
            mask = np.ones(3, bool)
            vector, _ = describer.pool(views[None].astype(np.float32), mask[None])
            made = replace(new_object(f"{i:03d}.ply", vector[0]), view_vectors=views, view_mask=mask, strip=_strip())
            row_id = collection.store.put(made, change)
            if i < N_KINDS * N_EACH:
                split = "a" if i % N_KINDS < N_KINDS // 2 else "b"
                labels = {"label": f"kind {i % N_KINDS}", "same": "one", "own": f"o{i}", "split": split}
                collection.store.set_metadata(row_id, labels)
    return collection


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    """Only to be read."""
    with _make(tmp_path_factory.mktemp("kinds") / "c", SMALL) as collection:
        yield collection


@pytest.fixture
def own(kinds: Collection, tmp_path: Path) -> Iterator[Collection]:
    """A copy to be changed."""
    shutil.copytree(kinds.folder, tmp_path / "own")
    with Collection.open(tmp_path / "own", write=True) as collection:
        yield collection


@pytest.fixture
def mvr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mvr:
    return runner(monkeypatch, capsys)


def _strip() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (24, 8), "white").save(out, "WEBP")
    return out.getvalue()


def _asked(seed: int = 0, n: int = 400) -> Asked:
    """Pairs of which the nearer ones are more often the same, by the question's height."""
    rng = np.random.default_rng(seed)
    heights, above = rng.uniform(0.2, 0.6, n), rng.normal(0.1, 0.15, n)
    same = rng.uniform(size=n) < 1 / (1 + np.exp(-12 * (above - 0.1)))
    return Asked(heights + above, heights, same, np.arange(n) // 20, n // 10)


# -- the curve ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_height", [False, True])
def test_knots_say_what_scikit_learn_predicts(with_height: bool) -> None:
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    asked = _asked()
    columns = np.stack([asked.cosines, asked.heights][: 1 + with_height], axis=1)
    scaled = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    model = LogisticRegression(C=1000.0).fit(scaled, asked.same)
    logistic, isotonic = fit_one(asked, "logistic", with_height), fit_one(asked, "isotonic", with_height)
    assert logistic is not None and isotonic is not None and (logistic.share > 0.5) == with_height
    np.testing.assert_allclose(logistic(asked.cosines, asked.heights), model.predict_proba(scaled)[:, 1], atol=2e-3)
    x, bound = asked.cosines - isotonic.share * asked.heights, 1 / (len(asked.same) + 2)
    steps = IsotonicRegression(y_min=bound, y_max=1 - bound, out_of_bounds="clip").fit(x, asked.same)
    probe = np.linspace(x.min() - 1, x.max() + 1, 500)
    np.testing.assert_allclose(isotonic(probe, 0.0), steps.predict(probe), atol=1e-12)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=20), st.floats(-1, 1), st.integers(0, 20))
def test_a_curve_never_falls_and_stays_a_probability(cosines: list[float], height: float, seed: int) -> None:
    for method in ("logistic", "isotonic"):
        curve = fit_one(_asked(seed % 3, 100), method, seed % 2 == 0)
        assert curve is not None
        told = curve(np.sort(cosines), height)
        assert (np.diff(told) >= 0).all() and (0 < told).all() and (told < 1).all()


def test_height_is_taken_where_it_helps_on_held_out_classes_and_only_there() -> None:
    asked = _asked(n=2000)
    assert fit_curve(asked).share == pytest.approx(1, abs=0.2)
    useless = Asked(asked.cosines - asked.heights, np.zeros(2000), asked.same, asked.groups, asked.questions)
    curve = fit_curve(useless)
    assert curve.share == 0 and curve.error is not None and curve.error < 0.06
    assert (curve.pairs, curve.groups, curve.questions) == (2000, 100, 200)


def test_calibration_error_is_the_mean_gap_of_the_bins() -> None:
    told = np.array([0.05, 0.05, 0.95, 0.95, 1.0])
    same = np.array([True, False, True, True, False])
    expected = abs(0.1 - 1) / 5 + abs(2.9 - 2) / 5
    assert expected_calibration_error(told, same, 10) == pytest.approx(expected)
    rng = np.random.default_rng(0)
    honest = rng.uniform(size=20000)
    assert expected_calibration_error(honest, rng.uniform(size=20000) < honest) < 0.02
    assert expected_calibration_error(np.full(100, 0.9), np.zeros(100, bool)) == pytest.approx(0.9)


def test_a_calibration_survives_as_text_bit_for_bit(own: Collection) -> None:
    made = own.calibrate("label", "label is not null")
    assert Calibration.from_json(made.to_json()) == made == calibration_of(own.store)
    with Collection.open(own.folder) as again:
        read = calibration_of(again.store)
    assert read == made and not is_outdated(own.store, made)
    assert {type(value) for value in made.curves["objects"].knots} == {float}


# -- what is asked -----------------------------------------------------------------------------------------------------


def _vectors(collection: Collection) -> tuple[NDArray[np.int64], NDArray[np.float32], list[str | None]]:
    row_ids = collection.store.select(None)
    labels = collection.store.column_values("label", row_ids.tolist())
    return row_ids, np.stack([collection.store.vector_of(int(n)) for n in row_ids]), labels


def test_questions_are_the_first_ten_hits_of_each_object_and_heights_the_nearest_of_all(kinds: Collection) -> None:
    row_ids, vectors, labels = _vectors(kinds)
    names = {label: i for i, label in enumerate(sorted({x for x in labels if x is not None}))}
    kept = np.array([label is not None for label in labels])
    codes = np.array([names[label] for label in labels if label is not None])
    asked = asked_with_objects(kinds, Labelled(row_ids[kept], codes, False), np.random.default_rng(0))
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    expected = -np.sort(-cosines[kept][:, kept], axis=1)[:, :10]
    heights = -np.sort(-cosines[kept], axis=1)[:, : cohort_size(100)]
    assert asked.questions == 96 and len(asked.cosines) == 960
    np.testing.assert_allclose(asked.cosines, expected.ravel(), atol=1e-5)
    np.testing.assert_allclose(asked.heights, np.repeat(heights.mean(axis=1), 10), atol=1e-5)
    best = np.argsort(-cosines[kept][:, kept], axis=1)[:, :10]
    np.testing.assert_array_equal(asked.same, (codes[best] == codes[:, None]).ravel())


def test_pictures_are_views_as_a_search_by_pictures_would_see_them(kinds: Collection) -> None:
    views, mask = kinds.views(kinds.row_id_of("000.ply"))
    flat = kinds.describer.pool_images(views[:, :2], np.array([[True, True]]))
    alone = kinds.describer.pool(views[None, :, :2], mask[None, :2], known_directions=False)[0]
    np.testing.assert_allclose(flat, alone, atol=1e-6)
    padded = kinds.describer.pool_images(
        np.pad(views[:, :2], ((0, 0), (0, 1), (0, 0))), np.array([[True, True, False]])
    )
    np.testing.assert_allclose(padded, flat, atol=1e-6)
    row_ids, _, labels = _vectors(kinds)
    kept = np.array([label is not None for label in labels])
    labelled = Labelled(row_ids[kept], np.arange(96) % N_KINDS, False)
    asked = asked_with_pictures(kinds, labelled, np.random.default_rng(0))
    again = asked_with_pictures(kinds, labelled, np.random.default_rng(0))
    np.testing.assert_array_equal(asked.cosines, again.cosines)
    assert asked.questions == 96 and 0 < asked.same.mean() < 1


# -- searching ---------------------------------------------------------------------------------------------------------


def _plainly(collection: Collection, curve: Curve, object_id: str) -> dict[str, float]:
    row_ids, vectors, _ = _vectors(collection)
    records = collection.store.records(row_ids.tolist())
    others = [i for i, n in enumerate(row_ids.tolist()) if records[n].id != object_id]
    cosines = vectors @ collection.store.vector_of(collection.row_id_of(object_id))
    height = np.sort(cosines[others])[::-1][: cohort_size(len(row_ids))].mean()
    return {records[int(row_ids[i])].id: float(curve(cosines[i], height)) for i in others}


@pytest.mark.parametrize("where", [None, "split = 'a'"])
@pytest.mark.parametrize(
    "rerank", [RerankOptions(), RerankOptions(expand=4), RerankOptions(rerank_views=30), RerankOptions(2, 3.0, 30)]
)
def test_hits_carry_the_curve_of_their_plain_cosine_however_they_are_found(
    own: Collection, where: str | None, rerank: RerankOptions
) -> None:
    curve = own.calibrate("label").curves["objects"]
    assert curve.share != 0
    expected = _plainly(own, curve, "005.ply")
    hits = own.search(Query(id="005.ply"), k=30, where=where, rerank=rerank)
    assert len(hits) == 30
    assert {hit.id: hit.confidence for hit in hits} == pytest.approx(
        {hit.id: expected[hit.id] for hit in hits}, abs=1e-4
    )
    assert hits[0].to_json()["confidence"] == pytest.approx(hits[0].confidence, abs=1e-4)


def test_without_calibration_hits_are_as_they_were(kinds: Collection, own: Collection) -> None:
    before = [hit.to_json() for hit in kinds.search(Query(id="005.ply"))]
    assert all("confidence" not in hit for hit in before)
    own.calibrate("label")
    after = [hit.to_json() for hit in own.search(Query(id="005.ply"))]
    assert all(hit.pop("confidence") > 0 for hit in after)
    assert after == before


def test_a_least_confidence_is_a_filter(own: Collection) -> None:
    own.calibrate("label")
    every = own.search(Query(id="005.ply"), k=40)
    sure = [hit.confidence for hit in every]
    assert None not in sure and sure == sorted(sure, reverse=True)
    for least in (0.0, 0.3, sure[5], 0.9, 1.0):
        kept = own.search(Query(id="005.ply"), k=40, min_confidence=least)
        assert [h.to_json() for h in kept] == [h.to_json() for h in every if h.confidence >= least]
    assert 0 < len(own.search(Query(id="005.ply"), k=40, min_confidence=0.5)) < 40


def test_pictures_have_a_curve_of_their_own_and_mixtures_have_none(own: Collection, tmp_path: Path) -> None:
    made = own.calibrate("label")
    assert set(made.curves) == {"objects", "pictures"} and "reads no words" in made.left_out["words"]
    Image.new("RGB", (64, 64), "navy").save(tmp_path / "picture.png")
    (hit, *_) = own.search(Query(images=[tmp_path / "picture.png"]))
    assert hit.confidence is not None
    vector = own.store.vector_of(own.row_id_of("003.ply"))
    assert own.search(Query(vector=vector))[0].confidence == pytest.approx(
        float(made.curves["objects"](1.0, np.sort(_vectors(own)[1] @ vector)[::-1][: cohort_size(100)].mean())),
        abs=1e-4,
    )
    mixture = Query(terms=[Term("id", "003.ply"), Term("id", "004.ply", -0.5)])
    assert {hit.confidence for hit in own.search(mixture)} == {None}
    with pytest.raises(QueryError, match="mixture"):
        own.search(mixture, min_confidence=0.5)
    put_calibration(
        own.store, Calibration(made.by, None, made.epoch, {"objects": made.curves["objects"]}, {"pictures": "why"})
    )
    with pytest.raises(QueryError, match=r"questions asked with pictures, only with objects \(why\)"):
        own.search(Query(images=[tmp_path / "picture.png"]), min_confidence=0.5)
    assert own.search(Query(images=[tmp_path / "picture.png"]))[0].confidence is None


# -- labels, or none ---------------------------------------------------------------------------------------------------


def test_without_labels_an_object_is_known_by_its_other_views(own: Collection) -> None:
    made = own.calibrate()
    curve = made.curves["objects"]
    assert made.by is None and made.left_out == {"words": "words are compared with labels: give --by"}
    assert curve.groups == 100 and curve.same <= 0.1 + 1e-9  # one of ten hits at most
    assert own.calibrate() == made
    by_label = own.calibrate("label").curves["objects"]
    # The same object is a stricter thing than the same kind.
    sure = [c(np.array([0.9]), 0.4)[0] for c in (curve, by_label)]
    assert by_label.same > 3 * curve.same and sure[0] <= sure[1] + 0.05


def test_the_same_seed_learns_the_same_and_where_chooses(own: Collection) -> None:
    first = own.calibrate("label", seed=1)
    assert own.calibrate("label", seed=1) == first
    half = own.calibrate("label", "split = 'a'")
    assert half.curves["objects"].questions == 48 and half.where == "split = 'a'"


@pytest.mark.parametrize(
    ("by", "where", "error", "said"),
    [
        ("lable", None, FilterError, "did you mean 'label'"),
        ("same", None, CalibrationError, "the same 'same'"),
        ("own", None, CalibrationError, "no two of 96"),
        ("label", "label = 'kind 1' and id < '020'", CalibrationError, "too few"),
        ("label", "label = 'nothing'", CalibrationError, "0 objects"),
        (None, "id = '000.ply'", CalibrationError, "1 object where"),
        ("label", "labell = 'x'", FilterError, "label"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_and_leaves_what_was_there(
    own: Collection, by: str | None, where: str | None, error: type[Exception], said: str
) -> None:
    made = own.calibrate("label")
    with pytest.raises(error, match=said):
        own.calibrate(by, where)
    assert calibration_of(own.store) == made


def test_without_scikit_learn_the_extra_is_named_and_searching_goes_on(
    own: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.calibrate("label")
    monkeypatch.setattr(fitting, "find_spec", lambda name: None)
    with pytest.raises(CalibrationError, match=r"pip install 'mvretrieval\[calibrate\]'"):
        own.calibrate("label")
    assert own.search(Query(id="005.ply"))[0].confidence is not None


# -- what outdates it --------------------------------------------------------------------------------------------------


def test_other_vectors_outdate_it_and_other_objects_do_not(own: Collection) -> None:
    made = own.calibrate("label")
    own.remove("007.ply")
    assert not is_outdated(own.store, made) and own.search(Query(id="005.ply"))[0].confidence is not None
    own.smooth(3)
    assert is_outdated(own.store, made) and own.search(Query(id="005.ply"))[0].confidence is None
    with pytest.raises(CalibrationError, match="smoothed"):
        own.calibrate()
    made = own.calibrate("label")
    assert own.search(Query(id="005.ply"))[0].confidence is not None
    own.fit_whitening(describer=own.describer.with_config(whiten=16))
    assert is_outdated(own.store, made)
    with pytest.raises(
        QueryError, match=r"described anew after it was calibrated: run 'mvr calibrate .* --by label' again"
    ):
        own.search(Query(id="005.ply"), min_confidence=0.5)


# -- the command line --------------------------------------------------------------------------------------------------


def test_the_command_line_from_calibrating_to_an_empty_answer(mvr: Mvr, kinds: Collection, tmp_path: Path) -> None:
    folder = shutil.copytree(kinds.folder, tmp_path / "c")
    code, _, err = mvr("search", folder, "--id", "005.ply", "--min-confidence", "0.5")
    assert code == 1 and f"mvr calibrate {folder} --by label" in err
    code, out, err = mvr("calibrate", folder, "--by", "label")
    assert code == 0 and "objects " in out and "pictures" in out and "same 'label'" in out and "reads no words" in err
    assert "same 'label', asked with objects" in as_json(mvr("info", folder, "--json"))["confidence"]
    found = [json.loads(line) for line in mvr("search", folder, "--id", "005.ply", "--json")[1].splitlines()]
    best = found[0]["confidence"]
    out = mvr("search", folder, "--id", "005.ply")[1]
    assert out.splitlines()[0].split()[:3] == ["rank", "score", "sure"] and f"{best:.0%}" in out
    page = tmp_path / "page.html"
    code, out, _ = mvr("search", folder, "--id", "005.ply", "--min-confidence", "1", "--html", page)
    said = f"nothing in the collection looks like it (the best is {best:.0%} sure)"
    assert (code, out) == (0, f"{said}\n") and f"N{said[1:]}." in page.read_text()
    out = mvr("search", folder, "--id", "005.ply", "--min-confidence", "1", "--where", "split = 'b'")[1]
    assert out.startswith("nothing in the collection where split = 'b' looks like it (the best is ")
    code, out, err = mvr("search", folder, "--id", "005.ply", "--min-confidence", "1", "--json")
    assert (code, out) == (0, "") and said in err
    mvr("search", folder, "--id", "005.ply", "--html", page)
    assert f"{best:.0%} sure" in page.read_text()
    assert mvr("search", folder, "--id", "005.ply", "--min-confidence", "1.5")[0] == 1
    code, _, err = mvr("reindex", folder, "--whiten", "16")
    assert code == 0 and f"mvr calibrate {folder} --by label" in err
    assert "outdated" in as_json(mvr("info", folder, "--json"))["confidence"]
    code, out, err = mvr("search", folder, "--id", "005.ply")
    assert code == 0 and "sure" not in out.splitlines()[0] and "described anew after it was calibrated" in err
    assert mvr("calibrate", folder, "--by", "label")[0] == 0  # takes the place of the old one
    assert mvr("calibrate", folder, "--remove", "--by", "label")[0] == 1
    assert "no confidence any more" in mvr("calibrate", folder, "--remove")[1]
    assert as_json(mvr("info", folder, "--json"))["confidence"] == "none"


def test_words_are_calibrated_where_the_encoder_reads_them(tmp_path: Path) -> None:
    config = DescriberConfig(tiny_clip(tmp_path), "ring:3@30", size=64)
    with _make(tmp_path / "c", config) as reading:
        made = reading.calibrate("label")
        assert set(made.curves) == {"objects", "pictures", "words"} and not made.left_out
        curve = made.curves["words"]
        assert (curve.questions, curve.pairs, curve.groups) == (N_KINDS, 10 * N_KINDS, N_KINDS)
        hits = reading.search(Query(text="kind 4"), k=10)
        heights = reading.search(Query(text="kind 4"), k=cohort_size(100))
        expected = curve(np.array([hit.score for hit in hits]), np.mean([hit.score for hit in heights]))
        np.testing.assert_allclose([hit.confidence for hit in hits], expected, atol=1e-4)
        few = reading.calibrate("label", "label in ('kind 1', 'kind 2', 'kind 3')")
        assert "3 names" in few.left_out["words"]
        with pytest.raises(QueryError, match="3 names"):
            reading.search(Query(text="kind 4"), min_confidence=0.1)
