"""Reports: their numbers are the evaluation's, and the page is valid for any ids and labels."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from error_codes import raises_code
from made_meshes import SMALL, new_object, unit
from numpy.typing import NDArray
from PIL import Image

from mvrender.cameras import parse_rig
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.errors import ShapeError
from mvretrieval.evaluation.metrics import Evaluation, evaluate, leave_one_out
from mvretrieval.evaluation.os3dor import os3dor_measure
from mvretrieval.evaluation.protocols import Task, draw_queries, leave_one_out_task, open_set_task
from mvretrieval.evaluation.ranking import cosines
from mvretrieval.evaluation.report import map2d, write
from mvretrieval.evaluation.report.data import EvaluatedObjects, ReportError
from mvretrieval.evaluation.report.thumbnails import Thumbnails
from mvretrieval.evaluation.report.write import write_report
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.config import AdapterConfig
from mvretrieval.weighting.network import NetworkConfig
from mvretrieval.weighting.spherical_harmonics import harmonics

HOSTILE = "<img src=x onerror=alert(1)>&\"'</script><!--{{ 7*7 }}"
_VOID = {"meta", "img", "input", "wbr", "br", "link"}


class _Page(HTMLParser):
    """Parses a page, checks that every element is closed, and collects elements and texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"
        ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join("".join(data for tag, data in self.texts if tag not in ("script", "style")).split())

    @property
    def map_data(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(
            "".join(data for tag, data in self.texts if tag == "script" and data.startswith('{"'))
        )
        return data


def _check_valid(page: _Page) -> None:
    """Check that the page fetches nothing, runs only its own script, and has an alt text for every image."""
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            address = attributes.get(name)
            assert address is None or address.startswith(("data:image/webp;base64,", "#")) or address == "report.json"
        if tag == "img":
            assert attributes["alt"]
    styles = "".join(data for tag, data in page.texts if tag == "style")
    assert styles.count("url(") == styles.count('url("data:') and "@import" not in styles
    assert len(page.named("script")) - sum(a.get("type") == "application/json" for a in page.named("script")) == 1
    assert len(page.named("h1")) == 1 and page.named("html")[0]["lang"] == "en"


@contextmanager
def _made(
    folder: Path,
    vectors: NDArray[np.float32],
    labels: Sequence[Any],
    ids: Sequence[str] | None = None,
    strips: bool = False,
) -> Iterator[Collection]:
    """A collection of objects with these vectors. No index is saved: they have fewer dimensions than the encoder's."""
    collection = Collection.create(folder, SMALL, OpenOptions(workers=1))
    with collection.session.store.transaction():
        for i, (vector, label) in enumerate(zip(vectors, labels, strict=True)):
            new = new_object(ids[i] if ids else f"object {i}", vector)
            row_id = collection.session.store.put(replace(new, strip=_strip(i) if strips else b""), 1)
            if label is not None:
                collection.session.store.set_metadata(row_id, {"label": label})
    yield collection
    collection.session.release()


def _strip(i: int) -> bytes:
    """Three views, each of one colour that identifies object and view."""
    views = [np.full((112, 112, 3), (40 * v + 20, 10 * i, 90), np.uint8) for v in range(3)]
    for view in views:
        view[:20] = 255
    out = io.BytesIO()
    Image.fromarray(np.concatenate(views, axis=1)).save(out, "WEBP", quality=95)
    return out.getvalue()


def _report(
    collection: Collection, labels: Sequence[Any], vectors: NDArray[np.float32], folder: Path, **more: Any
) -> tuple[_Page, Any]:
    row_ids = collection.session.store.select(None)
    evaluation = more.pop("evaluation", None) or leave_one_out(vectors, labels)
    objects = EvaluatedObjects(row_ids, labels, vectors, more.pop("by", "label"), more.pop("scope", ""))
    path = write_report(collection.session, objects, evaluation, folder, **more)
    assert path == folder / "index.html"
    page = _Page(path.read_text("utf-8"))
    _check_valid(page)
    return page, json.loads((folder / "report.json").read_text("utf-8"))


def _clusters(n: int, classes: int, seed: int = 0, noise: float = 0.25) -> tuple[NDArray[np.float32], list[str]]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(classes, size=n)
    centres = rng.standard_normal((classes, 12))
    return unit(centres[codes] + noise * rng.standard_normal((n, 12))), [f"group{c % 3}/class {c}" for c in codes]


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_numbers_are_the_evaluations(tmp_path: Path) -> None:
    vectors, labels = _clusters(40, 6, noise=0.8)
    evaluation = leave_one_out(vectors, labels)
    with _made(tmp_path / "c", vectors, labels) as collection:
        page, found = _report(collection, labels, vectors, tmp_path / "out", evaluation=evaluation, run={"seed": 7})
    assert found["means"] == pytest.approx(evaluation.means()) and found["run"] == {"seed": 7}
    assert found["queries"] == len(evaluation.queries) and found["skipped"] == evaluation.skipped
    for name, values in evaluation.values.items():
        assert found["per_query"][name] == values.tolist()
        assert found["standard_errors"][name] == pytest.approx(np.std(values, ddof=1) / math.sqrt(len(values)))
        assert f"{name} {100 * values.mean():.1f}" in page.text
    assert found["per_query"]["id"] == [f"object {q}" for q in evaluation.queries]
    of = np.array(found["per_query"]["class"])
    for row in found["per_class"]:
        assert row["n"] == (of == row["class"]).sum()
        assert row["mAP"] == pytest.approx(evaluation.values["mAP"][of == row["class"]].mean())
    assert [row["mAP"] for row in found["per_class"]] == sorted(row["mAP"] for row in found["per_class"])
    wrong = [c["count"] for c in found["confusions"]]
    assert sum(wrong) == (evaluation.values["NN"] == 0).sum() > 0 and wrong == sorted(wrong, reverse=True)
    levels = np.array(found["curve"]["precision"])
    assert (np.diff(levels) <= 1e-12).all() and 0 < found["curve"]["chance"] < levels[-1] + 1e-9


def test_shown_hits_are_the_ranking(tmp_path: Path) -> None:
    vectors, labels = _clusters(30, 4, noise=0.9)
    with _made(tmp_path / "c", vectors, labels) as collection:
        page, _ = _report(collection, labels, vectors, tmp_path / "out")
    marks = [
        attributes["class"]
        for attributes in page.named("li")
        if attributes.get("class") in ("relevant", "not-relevant")
    ]
    hits = [attributes["title"] for attributes in page.named("figure") if "title" in attributes]
    queries = [
        title for attributes in page.named("span") if (title := attributes.get("title") or "").startswith("object ")
    ]
    assert len(hits) == len(marks) == 8 * len(queries) == 80
    scores = vectors.astype(float) @ vectors.T.astype(float)
    for i, name in enumerate(queries):
        query = int(name.split()[1])
        expected = [j for j in np.argsort(-scores[query], kind="stable") if j != query][:8]
        assert hits[8 * i : 8 * i + 8] == [f"object {j}" for j in expected]
        assert marks[8 * i : 8 * i + 8] == [
            "relevant" if labels[j] == labels[query] else "not-relevant" for j in expected
        ]


def test_an_open_set_task_has_hits_from_its_gallery_only(tmp_path: Path) -> None:
    vectors, labels = _clusters(40, 4, noise=0.9)
    ids = [f"object {i}" for i in range(40)]
    task = open_set_task(labels, ids, draw_queries(labels, ids, per_class=2))
    evaluation = evaluate(task, cosines(vectors), os3dor_measure(task.n_relevant), ids)
    with _made(tmp_path / "c", vectors, labels) as collection:
        page, found = _report(
            collection, labels, vectors, tmp_path / "out", evaluation=evaluation, task=task, scope="open <set>"
        )
    assert found["queries"] == 8 and found["means"] == pytest.approx(evaluation.means())
    assert {row["n"] for row in found["per_class"]} == {2}
    queries = {ids[q] for q in task.queries}
    assert queries.isdisjoint(attributes["title"] for attributes in page.named("figure") if "title" in attributes)
    assert (
        "The gallery of a query is the 32 objects that are not queries" in page.text
        and "open <set>" in page.text
        and "ANMRR" in page.text
    )


# -- any ids and labels --------------------------------------------------------------------------------------------------


def test_names_are_escaped(tmp_path: Path) -> None:
    vectors, _ = _clusters(12, 3)
    ids = [f"{i}{HOSTILE}" if i % 2 else f"{i}" + "x" * 200 for i in range(12)]
    labels = [[HOSTILE, "l" * 200, "ü\u2028\x01"][i % 3] for i in range(12)]
    with _made(tmp_path / HOSTILE[:12], vectors, labels, ids) as collection:
        page, found = _report(collection, labels, vectors, tmp_path / "out", by=HOSTILE, scope=HOSTILE)
    assert page.map_data["ids"] == ids and sorted(page.map_data["names"]) == sorted(set(labels))
    assert HOSTILE in page.text and "{{ 7*7 }}" in page.text
    assert not [a for a in page.named("img") if a.get("src") == "x"]
    assert sorted(row["class"] for row in found["per_class"]) == sorted(set(labels))


@pytest.mark.parametrize(
    "labels",
    [
        [],
        [None],
        [None] * 9,
        ["a"] * 3,
        ["a"] * 12,
        ["a", "b", "c"],
        ["a", "a", None],
        [1, 1, 2.5, 2.5, "1", None],
        [f"class {i // 2}" for i in range(240)],
    ],
    ids=lambda labels: f"{len(labels)} of {len(set(labels))}",
)
def test_any_collection_has_a_report(tmp_path: Path, labels: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map2d, "_PCA_DIMENSIONS", 4)
    vectors = (
        unit(np.random.default_rng(1).standard_normal((len(labels), 6))) if labels else np.empty((0, 1), np.float32)
    )
    with _made(tmp_path / "c", vectors, labels) as collection:
        page, found = _report(collection, labels, vectors, tmp_path / "out")
    assert found["objects"] == len(labels) and found["labeled"] == sum(label is not None for label in labels)
    if found["queries"]:
        assert len(page.named("tr")) - 2 >= len(found["per_class"])
    else:
        assert "No queries" in page.text and found["curve"] is None and found["means"]["mAP"] is None
    if labels:
        assert len(page.named("use")) == len(labels) and page.map_data["ids"] == [
            f"object {i}" for i in range(len(labels))
        ]
        assert not page.named("img") and not page.named("image")


def test_images_belong_to_the_objects(tmp_path: Path) -> None:
    vectors, labels = _clusters(12, 3)
    with _made(tmp_path / "c", vectors, labels, strips=True) as collection:
        page, _ = _report(collection, labels, vectors, tmp_path / "out")
        row_ids = collection.session.store.select(None)
        thumbnails = Thumbnails(collection.session)
        assert [image.size for image in thumbnails.views(int(row_ids[3]))] == [(112, 112)] * 3
        sheet, columns = thumbnails.atlas([int(n) for n in row_ids], 40)
    assert page.map_data["columns"] == columns == 4
    assert sheet is not None
    with Image.open(io.BytesIO(base64.b64decode(sheet.split(",")[1]))) as opened:
        tiles = np.asarray(opened.convert("RGB")).astype(int)
    for i in range(12):
        # Azimuth 30 degrees is nearest to view 0 of three.
        pixel = tiles[i // 4 * 40 + 30, i % 4 * 40 + 20]
        assert np.abs(pixel - (20, 10 * i, 90)).max() < 16


def test_an_empty_view_is_not_used(collection: Collection) -> None:
    empty = np.full((112, 336, 3), 255, np.uint8)
    empty[40:70, 230:300] = 0  # on the third view only
    out = io.BytesIO()
    Image.fromarray(empty).save(out, "WEBP", lossless=True)
    row_id = collection.session.store.put(replace(new_object("edge"), strip=out.getvalue()), 1)
    shown = Thumbnails(collection.session).image(row_id)
    assert shown is not None and np.asarray(shown).min() < 50


def test_a_real_collection_has_images_and_uniform_weights(things: Collection, tmp_path: Path) -> None:
    row_ids = things.session.store.select(None)
    labels = things.session.store.column_values("label", [int(n) for n in row_ids])
    vectors = np.stack([things.session.store.vector_of(int(n)) for n in row_ids])
    page, found = _report(things, labels, vectors, tmp_path / "out")
    assert len(page.named("image")) == 3 and "All views have the same weight, 1/3" in page.text
    assert found["view_weights"]["uniform"] and found["view_weights"]["azimuth_deg"] == [0, 120, 240]
    assert found["describer"]["rig"] == "ring:3@30" and found["describer"]["encoder"] == "builtin:"
    assert all(a["src"] for a in page.named("img")) and len(page.named("img")) > 40


def test_learned_weights_and_seen_classes_are_shown(tmp_path: Path) -> None:
    rig = parse_rig("ring:3@30")
    scores = np.array([0.7, -0.2, 0.1])
    collection = Collection.create(tmp_path / "c", replace(SMALL, styles=("texture", "clay")), OpenOptions(workers=1))
    config = AdapterConfig(
        views=collection.describer.view_fingerprint,
        encoder="builtin:",
        rig=rig.name,
        styles=("texture", "clay"),
        size=64,
        n_views=3,
        dim=8,
        network=NetworkConfig(instance_scores=False),
        classes=("box", "elsewhere"),
    )
    adapter = Adapter.untrained(config, None)
    with torch.no_grad():  # only the second style has other weights
        known = harmonics(torch.from_numpy(rig.directions.astype(np.float32)))
        dataset_scores: Any = adapter.network.styles[1].dataset
        dataset_scores.copy_(torch.linalg.pinv(known) @ torch.from_numpy(scores.astype(np.float32)))
    labels = ["box", "ball"] * 4
    vectors = unit(np.random.default_rng(0).standard_normal((8, 16)))
    with collection.session.store.transaction():
        collection.session.write_describer(collection.describer.with_adapter(adapter))
        collection.session.store.set_meta("generation", 2)
        views = np.random.default_rng(1).standard_normal((8, 2, 3, 8)).astype(np.float16)
        for i, own in enumerate(views):
            new = replace(new_object(f"{i}", vectors[i]), view_vectors=own, view_mask=np.ones(3, bool))
            collection.session.store.put(new, 1)
    page, found = _report(collection, labels, vectors, tmp_path / "out")
    collection.session.release()
    shares = 3 * np.exp(scores) / np.exp(scores).sum()
    weights = found["view_weights"]
    assert not weights["uniform"] and list(weights["styles"]) == ["texture", "clay"]
    np.testing.assert_allclose(weights["styles"]["texture"]["mean"], 1, atol=1e-5)
    for name in ("mean", "percentile_10", "percentile_90"):
        np.testing.assert_allclose(weights["styles"]["clay"][name], shares, atol=1e-4)
    assert {row["class"]: row["seen"] for row in found["per_class"]} == {"box": True, "ball": False}
    assert (
        f"Mean weights of {shares.min():.2f} to {shares.max():.2f} times the uniform weight" in page.text
        and "learned weights" in page.text
    )
    assert len([a for a in page.named("svg") if a.get("class") == "chart round"]) == 2


# -- failures --------------------------------------------------------------------------------------------------------


def test_failures(things: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = things.session
    no_queries = leave_one_out(np.empty((0, 1), np.float32), [])
    no_objects = EvaluatedObjects(np.empty(0, np.int64), [], np.empty((0, 1), np.float32))
    (tmp_path / "file").write_text("")
    with raises_code(ReportError, "not_writable"):
        write_report(session, no_objects, no_queries, tmp_path / "file" / "out")
    with raises_code(ShapeError, "bad_shape", "1 objects have 2 labels"):
        EvaluatedObjects(np.array([1]), ["a", "b"], np.ones((1, 2), np.float32))
    with raises_code(ReportError, "objects_removed", "1 of 1"):
        removed = EvaluatedObjects(np.array([999]), ["a"], np.ones((1, 2), np.float32))
        write_report(session, removed, no_queries, tmp_path)
    monkeypatch.setattr(write, "find_spec", lambda name: None)
    with raises_code(ReportError, "missing_extra", "pip install 'mvretrieval[report]'"):
        write_report(session, no_objects, no_queries, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_queries_in_another_order_keep_their_values(tmp_path: Path) -> None:
    vectors, labels = _clusters(20, 3, noise=0.9)
    task = leave_one_out_task(labels)
    order = np.random.default_rng(0).permutation(len(task.queries))
    shuffled = evaluate(Task(task.queries[order], task.gallery, task.class_ids), cosines(vectors))
    with _made(tmp_path / "c", vectors, labels) as collection:
        _, expected = _report(collection, labels, vectors, tmp_path / "a")
        evaluation = Evaluation(shuffled.queries, shuffled.values, 0)
        _, found = _report(collection, labels, vectors, tmp_path / "b", evaluation=evaluation, task=task)
    for part in ("per_class", "confusions", "curve"):
        assert _rounded(found[part]) == _rounded(expected[part])


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 9)
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return {k: _rounded(v) for k, v in value.items()} if isinstance(value, dict) else value
