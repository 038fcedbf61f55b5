"""Adapters: files, pooling, which views they fit, and the hub. `test_adapted_collections.py` uses them in collections."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from error_codes import raises_code
from made_meshes import SMALL, unit
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from mvrender.shading import Style
from mvretrieval.describe import Describer
from mvretrieval.errors import AdapterError, ShapeError
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.config import AdapterConfig
from mvretrieval.weighting.hub import CONFIG, MODEL, push
from mvretrieval.weighting.network import NetworkConfig
from mvretrieval.weighting.text_embeddings import TextEmbeddings
from mvretrieval.weighting.whitening import Whitening, WhiteningFit, whiten_and_normalize

S, V, D, K = 2, 4, 10, 6
STYLES: tuple[Style, ...] = ("texture", "clay")


def _views(n: int = 5, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    mask = rng.random((n, V)) < 0.7
    mask[:, 1] = True
    return unit(rng.standard_normal((n, S, V, D))), mask, unit(rng.standard_normal((V, 3)))


def _whitening() -> Whitening:
    fit = WhiteningFit(S, D)
    fit.add(unit(np.random.default_rng(0).standard_normal((S, 50, D)) + 1))
    return fit.result(K)


def _adapter(
    network: NetworkConfig | None = None, whitening: bool = True, trained: bool = True, **changes: Any
) -> Adapter:
    views = Describer.from_config(replace(SMALL, styles=STYLES)).view_fingerprint
    dim = K if whitening else D
    config = AdapterConfig(views, "builtin:", SMALL.rig, STYLES, SMALL.size, V, dim, network or NetworkConfig())
    adapter = Adapter.untrained(replace(config, **changes), _whitening() if whitening else None)
    if trained:
        torch.manual_seed(0)
        for parameter in adapter.network.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return adapter


def _with_names() -> Adapter:
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
@pytest.mark.parametrize("whitening", [True, False])
def test_saving_and_loading_keeps_the_vectors(network: NetworkConfig, whitening: bool, tmp_path: Path) -> None:
    adapter = _adapter(network, whitening, classes=("b", "a"), metrics={"mAP": 0.5}, training={"seed": 1})
    adapter.save(tmp_path / "deep" / "adapter")
    for again in (Adapter.load(tmp_path / "deep" / "adapter"), Adapter.from_bytes(adapter.to_bytes())):
        for made, wanted in zip(again.pool(*_views()), adapter.pool(*_views()), strict=True):
            np.testing.assert_array_equal(made, wanted)
        assert again.config == adapter.config and again.fingerprint == adapter.fingerprint
        assert again.to_bytes() == adapter.to_bytes()


def test_text_embeddings_are_saved(tmp_path: Path) -> None:
    adapter = _with_names()
    adapter.save(tmp_path)
    again = Adapter.load(tmp_path)
    assert again.text_embeddings is not None and adapter.text_embeddings is not None
    assert again.text_embeddings.names == adapter.text_embeddings.names and again.fingerprint == adapter.fingerprint
    for name in ("chair", "the sofa"):  # the file stores text vectors in half precision
        found, wanted = again.text_embeddings.object_vector(name), adapter.text_embeddings.object_vector(name)
        np.testing.assert_allclose(found, wanted, atol=2e-3)
    assert again.to_bytes() == adapter.to_bytes()
    assert json.loads((tmp_path / CONFIG).read_text())["text_names"] == ["a chair", "sofa", "lamp"]


def test_the_fingerprint_covers_all_that_changes_a_vector_and_nothing_else() -> None:
    prints = [_adapter(network).fingerprint for network in NETWORKS]
    prints += [_adapter(whitening=False).fingerprint, _with_names().fingerprint]
    for name in _adapter().network.state_dict():
        changed = _adapter()
        with torch.no_grad():
            changed.network.state_dict()[name].view(-1)[0] += 1e-3
        prints.append(changed.fingerprint)
    base = _adapter()
    assert base.whitening is not None and base.whitening.transform is not None
    for whitening in (
        replace(base.whitening, mean=base.whitening.mean + np.float32(1e-3)),
        replace(base.whitening, transform=base.whitening.transform * np.float32(1.001)),
    ):
        prints.append(Adapter(base.config, whitening, base.network).fingerprint)
    assert len(set(prints)) == len(prints) and base.fingerprint == prints[0]
    records: dict[str, Any] = {"metrics": {"mAP": 1.0}, "classes": ("x",), "training": {"seed": 9}}
    assert _adapter(**records).fingerprint == base.fingerprint


def _rewritten(adapter: Adapter, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], Any]) -> bytes:
    """The adapter's file with another configuration or other tensors."""
    values, tensors = json.loads(json.dumps(adapter._header())), load_tensors(adapter.to_bytes())
    values = change(values, tensors) or values
    return save_tensors(tensors, metadata={"config": values if isinstance(values, str) else json.dumps(values)})


# Case -> file, code, and a value that the message contains.
DAMAGED: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "empty": (lambda: b"", "adapter_damaged", ""),
    "noise": (lambda: b"noise" * 1000, "adapter_damaged", ""),
    "half": (lambda: (data := _adapter().to_bytes())[: len(data) // 2], "adapter_damaged", ""),
    "header": (lambda: _adapter().to_bytes()[:100], "adapter_damaged", ""),
    "other weights": (lambda: save_tensors({"x": torch.zeros(3)}), "not_an_adapter", ""),
    "other metadata": (lambda: save_tensors({"x": torch.zeros(3)}, {"format": "pt"}), "not_an_adapter", ""),
    "no JSON": (lambda: _rewritten(_adapter(), lambda v, t: "{"), "adapter_damaged", ""),
    "a list": (lambda: _rewritten(_adapter(), lambda v, t: "[1]"), "adapter_other_format", "format None"),
    "newer": (lambda: _rewritten(_adapter(), lambda v, t: v.update(format=99)), "adapter_other_format", "format 99"),
    "no encoder": (
        lambda: _rewritten(_adapter(), lambda v, t: v.pop("encoder") and None),
        "adapter_incomplete",
        "encoder",
    ),
    "no network": (
        lambda: _rewritten(_adapter(), lambda v, t: v.pop("network") and None),
        "adapter_incomplete",
        "network",
    ),
    "unknown network": (
        lambda: _rewritten(_adapter(), lambda v, t: v["network"].update(kind="adm")),
        "unknown_pooling",
        "did you mean 'adam'",
    ),
    "unknown option": (
        lambda: _rewritten(_adapter(), lambda v, t: v["network"].update(depth=2)),
        "adapter_incomplete",
        "depth",
    ),
    "other size": (lambda: _rewritten(_adapter(), lambda v, t: v.update(dim=5)), "adapter_inconsistent", ""),
    "other styles": (
        lambda: _rewritten(_adapter(), lambda v, t: v.update(styles=["clay"])),
        "adapter_inconsistent",
        "",
    ),
    "other parts": (
        lambda: _rewritten(_adapter(), lambda v, t: v["network"].update(linear=False)),
        "adapter_inconsistent",
        "adapter.weight",
    ),
    "no size": (lambda: _rewritten(_adapter(), lambda v, t: v.update(dim="many")), "adapter_inconsistent", ""),
    "transform of another shape": (
        lambda: _rewritten(_adapter(), lambda v, t: t.update({"statistics.transform": torch.zeros(S, D, 3)})),
        "adapter_inconsistent",
        "",
    ),
    "mean of another shape": (
        lambda: _rewritten(_adapter(), lambda v, t: t.update({"statistics.mean": torch.zeros(S, 3)})),
        "adapter_inconsistent",
        "",
    ),
    "no number of views": (
        lambda: _rewritten(_adapter(), lambda v, t: v.pop("statistics_views") and None),
        "adapter_inconsistent",
        "statistics_views",
    ),
    "no slots": (
        lambda: _rewritten(_adapter(NetworkConfig(dataset_scores="slots")), lambda v, t: v.update(n_views=0)),
        "adapter_inconsistent",
        "",
    ),
    "no names": (
        lambda: _rewritten(_adapter(), lambda v, t: v.update(text="named")),
        "adapter_inconsistent",
        "text_names",
    ),
    "fewer names": (
        lambda: _rewritten(_with_names(), lambda v, t: v.update(text_names=["x"])),
        "adapter_inconsistent",
        "1 names",
    ),
    "other origin": (
        lambda: _rewritten(_with_names(), lambda v, t: t.update({"text.origin": torch.zeros(6)})),
        "adapter_inconsistent",
        "",
    ),
    "other map": (
        lambda: _rewritten(_with_names(), lambda v, t: t.update({"text.projection": torch.zeros(7, 3)})),
        "adapter_inconsistent",
        "(7, 3)",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_adapter_is_refused_with_its_path(case: str, tmp_path: Path) -> None:
    make, code, value = DAMAGED[case]
    (tmp_path / MODEL).write_bytes(make())
    with raises_code(AdapterError, code, str(tmp_path / MODEL), value):
        Adapter.load(tmp_path)


def test_missing_adapters_and_unwritable_folders(tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / CONFIG).write_text("{}")
    (tmp_path / "file").write_text("")
    for source in ("nowhere", "half", "file"):
        with raises_code(AdapterError, "adapter_not_found", str(tmp_path / source), "'mvr train'"):
            Adapter.load(tmp_path / source)
    with raises_code(AdapterError, "adapter_not_written", str(tmp_path / "file")):
        _adapter().save(tmp_path / "file" / "adapter")


def test_a_tuned_encoder_is_not_an_adapter(tmp_path: Path) -> None:
    _adapter().save(tmp_path / "adapter")
    (tmp_path / CONFIG).write_text('{"kind": "tuned encoder"}')
    with raises_code(AdapterError, "adapter_is_encoder", f"tuned:{tmp_path}", f"--adapter {tmp_path / 'adapter'}"):
        Adapter.load(tmp_path)


# -- pooling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whitening", [True, False])
def test_an_untrained_adapter_is_the_mean_of_whitened_views(whitening: bool) -> None:
    adapter = _adapter(whitening=whitening, trained=False)
    views, mask, directions = _views()
    vectors, weights = adapter.pool(views, mask, directions)
    for b in range(len(views)):
        parts = []
        for s in range(S):
            rendered = views[b, s, mask[b]]
            whitened = adapter.whitening.apply(rendered, s) if adapter.whitening else rendered
            parts.append(unit(unit(whitened).mean(axis=0)))
        np.testing.assert_allclose(vectors[b], np.concatenate(parts) / np.sqrt(S), atol=1e-6)
        np.testing.assert_allclose(weights[b], np.stack([mask[b] / mask[b].sum()] * S), atol=1e-6)
    describer = Describer.from_config(replace(SMALL, styles=STYLES))
    if not whitening:
        np.testing.assert_allclose(vectors, describer.pool(views, mask)[0], atol=1e-6)
    matched = describer.with_whitening(adapter.whitening).adapted_views(views)
    np.testing.assert_allclose(adapter.adapt_views(views), matched, atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{n.kind}-{n.dataset_scores}")
def test_adapted_views_equal_objects_of_one_view_and_masked_views_have_no_effect(network: NetworkConfig) -> None:
    adapter = _adapter(network)
    views, mask, directions = _views()
    adapted = adapter.adapt_views(views)
    for s, v in np.ndindex(S, V):
        single, _ = adapter.pool(views[:, :, v : v + 1], np.ones((len(views), 1), bool), None)
        np.testing.assert_allclose(adapted[:, s, v], unit(single.reshape(-1, S, K)[:, s]), atol=1e-5)
    garbage = np.where(mask[:, None, :, None], views, np.nan).astype(np.float32)
    for found, wanted in zip(
        adapter.pool(garbage, mask, directions), adapter.pool(views, mask, directions), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)
    with raises_code(ShapeError, "no_view"):
        adapter.pool(views, np.zeros_like(mask), directions)


def test_an_adapter_fits_its_own_views_and_other_cameras_unless_scores_are_by_slot() -> None:
    config = replace(SMALL, styles=STYLES)
    free, slots = _adapter(), _adapter(NetworkConfig(dataset_scores="slots"))
    for adapter in (free, slots):
        assert adapter.config.check_fits(Describer.from_config(config).view_fingerprint) == []
        for other in (
            replace(config, styles=("clay", "texture")),
            replace(config, styles=("texture",)),
            replace(config, size=65),
        ):
            with raises_code(AdapterError, "adapter_other_views", "--styles texture,clay --size 64") as caught:
                Describer.from_config(other).with_adapter(adapter)
            styles = f"styles: texture,clay (adapter), {','.join(other.styles)} (here)"
            size = f"size: 64 (adapter), {other.size} (here)"
            found = [line in str(caught.value) for line in (styles, size)]
            assert found == [other.styles != STYLES, other.size != 64]
        foreign = Describer.from_config(config)
        foreign.encoder.fingerprint = "other weights"  # type: ignore[misc]
        with raises_code(AdapterError, "adapter_other_views", "other weights"):
            foreign.with_adapter(adapter)
        with raises_code(AdapterError, "adapter_other_views"):  # a fingerprint of an early version
            adapter.config.check_fits("views=0")
    other_rig = Describer.from_config(replace(config, rig="ring:5@10"))
    (notice,) = free.config.check_fits(other_rig.view_fingerprint)
    assert "ring:3@30" in notice and "by their direction" in notice
    with raises_code(AdapterError, "adapter_other_cameras", "(ring:3@30)"):
        other_rig.with_adapter(slots)


def test_an_adapter_replaces_the_describers_whitening_and_pooling() -> None:
    describer = Describer.from_config(replace(SMALL, styles=STYLES, pooling="max", whiten=4))
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


def test_whitened_views_have_unit_norm_and_a_view_at_the_mean_is_zero() -> None:
    whitening = _whitening()
    views = np.broadcast_to(whitening.mean[None, :, None], (1, S, V, D)).copy()
    assert not whiten_and_normalize(views, whitening).any()
    assert np.isfinite(_adapter().pool(views, np.ones((1, V), bool), None)[0]).all()
    np.testing.assert_allclose(np.linalg.norm(whiten_and_normalize(_views()[0], whitening), axis=-1), 1, atol=1e-5)


# -- hub ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Hub cache of a machine without a connection and without a token."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path / "hub"


def test_an_adapter_on_the_hub_is_read_from_the_cache(hub: Path) -> None:
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
        with raises_code(AdapterError, "download_failed", source):
            Adapter.load(source)
    (cached / "snapshots" / ("1" * 40) / MODEL).unlink()
    with pytest.raises(AdapterError) as caught:
        Adapter.load("hf-hub:owner/name")
    assert caught.value.code in ("adapter_not_found", "download_failed")


@pytest.mark.parametrize("repository", ["owner/name", "not a name"])
@pytest.mark.parametrize("offline", [True, False])
def test_a_failed_upload_says_how_to_log_in(
    hub: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, repository: str, offline: bool
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    adapter = _adapter()
    adapter.save(tmp_path / "adapter")
    with raises_code(AdapterError, "upload_failed", repository, "hf auth login"):
        push(tmp_path / "adapter", repository)
