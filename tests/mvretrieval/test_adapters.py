"""Adapters: the file, what it fits, the model hub, and collections that are described with one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_meshes import SMALL, unit, write_shapes
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from mvretrieval.api import Collection, OpenOptions
from mvretrieval.cli.main import _run
from mvretrieval.describe import Describer
from mvretrieval.errors import AdapterError, ShapeError
from mvretrieval.ingest.reembed import STAGING
from mvretrieval.search.query import Query
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.config import AdapterConfig
from mvretrieval.weighting.hub import CONFIG, MODEL, push
from mvretrieval.weighting.network import NetworkConfig
from mvretrieval.weighting.text_embeddings import TextEmbeddings
from mvretrieval.weighting.whitening import Whitening, WhiteningFit, whiten_and_normalize

S, V, D, K = 2, 4, 10, 6
STYLES = ("texture", "clay")


def _views(n: int = 5, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    mask = rng.random((n, V)) < 0.7
    mask[:, 1] = True
    return unit(rng.standard_normal((n, S, V, D))), mask, unit(rng.standard_normal((V, 3)))


def _statistics(seed: int = 0) -> Whitening:
    fit = WhiteningFit(S, D)
    fit.add(unit(np.random.default_rng(seed).standard_normal((S, 50, D)) + 1))
    return fit.result(K)


def _adapter(
    network: NetworkConfig | None = None, whitening: bool = True, trained: bool = True, **changes: Any
) -> Adapter:
    views = Describer(replace(SMALL, styles=STYLES)).view_fingerprint
    dim = K if whitening else D
    config = AdapterConfig(views, "builtin:", SMALL.rig, STYLES, SMALL.size, V, dim, network or NetworkConfig())
    adapter = Adapter.untrained(replace(config, **changes), _statistics() if whitening else None)
    if trained:
        torch.manual_seed(0)
        for parameter in adapter.network.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return adapter


def _named() -> Adapter:
    adapter = _adapter(text="named")
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in ((3, 7), (7, S * K), (S * K,), (7,))]
    adapter.text_embeddings = TextEmbeddings(("a chair", "sofa", "lamp"), *arrays)
    return adapter


NETWORKS = [
    NetworkConfig(),
    NetworkConfig(instance_scores=False),
    NetworkConfig(dataset_scores="slots"),
    NetworkConfig(dataset_scores="none"),
    NetworkConfig(linear=False),
    NetworkConfig(residual=0.5),
    NetworkConfig(average_softmaxes=True),
    NetworkConfig("mean"),
    NetworkConfig("max"),
    NetworkConfig("clip-adapter"),
    NetworkConfig("chunk"),
]


# -- the file ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{n.kind}-{n.dataset_scores}-{n.residual}-{n.linear}")
@pytest.mark.parametrize("statistics", [True, False])
def test_saved_and_loaded_it_makes_the_same_vectors(network: NetworkConfig, whitening: bool, tmp_path: Path) -> None:
    adapter = _adapter(network, whitening, classes=("b", "a"), metrics={"mAP": 0.5}, training={"seed": 1})
    adapter.save(tmp_path / "deep" / "adapter")
    for again in (Adapter.load(tmp_path / "deep" / "adapter"), Adapter.from_bytes(adapter.to_bytes())):
        for made, wanted in zip(again.pool(*_views()), adapter.pool(*_views()), strict=True):
            np.testing.assert_array_equal(made, wanted)
        assert again.config == adapter.config and again.fingerprint == adapter.fingerprint
        assert again.to_bytes() == adapter.to_bytes()


def test_words_travel_with_it(tmp_path: Path) -> None:
    adapter = _named()
    adapter.save(tmp_path)
    again = Adapter.load(tmp_path)
    assert again.text_embeddings is not None and adapter.text_embeddings is not None
    assert again.text_embeddings.names == adapter.text_embeddings.names and again.fingerprint == adapter.fingerprint
    for name in ("chair", "the sofa"):  # the names' vectors are kept in half precision
        found, wanted = again.text_embeddings.object_direction(name), adapter.text_embeddings.object_direction(name)
        np.testing.assert_allclose(found, wanted, atol=2e-3)
    assert again.to_bytes() == adapter.to_bytes()
    assert json.loads((tmp_path / CONFIG).read_text())["text_names"] == ["a chair", "sofa", "lamp"]


def test_the_fingerprint_changes_with_all_that_changes_a_vector_and_with_nothing_else() -> None:
    prints = [_adapter(network).fingerprint for network in NETWORKS]
    prints += [_adapter(whitening=False).fingerprint, _named().fingerprint]
    for name in _adapter().network.state_dict():
        moved = _adapter()
        with torch.no_grad():
            moved.network.state_dict()[name].view(-1)[0] += 1e-3
        prints.append(moved.fingerprint)
    base = _adapter()
    assert base.whitening is not None and base.whitening.transform is not None
    for whitening in (
        replace(base.whitening, mean=base.whitening.mean + np.float32(1e-3)),
        replace(base.whitening, transform=base.whitening.transform * np.float32(1.001)),
    ):
        prints.append(Adapter(base.config, whitening, base.network).fingerprint)
    assert len(set(prints)) == len(prints) and base.fingerprint == prints[0]
    told = {"metrics": {"mAP": 1.0}, "classes": ("x",), "training": {"seed": 9}}
    assert _adapter(**told).fingerprint == base.fingerprint


def _rewritten(adapter: Adapter, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]) -> bytes:
    """The file with its configuration or its tensors changed behind the program's back."""
    values, tensors = json.loads(json.dumps(adapter._plain())), load_tensors(adapter.to_bytes())
    values = change(values, tensors) or values
    return save_tensors(tensors, metadata={"config": values if isinstance(values, str) else json.dumps(values)})


DAMAGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "damaged"),
    "noise": (lambda: b"noise" * 1000, "damaged"),
    "half": (lambda: (data := _adapter().to_bytes())[: len(data) // 2], "damaged"),
    "header": (lambda: _adapter().to_bytes()[:100], "damaged"),
    "other weights": (lambda: save_tensors({"x": torch.zeros(3)}), "no adapter of this program"),
    "other metadata": (lambda: save_tensors({"x": torch.zeros(3)}, {"format": "pt"}), "no adapter of this program"),
    "no JSON": (lambda: _rewritten(_adapter(), lambda v, t: "{"), "damaged"),
    "a list": (lambda: _rewritten(_adapter(), lambda v, t: "[1]"), "format None"),
    "newer": (
        lambda: _rewritten(_adapter(), lambda v, t: v.update(format=99)),
        "has format 99 and this program reads 1",
    ),
    "no encoder": (lambda: _rewritten(_adapter(), lambda v, t: v.pop("encoder") and None), "not complete: .*encoder"),
    "no network": (lambda: _rewritten(_adapter(), lambda v, t: v.pop("network") and None), "not complete"),
    "odd network": (lambda: _rewritten(_adapter(), lambda v, t: v["network"].update(kind="adm")), "mean 'adam'"),
    "odd part": (lambda: _rewritten(_adapter(), lambda v, t: v["network"].update(depth=2)), "not complete: .*depth"),
    "other size": (lambda: _rewritten(_adapter(), lambda v, t: v.update(dim=5)), "do not belong together"),
    "other styles": (lambda: _rewritten(_adapter(), lambda v, t: v.update(styles=["clay"])), "do not belong together"),
    "other parts": (lambda: _rewritten(_adapter(), lambda v, t: v["network"].update(linear=False)), "adapter.weight"),
    "no size": (lambda: _rewritten(_adapter(), lambda v, t: v.update(dim="many")), "do not belong together"),
    "statistics of other vectors": (
        lambda: _rewritten(_adapter(), lambda v, t: t.update({"statistics.transform": torch.zeros(S, D, 3)})),
        "do not belong together",
    ),
    "statistics cut": (
        lambda: _rewritten(_adapter(), lambda v, t: t.update({"statistics.mean": torch.zeros(S, 3)})),
        "do not belong together",
    ),
    "uncounted": (lambda: _rewritten(_adapter(), lambda v, t: v.pop("statistics_views") and None), "statistics_views"),
    "no slots": (
        lambda: _rewritten(_adapter(NetworkConfig(dataset_scores="slots")), lambda v, t: v.update(n_views=0)),
        "do not belong together",
    ),
    "no words": (lambda: _rewritten(_adapter(), lambda v, t: v.update(text="named")), "text_names"),
    "fewer words": (lambda: _rewritten(_named(), lambda v, t: v.update(text_names=["x"])), "do not belong together"),
    "other origin": (
        lambda: _rewritten(_named(), lambda v, t: t.update({"text.origin": torch.zeros(6)})),
        "do not belong together",
    ),
    "other map": (
        lambda: _rewritten(_named(), lambda v, t: t.update({"text.projection": torch.zeros(7, 3)})),
        "do not belong together",
    ),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_adapter_is_refused_with_its_path(how: str, tmp_path: Path) -> None:
    make, said = DAMAGED[how]
    (tmp_path / MODEL).write_bytes(make())
    with pytest.raises(AdapterError, match=said) as caught:
        Adapter.load(tmp_path)
    assert str(tmp_path / MODEL) in str(caught.value)


def test_a_missing_adapter_or_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / CONFIG).write_text("{}")
    (tmp_path / "file").write_text("")
    for source in ("nowhere", "half", "file"):
        with pytest.raises(AdapterError, match=r"no adapter at .*'mvr train'"):
            Adapter.load(tmp_path / source)
    with pytest.raises(AdapterError, match="cannot be written to"):
        _adapter().save(tmp_path / "file" / "adapter")


# -- what it does ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistics", [True, False])
def test_untrained_it_is_the_mean_of_whitened_views(whitening: bool) -> None:
    adapter = _adapter(whitening=whitening, trained=False)
    views, mask, directions = _views()
    vectors, weights = adapter.pool(views, mask, directions)
    for b in range(len(views)):
        parts = []
        for s in range(S):
            seen = views[b, s, mask[b]]
            parts.append(unit(unit(adapter.whitening.apply(seen, s) if adapter.whitening else seen).mean(axis=0)))
        np.testing.assert_allclose(vectors[b], np.concatenate(parts) / np.sqrt(S), atol=1e-6)
        np.testing.assert_allclose(weights[b], np.stack([mask[b] / mask[b].sum()] * S), atol=1e-6)
    describer = Describer(replace(SMALL, styles=STYLES))
    if not whitening:
        np.testing.assert_allclose(vectors, describer.pool(views, mask)[0], atol=1e-6)
    matched = describer.with_fitted(adapter.whitening).matched_views(views)
    np.testing.assert_allclose(adapter.adapt_views(views), matched, atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{n.kind}-{n.dataset_scores}")
def test_views_alone_are_objects_of_one_picture_and_masked_views_are_nothing(network: NetworkConfig) -> None:
    adapter = _adapter(network)
    views, mask, directions = _views()
    adapted = adapter.adapt_views(views)
    for s, v in np.ndindex(S, V):
        alone, _ = adapter.pool(views[:, :, v : v + 1], np.ones((len(views), 1), bool), None)
        np.testing.assert_allclose(adapted[:, s, v], unit(alone.reshape(-1, S, K)[:, s]), atol=1e-5)
    spoilt = np.where(mask[:, None, :, None], views, np.nan).astype(np.float32)
    for found, wanted in zip(
        adapter.pool(spoilt, mask, directions), adapter.pool(views, mask, directions), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)
    with pytest.raises(ShapeError, match="no view"):
        adapter.pool(views, np.zeros_like(mask), directions)


def test_it_fits_the_views_that_it_was_made_for_and_other_cameras_unless_it_counts_slots() -> None:
    config = replace(SMALL, styles=STYLES)
    free, slots = _adapter(), _adapter(NetworkConfig(dataset_scores="slots"))
    for adapter in (free, slots):
        assert adapter.config.check_fits(Describer(config).view_fingerprint) == []
        for other in (
            replace(config, styles=("clay", "texture")),
            replace(config, styles=("texture",)),
            replace(config, size=65),
        ):
            with pytest.raises(AdapterError, match=r"--styles texture,clay --size 64") as caught:
                Describer(other).with_adapter(adapter)
            said = [f"styles: texture,clay there, {','.join(other.styles)} here", f"size: 64 there, {other.size} here"]
            assert [line in str(caught.value) for line in said] == [other.styles != STYLES, other.size != 64]
        foreign = Describer(config)
        foreign.encoder.fingerprint = "other weights"  # type: ignore[misc]
        with pytest.raises(AdapterError, match="other weights"):
            foreign.with_adapter(adapter)
        with pytest.raises(
            AdapterError, match="trained on other views"
        ):  # of an early version, which said nothing else
            adapter.config.check_fits("views=0")
    turned = Describer(replace(config, rig="ring:5@10"))
    (notice,) = free.config.check_fits(turned.view_fingerprint)
    assert "ring:3@30" in notice and "by their direction" in notice
    with pytest.raises(AdapterError, match=r"tied to its cameras \(ring:3@30\)"):
        turned.with_adapter(slots)


def test_a_describer_takes_its_adapter_in_the_place_of_whitening_and_pooling() -> None:
    describer = Describer(replace(SMALL, styles=STYLES, pooling="max", whiten=4))
    adapter = _adapter()
    adapted = describer.with_adapter(adapter)
    assert (adapted.config.pooling, adapted.config.whiten, adapted.config.adapter) == ("mean", 0, adapter.fingerprint)
    assert adapted.adapter is adapter and adapted.whitening is adapter.whitening
    assert adapted.encoder is describer.encoder and adapted.fingerprint != describer.fingerprint
    assert adapted.fingerprint != describer.with_adapter(_adapter(NetworkConfig(residual=0.5))).fingerprint
    views, mask, _ = _views()
    views, mask = views[:, :, :3], mask[:, :3]
    np.testing.assert_array_equal(
        adapted.pool(views, mask)[0], adapter.pool(views, mask, describer.rig.directions.astype(np.float32))[0]
    )
    np.testing.assert_array_equal(
        adapted.pool(views, mask, known_directions=False)[0], adapter.pool(views, mask, None)[0]
    )


# -- the model hub -----------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The cache of a machine without a connection, and without a token."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path / "hub"


def test_an_adapter_of_the_model_hub_is_read_from_the_cache(hub: Path) -> None:
    first, second = _adapter(), _adapter(NetworkConfig("mean"))
    cached = hub / "models--owner--name"
    for revision, commit, adapter in (("main", "1" * 40, first), ("v2", "2" * 40, second)):
        adapter.save(cached / "snapshots" / commit)
        (cached / "refs").mkdir(exist_ok=True)
        (cached / "refs" / revision).write_text(commit)
    assert Adapter.load("hf-hub:owner/name").fingerprint == first.fingerprint
    assert Adapter.load("hf-hub:owner/name@v2").fingerprint == second.fingerprint
    assert Adapter.load(f"hf-hub:owner/name@{'2' * 40}").fingerprint == second.fingerprint
    for source in ("hf-hub:owner/other", "hf-hub:owner/name@v3", "hf-hub:not a name", "hf-hub:", "hf-hub:a/b/c"):
        with pytest.raises(
            AdapterError, match=f"the adapter {source} cannot be had .* check its name and the connection"
        ):
            Adapter.load(source)
    (cached / "snapshots" / ("1" * 40) / MODEL).unlink()
    with pytest.raises(AdapterError, match=r"no adapter at|cannot be had"):
        Adapter.load("hf-hub:owner/name")


@pytest.mark.parametrize("repository", ["owner/name", "not a name"])
@pytest.mark.parametrize("offline", [True, False])
def test_an_upload_that_fails_says_how_to_log_in(
    hub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, repository: str, offline: bool
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    adapter = _adapter()
    adapter.save(tmp_path / "adapter")
    with pytest.raises(AdapterError, match=rf"not uploaded to {repository}.*hf auth login"):
        push(tmp_path / "adapter", repository)


# -- collections -------------------------------------------------------------------------------------------------------


def mvr(*arguments: object) -> int:
    try:
        return _run(str(arguments[0]), [str(argument) for argument in arguments[1:]])
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.fixture(scope="module")
def trained(things: Collection, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A collection of twelve shapes of four kinds that was described with an adapter, and the adapter."""
    pytest.importorskip("pytorch_metric_learning")
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(things.folder, folder / "c")
    rng = np.random.default_rng(0)
    names = np.array(["box", "ball", "cone", "a ring", "cube", "chair"])
    np.savez(folder / "names.npz", names=names, vectors=rng.standard_normal((6, 5)))
    few = ["--whiten", 8, "--max-steps", 20, "--folds", 0, "--learning-rate", 0.01]
    assert mvr("train", folder / "c", "--out", folder / "a", "--names", folder / "names.npz", *few) == 0
    assert mvr("reindex", folder / "c", "--adapter", folder / "a") == 0
    return folder / "c", folder / "a"


@pytest.fixture
def adapted(trained: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Adapter]:
    """The same, to be changed."""
    shutil.copytree(trained[0], tmp_path / "c")
    return tmp_path / "c", Adapter.load(trained[1])


def _vectors(folder: Path) -> dict[str, NDArray[np.float32]]:
    with Collection.open(folder) as collection:
        records = collection.store.records([int(n) for n in collection.store.select(None)])
        return {record.id: collection.store.vector_of(row_id) for row_id, record in records.items()}


def _pooled(folder: Path, adapter: Adapter) -> dict[str, NDArray[np.float32]]:
    with Collection.open(folder) as collection:
        directions = collection.describer.rig.directions.astype(np.float32)
        records = collection.store.records([int(n) for n in collection.store.select(None)])
        views = {record.id: collection.views(row_id) for row_id, record in records.items()}
        return {name: adapter.pool(v[None], mask[None], directions)[0][0] for name, (v, mask) in views.items()}


def _same(a: dict[str, NDArray[np.float32]], b: dict[str, NDArray[np.float32]]) -> None:
    assert a.keys() == b.keys() and len(a)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-6, err_msg=name)


def test_a_collection_is_searched_by_what_its_adapter_makes(
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
    asked = vectors["shape-002.ply"]
    for hit in hits:
        assert hit.score == pytest.approx(float(asked @ vectors[hit.id]), abs=1e-5)
    assert mvr("info", folder, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert f"adapter {adapter.fingerprint} (adam, 4 classes seen), knows 6 names" in facts["vectors"]
    assert mvr("reindex", folder, "--adapter", trained[1]) == 1
    assert "described like that already" in capsys.readouterr().err


def test_words_find_their_class_where_the_encoder_reads_none(
    trained: tuple[Path, Path], things: Collection, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = {f"shape-{n:03d}.ply": ["box", "ball", "cone", "ring"][n % 4] for n in range(12)}
    for word in ("box", "a ball", "Cone", "ring"):
        assert mvr("search", trained[0], "--text", word, "--json", "-k", "1") == 0
        hit = json.loads(capsys.readouterr().out.splitlines()[0])
        assert kinds[hit["id"]] in word.lower()
    assert mvr("search", trained[0], "--text", "coone") == 1
    assert "did you mean 'cone'?" in capsys.readouterr().err
    assert mvr("search", things.folder, "--text", "cone") == 1
    assert "reads no words" in capsys.readouterr().err


def test_what_comes_later_is_described_with_the_adapter_too(adapted: tuple[Path, Adapter], tmp_path: Path) -> None:
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


def test_indexing_with_an_adapter_equals_describing_anew_with_it(
    trained: tuple[Path, Path], shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = ["--encoder", "builtin:", "--rig", "ring:3@30", "--size", 64, "--workers", 1]
    new = tmp_path / "new"
    assert mvr("index", new, shapes, *same, "--adapter", trained[1], "--whiten", 4) == 1
    assert "brings its own whitening" in capsys.readouterr().err
    assert mvr("index", new, shapes, *same[:-4], "--size", 80, "--adapter", trained[1]) == 1
    assert "--styles texture --size 64" in capsys.readouterr().err and not new.exists()
    assert mvr("index", new, shapes, *same, "--adapter", trained[1]) == 0
    _same(_vectors(new), _vectors(trained[0]))
    assert mvr("index", new, shapes, "--adapter", trained[1], "--workers", 1) == 0, "the same again is no change"
    assert mvr("index", tmp_path / "plain", shapes, "--adapter", trained[1], "--workers", 1) == 0, (
        "as the adapter was made"
    )
    _same(_vectors(tmp_path / "plain"), _vectors(trained[0]))
    (tmp_path / "empty").mkdir()
    turned = [*same[:2], "--rig", "ring:4@30", *same[4:], "--adapter", trained[1]]
    assert mvr("index", tmp_path / "turned", tmp_path / "empty", *turned) == 0
    assert "the adapter was trained with ring:3@30: other cameras are weighed" in capsys.readouterr().err
    _adapter().save(tmp_path / "other")
    assert mvr("index", new, shapes, "--adapter", tmp_path / "other") == 1
    assert "leave --adapter out" in capsys.readouterr().err


@pytest.mark.parametrize("how", [["--raw"], ["--whiten", 4], ["--pooling", "max"]], ids=lambda how: how[0])
def test_asking_for_something_else_drops_the_adapter(
    adapted: tuple[Path, Adapter], things: Collection, tmp_path: Path, how: list[object]
) -> None:
    folder, _ = adapted
    shutil.copytree(things.folder, tmp_path / "plain")
    assert mvr("reindex", folder, *how) == 0
    if how != ["--raw"]:
        assert mvr("reindex", tmp_path / "plain", *how) == 0
    _same(_vectors(folder), _vectors(tmp_path / "plain"))
    with Collection.open(folder) as collection:
        assert collection.describer.adapter is None and collection.store.get_meta("adapter") is None
        assert collection.describer.config.adapter == ""


def test_views_that_the_adapter_was_not_made_for_are_refused_before_anything_is_done(
    adapted: tuple[Path, Adapter], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, adapter = adapted
    before = _vectors(folder)
    with Collection.open(folder) as collection:
        runs = collection.store.db.all("SELECT count(*) FROM runs")
    (folder / STAGING).mkdir()
    (folder / STAGING / "of an earlier attempt").write_text("")
    replace_it = ["--adapter", tmp_path / "other"]
    _adapter().save(tmp_path / "other")
    for how in (["--styles", "depth"], ["--size", 70], replace_it, ["--styles", "texture,depth", "--rig", "cube"]):
        assert mvr("reindex", folder, *how) == 1
        err = capsys.readouterr().err
        assert "the adapter was trained on other views" in err and "Traceback" not in err
        assert ("styles: texture there, depth here" in err) == (how[1] == "depth") and (
            how[0] != "--size" or "encoder:" not in err
        )
        assert ("--raw" in err) == (how is not replace_it)
    assert mvr("reindex", folder, "--adapter", tmp_path / "other", "--whiten", 3) == 1
    assert "name one or the other" in capsys.readouterr().err
    assert mvr("reindex", folder, "--adapter", tmp_path / "nowhere") == 1
    assert "no adapter at" in capsys.readouterr().err
    assert (folder / STAGING / "of an earlier attempt").exists()
    with Collection.open(folder) as collection:
        assert collection.store.db.all("SELECT count(*) FROM runs") == runs
        assert collection.describer.config.adapter == adapter.fingerprint
    _same(_vectors(folder), before)


def test_prepared_views_are_unit_vectors_and_a_view_in_the_middle_is_no_nan() -> None:
    whitening = _statistics()
    views = np.broadcast_to(whitening.mean[None, :, None], (1, S, V, D)).copy()
    assert (
        not whiten_and_normalize(views, whitening).any()
        and np.isfinite(_adapter().pool(views, np.ones((1, V), bool), None)[0]).all()
    )
    np.testing.assert_allclose(np.linalg.norm(whiten_and_normalize(_views()[0], whitening), axis=-1), 1, atol=1e-5)
