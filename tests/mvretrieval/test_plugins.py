"""Encoders, weightings and losses that are given as objects or registered, and the checks of their contracts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from error_codes import raises_code
from made_meshes import write_shapes
from numpy.typing import NDArray
from synthetic_features import synthetic_features
from torch import Tensor, nn

from mvrender import plugins
from mvrender.errors import BackendError, PluginError
from mvretrieval import Adapter, Collection, DescriberConfig, Query, open_encoder, register, render_views
from mvretrieval.encoders.builtin import BuiltinEncoder
from mvretrieval.encoders.encoder import Precision
from mvretrieval.errors import AdapterError, DescriberError, EncoderError, TrainingError
from mvretrieval.session.options import OpenOptions
from mvretrieval.weighting.network import AdapterNetwork, NetworkConfig
from mvtrain import TrainConfig, fit_adapter, fit_adapter_on_views

CONFIG = DescriberConfig(encoder="builtin:", rig="ring:3@30", size=64)
ONE_WORKER = OpenOptions(workers=1)
SHORT = TrainConfig(whiten=0, folds=0, max_steps=3)


@pytest.fixture(autouse=True)
def nothing_registered() -> Iterator[None]:
    before = dict(plugins._registered)
    yield
    plugins._registered.clear()
    plugins._registered.update(before)


class Half:
    """The first half of the built-in vector."""

    id = "mine"
    dim = 512
    image_size = 224
    batch_size = 16
    precision: Precision = "float32"
    precision_reason = "no neural network"
    has_text = False
    temperature = None
    cross_view = 0
    fingerprint = "half-1"

    def __init__(self, turned: bool = False, fingerprint: str = "half-1") -> None:
        self.whole = BuiltinEncoder()
        self.turned = turned
        if fingerprint != "half-1":
            self.fingerprint = fingerprint

    def encode_views(self, images: NDArray[np.uint8], groups: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        half = self.whole.encode_views(images)[:, :512] + 1e-6
        half = half[:, ::-1] if self.turned else half
        return np.asarray(half / np.linalg.norm(half, axis=1, keepdims=True), np.float32)

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        raise NotImplementedError


class Middle(nn.Module):
    """Learned weights around the mean: softmax of a linear score."""

    fingerprint = "middle-1"

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.score = nn.Linear(dim, 1)

    def forward(self, views: Tensor, mask: Tensor, directions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        views = torch.where(mask[..., None], views, 0)
        weights = torch.softmax(torch.where(mask, self.score(views)[..., 0], -torch.inf), dim=1)
        return nn.functional.normalize((weights[..., None] * views).sum(dim=1), dim=1), weights


def pull(vectors: Tensor, classes: Tensor) -> Tensor:
    same = classes[:, None] == classes
    return (vectors @ vectors.T)[~same].mean() - (vectors @ vectors.T)[same].mean()


# -- encoders ---------------------------------------------------------------------------------------------------------


def test_an_encoder_object_is_given_again(tmp_path: Path) -> None:
    files = write_shapes(tmp_path / "meshes", range(4))
    with Collection.create(tmp_path / "c", CONFIG, ONE_WORKER, encoder=Half()) as things:
        things.add_folder(tmp_path / "meshes")
        assert things.describer.config.encoder == "object:mine" and things.session.dim == 512
        vector = things.session.store.vector_of(1)
    with Collection.open(tmp_path / "c", ONE_WORKER, encoder=Half()) as things:
        assert things.search(Query(mesh=files[2]), k=1)[0].id == files[2].name
        things.reembed(things.describer.with_config(whiten=3).config)
        assert len(things.search(Query(mesh=files[2]), k=2)) == 2
        things.reembed(CONFIG)  # with another encoder than the given one
        assert things.session.dim == 1024 and things.search(Query(mesh=files[2]), k=1)[0].id == files[2].name
    assert len(vector) == 512


def test_without_the_object_stored_vectors_can_still_be_searched(tmp_path: Path) -> None:
    files = write_shapes(tmp_path / "meshes", range(3))
    with Collection.create(tmp_path / "c", CONFIG, ONE_WORKER, encoder=Half()) as things:
        things.add_folder(tmp_path / "meshes")
    with Collection.open(tmp_path / "c", ONE_WORKER) as things:
        assert len(things.search(Query(id=files[0].name))) == 2
        with raises_code(EncoderError, "encoder_object_needed", "mine"):
            things.search(Query(mesh=files[0]))


def test_another_encoder_object_is_refused(tmp_path: Path) -> None:
    write_shapes(tmp_path / "meshes", range(2))
    with Collection.create(tmp_path / "c", CONFIG, ONE_WORKER, encoder=Half()) as things:
        things.add_folder(tmp_path / "meshes")
    with raises_code(DescriberError, "other_encoder", "builtin:"):
        Collection.open(tmp_path / "c", encoder=BuiltinEncoder())
    with raises_code(DescriberError, "other_encoder", "half-2"):
        Collection.open(tmp_path / "c", encoder=Half(fingerprint="half-2"))
    with raises_code(EncoderError, "fingerprint_not_changed"):
        Collection.open(tmp_path / "c", encoder=Half(turned=True))
    Collection.open(tmp_path / "c", write=True, encoder=Half()).close()  # nothing was left locked


def test_a_registered_encoder_opens_by_its_id(tmp_path: Path) -> None:
    register("encoders", "half", lambda rest, device, precision: Half(turned=rest == "turned"))
    assert open_encoder("half:").dim == 512
    write_shapes(tmp_path / "meshes", range(2))
    with Collection.create(tmp_path / "c", DescriberConfig("half:turned", "ring:3@30", size=64), ONE_WORKER) as things:
        things.add_folder(tmp_path / "meshes")
        things.reembed(DescriberConfig("half:", "ring:3@30", size=64))
    with Collection.open(tmp_path / "c") as things:
        assert things.describer.config.encoder == "half:"
    plugins._registered.clear()
    with raises_code(EncoderError, "unknown_encoder"), Collection.open(tmp_path / "c") as things:
        things.describer.encoder  # noqa: B018


def _broken(**changes: Any) -> Half:
    made = type("Broken", (Half,), changes)
    return made()  # type: ignore[no-any-return]


def _returns(array: NDArray[Any]) -> Any:
    return lambda self, images, groups=None: array[: len(images)]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"fingerprint": ""}, "fingerprint ''"),
        ({"fingerprint": property(lambda self: str(np.random.rand()))}, "fingerprint"),  # noqa: NPY002
        ({"dim": 0}, "the dim 0"),
        ({"encode_views": _returns(np.eye(2, 512, dtype=np.float64))}, "float64 vectors"),
        ({"encode_views": _returns(np.eye(2, 511, dtype=np.float32))}, "(2, 511)"),
        ({"encode_views": _returns(2 * np.eye(2, 512, dtype=np.float32))}, "norm"),
        ({"encode_views": _returns(np.eye(2, 512, dtype=np.float32))}, "encoded alone"),
        ({"encode_views": _returns(np.full((2, 512), np.nan, np.float32))}, "norm"),
    ],
)
def test_a_broken_encoder_is_refused(changes: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with raises_code(EncoderError, "bad_plugin_encoder", problem):
        Collection.create(tmp_path / "c", CONFIG, encoder=_broken(**changes))
    assert not (tmp_path / "c" / "collection.sqlite").exists()


def test_an_encoder_without_members_is_refused(tmp_path: Path) -> None:
    class Bare:
        id, image_size = "bare", 64

    with raises_code(EncoderError, "bad_plugin_encoder", "lacks dim, batch_size"):
        Collection.create(tmp_path / "c", CONFIG, encoder=Bare())  # type: ignore[arg-type]


# -- weightings and losses --------------------------------------------------------------------------------------------


def test_a_weighting_and_a_loss_are_trained(tmp_path: Path) -> None:
    features = synthetic_features(4, 5)
    dim = features.views.shape[-1]
    initial = Middle(dim)
    before = initial.score.weight.detach().clone()
    adapter = fit_adapter_on_views(
        features.views, features.labels, features.directions, SHORT, weighting=initial, loss=pull, device="cpu"
    )
    learned = adapter.network.styles[0].pooling.score.weight  # type: ignore[union-attr]
    assert torch.equal(initial.score.weight, before) and not torch.allclose(learned, before)  # type: ignore[arg-type]
    assert adapter.config.network.kind == "object:Middle" and adapter.config.plugin == "middle-1"

    adapter.save(tmp_path / "a")
    views = features.views[:3].astype(np.float32)
    again = Adapter.load(tmp_path / "a")
    np.testing.assert_array_equal(
        again.pool(views, features.mask[:3], features.directions)[0],
        adapter.pool(views, features.mask[:3], features.directions)[0],
    )
    assert again.fingerprint == adapter.fingerprint


def test_an_adapter_of_another_version_is_refused(tmp_path: Path) -> None:
    features = synthetic_features(4, 5)
    dim = features.views.shape[-1]
    fit_adapter_on_views(features.views, features.labels, None, SHORT, weighting=Middle(dim), device="cpu").save(
        tmp_path / "a"
    )

    class Newer(Middle):
        fingerprint = "middle-2"

    register("weightings", "object:Middle", lambda dim, n_views: Newer(dim))
    with raises_code(AdapterError, "plugin_changed", "middle-1", "middle-2"):
        Adapter.load(tmp_path / "a")
    plugins._registered.clear()
    with raises_code(AdapterError, "unknown_pooling", "object:Middle"):
        Adapter.load(tmp_path / "a")


def test_an_adapter_with_a_plugin_in_a_collection(tmp_path: Path) -> None:
    files = write_shapes(tmp_path / "meshes", range(8))
    with Collection.create(tmp_path / "c", CONFIG, ONE_WORKER) as things:
        things.add_folder(tmp_path / "meshes")
        for i, file in enumerate(files):
            things.set_metadata(file.name, {"label": "ab"[i % 2]})
        adapter = fit_adapter(things, config=SHORT, weighting=Middle(1024), loss=pull, device="cpu")
        things.reembed(things.describer.with_adapter(adapter).config, adapter=adapter)
        assert things.search(Query(mesh=files[3]), k=1)[0].id == files[3].name


class Unnamed(Middle):
    fingerprint = ""


class Leaky(Middle):
    def forward(self, views: Tensor, mask: Tensor, directions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        weights = torch.full(mask.shape, 1 / mask.shape[1])
        return nn.functional.normalize((weights[..., None] * views).sum(dim=1), dim=1), weights


class Long(Middle):
    def forward(self, views: Tensor, mask: Tensor, directions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        vectors, weights = super().forward(views, mask, directions)
        return 2 * vectors, weights


class Failing(Middle):
    def forward(self, views: Tensor, mask: Tensor, directions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        assert directions is not None
        return super().forward(views, mask, directions)


@pytest.mark.parametrize(
    ("made", "problem"), [(Unnamed, "fingerprint"), (Leaky, "masked"), (Long, "norm"), (Failing, "AssertionError")]
)
def test_a_broken_weighting_is_refused(made: type[Middle], problem: str) -> None:
    register("weightings", "broken", lambda dim, n_views: made(dim))
    with raises_code(AdapterError, "bad_plugin_weighting", problem):
        AdapterNetwork(NetworkConfig(kind="broken"), 1, 8, 4)
    register("weightings", "broken", lambda dim, n_views: "no module")
    with raises_code(AdapterError, "bad_plugin_weighting", "str"):
        AdapterNetwork(NetworkConfig(kind="broken"), 1, 8, 4)


def test_the_adaptive_layer_follows_a_plugin_unless_it_is_off() -> None:
    register("weightings", "middle", lambda dim, n_views: Middle(dim))
    names = [name for name, _ in AdapterNetwork(NetworkConfig(kind="middle"), 2, 8, 4).named_parameters()]
    assert "styles.1.adapter.weight" in names and "styles.1.pooling.score.weight" in names
    plain = AdapterNetwork(NetworkConfig(kind="middle", linear=False), 1, 8, 4)
    assert [name for name, _ in plain.named_parameters()] == ["styles.0.score.weight", "styles.0.score.bias"]


@pytest.mark.parametrize(
    "loss",
    [lambda vectors, classes: vectors, lambda vectors, classes: torch.tensor(1.0), lambda vectors: vectors.sum()],
)
def test_a_broken_loss_is_refused(loss: Any) -> None:
    features = synthetic_features(4, 5)
    with raises_code(TrainingError, "bad_plugin_loss"):
        fit_adapter_on_views(features.views, features.labels, None, SHORT, loss=loss, device="cpu")


# -- names ------------------------------------------------------------------------------------------------------------


def test_unknown_names_list_the_registered_ones() -> None:
    register("weightings", "middle", lambda dim, n_views: Middle(dim))
    register("losses", "pull", lambda n_classes, dim: pull)
    with raises_code(AdapterError, "unknown_pooling", "did you mean 'middle'"):
        NetworkConfig(kind="midle")
    with raises_code(TrainingError, "unknown_choice", "did you mean 'pull'"):
        TrainConfig(loss="pul")
    assert TrainConfig(loss="pull").loss == "pull"


def test_a_renderer_needs_an_entry_point() -> None:
    with raises_code(PluginError, "plugin_needs_entry_point"):
        register("renderers", "mine", object)
    with raises_code(BackendError, "unknown_backend", "raster, gl, pyrender"):
        render_views("nothing.ply", backend="mine")
    with raises_code(PluginError, "plugin_without_name"):
        register("losses", "", object)


def test_an_entry_point_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "broken_plugin-3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 3\n")
    (info / "entry_points.txt").write_text("[mvretrieval.losses]\nbroken = no_such_module:loss\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    plugins._entry_points.cache_clear()
    try:
        assert "broken" in entry_points(group="mvretrieval.losses").names
        with raises_code(PluginError, "plugin_not_loaded", "broken-plugin 3"):
            TrainConfig(loss="broken")
    finally:
        plugins._entry_points.cache_clear()


def test_a_built_in_encoder_needs_no_scan_for_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    def scan(group: str) -> Sequence[str]:
        raise AssertionError

    monkeypatch.setattr(plugins, "_entry_points", scan)
    assert open_encoder("builtin:").dim == 1024 and NetworkConfig().kind == "adam" and TrainConfig().loss == "supcon"
