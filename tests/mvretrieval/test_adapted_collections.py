"""Collections with an adapter: training, re-embedding, indexing, text queries, and what drops the adapter."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_meshes import SMALL, write_shapes
from numpy.typing import NDArray

from mvrender.shading import Style
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.cli.main import run_command
from mvretrieval.describe import Describer
from mvretrieval.errors import AdapterError
from mvretrieval.evaluation.evaluation_set import Selection, load_evaluation_set, with_adapter
from mvretrieval.ingest.reembed import STAGING
from mvretrieval.search.query import Query
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.config import AdapterConfig


def _other_adapter() -> Adapter:
    """An adapter for views of two styles."""
    styles: tuple[Style, ...] = ("texture", "clay")
    views = Describer.from_config(replace(SMALL, styles=styles)).view_fingerprint
    return Adapter.untrained(AdapterConfig(views, "builtin:", SMALL.rig, styles, SMALL.size, 4, 6), None)


def mvr(*arguments: object) -> int:
    try:
        return run_command(str(arguments[0]), [str(argument) for argument in arguments[1:]])
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.fixture(scope="module")
def trained(things: Collection, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A collection of twelve shapes of four classes, re-embedded with an adapter, and the adapter."""
    pytest.importorskip("pytorch_metric_learning")
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(things.folder, folder / "c")
    rng = np.random.default_rng(0)
    names = np.array(["box", "ball", "cone", "a ring", "cube", "chair"])
    np.savez(folder / "names.npz", names=names, vectors=rng.standard_normal((6, 5)))
    few = ["--whiten", 8, "--max-steps", 20, "--folds", 0, "--learning-rate", 0.01]
    assert mvr("train", folder / "c", "--out", folder / "a", "--text-embeddings", folder / "names.npz", *few) == 0
    assert mvr("reindex", folder / "c", "--adapter", folder / "a") == 0
    return folder / "c", folder / "a"


@pytest.fixture
def adapted(trained: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Adapter]:
    """A copy that a test may change, and the adapter."""
    shutil.copytree(trained[0], tmp_path / "c")
    return tmp_path / "c", Adapter.load(trained[1])


def _vectors(folder: Path) -> dict[str, NDArray[np.float32]]:
    with Collection.open(folder) as collection:
        records = collection.session.store.records([int(n) for n in collection.session.store.select(None)])
        return {record.id: collection.session.store.vector_of(row_id) for row_id, record in records.items()}


def _pooled(folder: Path, adapter: Adapter) -> dict[str, NDArray[np.float32]]:
    with Collection.open(folder) as collection:
        directions = collection.describer.rig.directions.astype(np.float32)
        records = collection.session.store.records([int(n) for n in collection.session.store.select(None)])
        views = {record.id: collection.session.views(row_id) for row_id, record in records.items()}
        return {name: adapter.pool(v[None], mask[None], directions)[0][0] for name, (v, mask) in views.items()}


def _same(a: dict[str, NDArray[np.float32]], b: dict[str, NDArray[np.float32]]) -> None:
    assert a.keys() == b.keys() and len(a)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-6, err_msg=name)


def test_an_adapter_is_evaluated_without_changing_the_collection(
    trained: tuple[Path, Path], things: Collection
) -> None:
    plain = load_evaluation_set(things.session, Selection())
    adapted = with_adapter(things.session, plain, Adapter.load(trained[1]))
    _same(dict(zip(adapted.ids, adapted.vectors, strict=True)), _vectors(trained[0]))
    assert (adapted.ids, adapted.labels) == (plain.ids, plain.labels)
    np.testing.assert_array_equal(load_evaluation_set(things.session, Selection()).vectors, plain.vectors)
    empty = load_evaluation_set(things.session, Selection(where="label = 'none'"))
    assert not len(with_adapter(things.session, empty, Adapter.load(trained[1])).ids)
    with pytest.raises(AdapterError):
        with_adapter(things.session, plain, _other_adapter())


def test_a_collection_is_searched_with_its_adapters_vectors(
    trained: tuple[Path, Path], things: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, adapter = trained[0], Adapter.load(trained[1])
    vectors = _vectors(folder)
    assert {len(vector) for vector in vectors.values()} == {8}
    _same(vectors, _pooled(folder, adapter))
    with Collection.open(folder) as collection:
        assert collection.describer.config.adapter == adapter.fingerprint
        assert collection.describer.adapter is not None
        assert collection.describer.adapter.fingerprint == adapter.fingerprint
        hits = collection.search(Query(id="shape-002.ply"), k=12)
        path = collection.get("shape-002.ply").path
        (found, *_) = collection.search(Query(mesh=path))
    assert found.id == "shape-002.ply" and found.score == pytest.approx(1, abs=1e-3)
    query = vectors["shape-002.ply"]
    for hit in hits:
        assert hit.score == pytest.approx(float(query @ vectors[hit.id]), abs=1e-5)
    assert mvr("info", folder, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["vectors"]["adapter"] == {
        "fingerprint": adapter.fingerprint,
        "kind": "adam",
        "classes": 4,
        "class_names": 6,
    }
    assert mvr("reindex", folder, "--adapter", trained[1]) == 1
    assert "already has this configuration" in capsys.readouterr().err


def test_text_queries_find_their_class_with_an_image_only_encoder(
    trained: tuple[Path, Path], things: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = {f"shape-{n:03d}.ply": ["box", "ball", "cone", "ring"][n % 4] for n in range(12)}
    for text in ("box", "a ball", "Cone", "ring"):
        assert mvr("search", trained[0], "--text", text, "--json", "-k", "1") == 0
        hit = json.loads(capsys.readouterr().out.splitlines()[0])
        assert kinds[hit["id"]] in text.lower()
    assert mvr("search", trained[0], "--text", "coone") == 1
    assert "did you mean 'cone'?" in capsys.readouterr().err
    assert mvr("search", things.folder, "--text", "cone") == 1
    assert "has no text tower" in capsys.readouterr().err


def test_objects_added_later_are_embedded_with_the_adapter(adapted: tuple[Path, Adapter], tmp_path: Path) -> None:
    folder, adapter = adapted
    first, second = write_shapes(tmp_path / "more", [12, 13])
    second.rename(tmp_path / "other.ply")
    assert mvr("index", folder, tmp_path / "more", "--workers", 1) == 0
    with Collection.open(folder, OpenOptions(workers=1), write=True) as collection:
        assert collection.add(tmp_path / "other.ply") == "other.ply"
        assert collection.search(Query(id="other.ply"), k=1)[0].score <= 1.0001
    vectors = _vectors(folder)
    assert len(vectors) == 14 and first.name in vectors
    _same(vectors, _pooled(folder, adapter))


def test_indexing_with_an_adapter_equals_reindexing_with_it(
    trained: tuple[Path, Path], shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = ["--encoder", "builtin:", "--rig", "ring:3@30", "--size", 64, "--workers", 1]
    new = tmp_path / "new"
    assert mvr("index", new, shapes, *same, "--adapter", trained[1], "--whiten", 4) == 1
    assert "--adapter replaces whitening" in capsys.readouterr().err
    assert mvr("index", new, shapes, *same[:-4], "--size", 80, "--adapter", trained[1]) == 1
    assert "--styles texture --size 64" in capsys.readouterr().err and not new.exists()
    assert mvr("index", new, shapes, *same, "--adapter", trained[1]) == 0
    _same(_vectors(new), _vectors(trained[0]))
    assert mvr("index", new, shapes, "--adapter", trained[1], "--workers", 1) == 0, "indexing again changes nothing"
    assert mvr("index", tmp_path / "plain", shapes, "--adapter", trained[1], "--workers", 1) == 0, (
        "views as the adapter was trained on"
    )
    _same(_vectors(tmp_path / "plain"), _vectors(trained[0]))
    other_rig = [*same[:2], "--rig", "ring:4@30", *same[4:], "--adapter", trained[1]]
    assert mvr("index", tmp_path / "other_rig", shapes, *other_rig) == 0
    assert "the adapter was trained with ring:3@30: other cameras are weighted" in capsys.readouterr().err
    _other_adapter().save(tmp_path / "other")
    assert mvr("index", new, shapes, "--adapter", tmp_path / "other") == 1
    assert "leave --adapter out" in capsys.readouterr().err


@pytest.mark.parametrize("how", [["--no-adapter"], ["--whiten", 4], ["--pooling", "max"]], ids=lambda how: how[0])
def test_other_pooling_or_whitening_drops_the_adapter(
    adapted: tuple[Path, Adapter], things: Collection, tmp_path: Path, how: list[object]
) -> None:
    folder, _ = adapted
    shutil.copytree(things.folder, tmp_path / "plain")
    assert mvr("reindex", folder, *how) == 0
    if how != ["--no-adapter"]:
        assert mvr("reindex", tmp_path / "plain", *how) == 0
    _same(_vectors(folder), _vectors(tmp_path / "plain"))
    with Collection.open(folder) as collection:
        assert collection.describer.adapter is None and collection.session.store.get_meta("adapter") is None
        assert collection.describer.config.adapter == ""


def test_views_that_the_adapter_does_not_fit_are_refused_before_any_change(
    adapted: tuple[Path, Adapter], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, adapter = adapted
    before = _vectors(folder)
    with Collection.open(folder) as collection:
        runs = collection.session.store.db.all("SELECT count(*) FROM runs")
    (folder / STAGING).mkdir()
    (folder / STAGING / "earlier attempt").write_text("")
    replace_it = ["--adapter", tmp_path / "other"]
    _other_adapter().save(tmp_path / "other")
    for how in (["--styles", "depth"], ["--size", 70], replace_it, ["--styles", "texture,depth", "--rig", "cube"]):
        assert mvr("reindex", folder, *how) == 1
        err = capsys.readouterr().err
        assert "the adapter was trained on other views" in err and "Traceback" not in err
        assert ("styles: texture (adapter), depth (here)" in err) == (how[1] == "depth") and (
            how[0] != "--size" or "encoder:" not in err
        )
        assert ("--no-adapter" in err) == (how is not replace_it)
    assert mvr("reindex", folder, "--adapter", tmp_path / "other", "--whiten", 3) == 1
    assert "--adapter replaces whitening and pooling" in capsys.readouterr().err
    assert mvr("reindex", folder, "--adapter", tmp_path / "nowhere") == 1
    assert "no adapter at" in capsys.readouterr().err
    assert (folder / STAGING / "earlier attempt").exists()
    with Collection.open(folder) as collection:
        assert collection.session.store.db.all("SELECT count(*) FROM runs") == runs
        assert collection.describer.config.adapter == adapter.fingerprint
    _same(_vectors(folder), before)
