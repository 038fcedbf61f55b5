"""Encoder tuning: trainable weights, validation, cross-view attention, and tuned encoders on disk."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from error_codes import raises_code
from synthetic_views import VIEWS, open_network, synthetic_views, write_clip
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mvretrieval.describe import Describer, DescriberConfig
from mvretrieval.encoders.blocks import PooledMobileNet
from mvretrieval.encoders.network import NetworkEncoder
from mvretrieval.encoders.registry import absolute_encoder, open_encoder, public_encoder
from mvretrieval.encoders.tuned import read_config
from mvretrieval.errors import EncoderError, TrainingError, WeightsError
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.network import NetworkConfig
from mvtrain.checkpoint import FILE as CHECKPOINT
from mvtrain.checkpoint import load_checkpoint
from mvtrain.lora import LowRank, attach, low_rank_tensors, merge
from mvtrain.tunable import check_tunable, make_tunable
from mvtrain.tune import tune
from mvtrain.tune_config import TuneConfig
from mvtrain.tune_output import write_tuned
from mvtrain.validation import mean_view_ap, split_held_out
from mvtrain.view_dataset import ViewDataset

FEW: dict[str, Any] = {
    "rank": 3, "classes_per_batch": 4, "objects_per_class": 2, "views_per_object": 3, "max_steps": 3, "held_out": 0.0,
    "learning_rate": 3e-3,
}  # fmt: skip


@pytest.fixture(scope="module")
def clip_id(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> ViewDataset:
    return synthetic_views(tmp_path_factory.mktemp("views"))


@pytest.fixture(scope="module")
def mobilenet_id(tmp_path_factory: pytest.TempPathFactory) -> str:
    from safetensors.torch import save_file
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("mobilenet") / "weights.safetensors"
    save_file(mobilenet_v2(weights=None).state_dict(), path)
    return f"image_only:mobilenet_v2@{path}"


@pytest.fixture(scope="module")
def timm_id(tmp_path_factory: pytest.TempPathFactory) -> str:
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("timm") / "weights.safetensors"
    save_file(timm.create_model("test_vit", pretrained=False, num_classes=0).state_dict(), path)
    return f"image_only:test_vit@{path}"


def _state(encoder: NetworkEncoder) -> dict[str, Tensor]:
    """Weights by their names in the untuned network."""
    found = {}
    for name, tensor in encoder.network.state_dict().items():
        plain = re.sub(r"\.?parametrizations\.(\w+)\.original$", r".\1", name).lstrip(".")
        if not re.search(r"parametrizations\.", plain):
            found[plain] = tensor.detach().clone()
    return found


def _scramble(network: nn.Module, size: float = 0.3) -> None:
    """Random low-rank parts, as after a long training."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, LowRank):
            module.up.data.normal_(0, size, generator=generator)


# -- low rank ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["clip_id", "timm_id"])
def test_low_rank_parts_change_nothing_untrained_and_merge_exactly(
    which: str, views: ViewDataset, request: pytest.FixtureRequest
) -> None:
    encoder = open_network(request.getfixturevalue(which))
    images = np.concatenate([views.images(row)[0] for row in (0, 5)])
    before, weights = encoder.encode_views(images), _state(encoder)
    names = attach(encoder.network, 4, 8.0)
    assert len(names) == 2 * (3 if which == "clip_id" else len(encoder.network.blocks))  # type: ignore[arg-type]
    np.testing.assert_array_equal(encoder.encode_views(images), before)
    _scramble(encoder.network)
    unmerged = encoder.encode_views(images)
    assert (unmerged * before).sum(axis=1).max() < 0.999
    parts = low_rank_tensors(encoder.network)
    merge(encoder.network)
    merged = encoder.encode_views(images)
    assert (merged * unmerged).sum(axis=1).min() > 0.9999
    after = encoder.network.state_dict()
    assert set(after) == set(weights)
    changed = {name for name in weights if not torch.equal(after[name], weights[name])}
    kinds = ("in_proj_weight", "out_proj.weight", "qkv.weight", "proj.weight")
    assert changed == {name.removesuffix(".up") for name in parts if name.endswith(".up")}
    assert all(name.endswith(kinds) for name in changed)
    for name in changed:  # the saved parts reproduce the merged weights
        torch.testing.assert_close(weights[name] + 2.0 * parts[f"{name}.up"] @ parts[f"{name}.down"], after[name])


@pytest.mark.slow  # importing peft takes long
def test_low_rank_tuning_agrees_with_peft(clip_id: str, views: ViewDataset) -> None:
    pytest.importorskip("peft")
    from peft import LoraConfig, inject_adapter_in_model

    ours, theirs = open_network(clip_id), open_network(clip_id)
    attach(ours.network, 4, 8.0)
    _scramble(ours.network)
    for module in ours.network.modules():
        # peft 0.21 applies the product of the output projection twice: excluded.
        if isinstance(module, nn.Linear) and parametrize.is_parametrized(module):
            module.parametrizations.weight[0].up.data.zero_()  # type: ignore[index, union-attr]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["attn"], lora_dropout=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inject_adapter_in_model(config, theirs.network)
    parts, own = low_rank_tensors(ours.network), dict(theirs.network.named_parameters())
    for name, tensor in parts.items():
        weight, _, part = name.rpartition(".")
        side = {"down": "lora_A", "up": "lora_B"}[part]
        place = weight.replace("in_proj_weight", side).replace("out_proj.weight", f"base_layer.out_proj.{side}")
        own[f"{place}.default.weight"].data.copy_(tensor)
    images = views.images(0)[0]
    cosines = (ours.encode_views(images) * theirs.encode_views(images)).sum(axis=1)
    assert cosines.min() > 0.99999
    assert (cosines > (ours.encode_views(images) * open_network(clip_id).encode_views(images)).sum(axis=1)).all()


# -- learning ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("which", "options", "may_change"),
    [
        ("clip_id", {"method": "lora"}, r"nothing"),
        ("clip_id", {"method": "lora", "bias": True}, r"tuned_bias"),
        (
            "clip_id",
            {"method": "last-blocks", "last_blocks": 1},
            r"visual\.(transformer\.resblocks\.2\.|ln_post\.|proj$)",
        ),
        ("timm_id", {"method": "last-blocks", "last_blocks": 2}, r"(blocks\.[45]|norm|fc_norm|attn_pool)\."),
        ("mobilenet_id", {"method": "last-blocks", "last_blocks": 2}, r"features\.(16|17|18)\."),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_only_trainable_weights_change(
    which: str, options: dict[str, Any], may_change: str, views: ViewDataset, request: pytest.FixtureRequest
) -> None:
    encoder = open_network(request.getfixturevalue(which))
    before = _state(encoder)
    few = {**FEW, "max_steps": 2, "classes_per_batch": 2, "views_per_object": 2}
    tuned = tune(encoder, views, TuneConfig(**{**few, **options}))
    assert tuned.steps == 2 and not encoder.network.training
    after = _state(encoder)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    expected = {name for name in after if re.match(may_change, name)}
    assert changed == expected - {"tuned_bias"} and ("tuned_bias" in after) == bool(options.get("bias"))
    if options.get("bias"):
        assert after["tuned_bias"].abs().min() > 0
    if options["method"] == "lora":
        assert all(tensor.abs().max() > 0 for tensor in low_rank_tensors(encoder.network).values())
    assert any(parameter.abs().max() > 0 for name, parameter in tuned.pooling.named_parameters() if "dataset" in name)


def test_loss_decreases_and_the_best_weights_are_kept(clip_id: str, tmp_path: Path) -> None:
    views = synthetic_views(tmp_path, n_classes=8, styles=2, noise=250)
    encoder, losses, curve = open_network(clip_id), [], {}
    config = TuneConfig(**{**FEW, "max_steps": 24, "held_out": 0.25, "evaluate_every": 6, "objects_per_class": 3})

    def log(entry: dict[str, Any]) -> None:
        losses.append(entry["loss"])
        if "mAP" in entry:
            curve[entry["step"]] = entry["mAP"]

    tuned = tune(encoder, views, config, log=log)
    assert np.mean(losses[-6:]) < 0.95 * np.mean(losses[:6])
    assert sorted(curve) == [6, 12, 18, 24] and tuned.steps == max(curve, key=lambda step: curve[step])
    assert tuned.metrics["held_out_mAP"] == max(curve.values()) and 0 < tuned.metrics["untrained_mAP"] < 1
    # The encoder has the weights of the best validation.
    validation, rest = split_held_out(views, config.held_out, config.seed)
    assert validation is not None and not set(validation.classes) & set(rest.classes) and len(validation.classes) == 2
    assert mean_view_ap(encoder, validation) == tuned.metrics["held_out_mAP"]


def test_activation_checkpointing_and_bfloat16_give_similar_weights(clip_id: str, views: ViewDataset) -> None:
    def weights(**options: Any) -> dict[str, Tensor]:
        encoder = open_network(clip_id)
        tune(encoder, views, TuneConfig(**{**FEW, "cross_view": 2, **options}))
        return low_rank_tensors(encoder.network)

    plain = weights()
    for name, tensor in weights(checkpointing=True).items():
        torch.testing.assert_close(tensor, plain[name], atol=1e-6, rtol=1e-4)
    rough = weights(precision="bfloat16")
    assert all(tensor.dtype == torch.float32 for tensor in rough.values())
    ups = [name for name in plain if name.endswith("up")]
    flat = [torch.cat([state[name].flatten() for name in ups]) for state in (plain, rough)]
    assert 0.9 < float(nn.functional.cosine_similarity(flat[0], flat[1], dim=0)) < 1


def test_untrained_map_is_that_of_the_unchanged_encoder(clip_id: str, tmp_path: Path) -> None:
    views = synthetic_views(tmp_path, n_classes=8, noise=250)
    found = []
    for cross_view in (0, 2):
        config = TuneConfig(**{**FEW, "held_out": 0.25, "cross_view": cross_view})
        found.append(tune(open_network(clip_id), views, config).metrics["untrained_mAP"])
    validation, _ = split_held_out(views, 0.25, 0)
    assert validation is not None and found[0] == found[1] == mean_view_ap(open_network(clip_id), validation)


def test_divergence_is_an_error_and_writes_no_bad_checkpoint(clip_id: str, views: ViewDataset, tmp_path: Path) -> None:
    for options in ({}, {"held_out": 0.5, "evaluate_every": 1}, {"max_steps": 1}):
        config = TuneConfig(**{**FEW, "max_steps": 6, "learning_rate": 1e30, "save_every": 1, **options})
        with raises_code(TrainingError, "diverged", "--learning-rate"):
            tune(open_network(clip_id), views, config, tmp_path)
        found = load_checkpoint(tmp_path)
        assert found is None or all(bool(torch.isfinite(tensor).all()) for tensor in found[0].values())
        (tmp_path / CHECKPOINT).unlink(missing_ok=True)


def test_bias_of_mobilenet_is_learned(mobilenet_id: str, views: ViewDataset) -> None:
    encoder = open_network(mobilenet_id)
    tune(encoder, views, TuneConfig(**FEW, method="last-blocks", bias=True))
    assert isinstance(encoder.network, PooledMobileNet) and encoder.network.n_frozen > 10
    assert float(encoder.network.get_parameter("tuned_bias").abs().max()) > 1e-6


def test_further_tuning_keeps_cross_view_attention_and_seen_classes(clip_id: str, tmp_path: Path) -> None:
    """Cross-view attention is enabled once; classes seen before are recorded and never held out."""
    views = synthetic_views(tmp_path / "views", n_classes=8)
    first = TuneConfig(**FEW, cross_view=2, bias=True)
    encoder = open_network(clip_id)
    seen = views.of_classes(["class-0", "class-1", "class-2"])
    write_tuned(tmp_path / "first", first, encoder, encoder.fingerprint, seen, tune(encoder, seen, first), {})
    for cross_view in (0, 2):
        again, out = open_network(f"tuned:{tmp_path / 'first'}"), tmp_path / f"again-{cross_view}"
        config = TuneConfig(**{**FEW, "held_out": 0.25, "cross_view": cross_view, "views_per_object": 4})
        seen_before = read_config(tmp_path / "first").classes
        tuned = tune(again, views, config, seen=seen_before)
        validation, rest = split_held_out(views, 0.25, 0, seen_before)
        assert (
            validation is not None
            and not set(validation.classes) & set(seen_before)
            and set(rest.classes) > set(seen_before)
        )
        assert tuned.metrics["held_out_mAP"] == mean_view_ap(again, validation)
        write_tuned(out, config, again, again.fingerprint, views.of_classes(["class-7"]), tuned, {}, seen_before)
        assert read_config(out).classes == ("class-0", "class-1", "class-2", "class-7")
        images = views.images(3)[0]
        groups = np.zeros(len(images), np.int64)
        reopened = open_network(f"tuned:{out}")
        np.testing.assert_allclose(reopened.encode_views(images, groups), again.encode_views(images, groups), atol=1e-6)
    assert split_held_out(seen, 0.25, 0, seen.classes)[0] is None


def test_text_and_prototype_losses(clip_id: str, views: ViewDataset) -> None:
    texts = np.eye(4, 24, dtype=np.float32)
    encoder = open_network(clip_id)
    tune(encoder, views, TuneConfig(**FEW, loss="text"), texts=texts)
    tune(open_network(clip_id), views, TuneConfig(**FEW, loss="prototypes"))
    with raises_code(TrainingError, "no_text_tower"):
        tune(open_network(clip_id), views, TuneConfig(**FEW, loss="text"))


# -- cross-view attention ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["clip_id", "timm_id"])
def test_views_attend_to_each_other_within_a_group_only(
    which: str, views: ViewDataset, request: pytest.FixtureRequest
) -> None:
    plain, tuned = (open_network(request.getfixturevalue(which)) for _ in range(2))
    make_tunable(tuned, TuneConfig(**FEW, cross_view=2))
    images = np.concatenate([views.images(row)[0] for row in (0, 5, 9)])
    alone = plain.encode_views(images)
    np.testing.assert_allclose(tuned.encode_views(images), alone, atol=1e-6)
    np.testing.assert_allclose(tuned.encode_views(images, np.arange(len(images))), alone, atol=1e-6)
    np.testing.assert_array_equal(plain.encode_views(images, np.zeros(len(images), np.int64)), alone)
    groups = np.repeat([7, 3, 5], VIEWS)
    grouped = tuned.encode_views(images, groups)
    assert np.abs(grouped - alone).max() > 1e-3
    # Independent of batch size, order and other objects; groups may differ in size.
    tuned.batch_size = 1
    np.testing.assert_allclose(tuned.encode_views(images, groups), grouped, atol=1e-6)
    order = np.random.default_rng(0).permutation(len(images))
    np.testing.assert_allclose(tuned.encode_views(images[order], groups[order]), grouped[order], atol=1e-5)
    fewer = np.arange(2, len(images))
    np.testing.assert_allclose(
        tuned.encode_views(images[fewer], groups[fewer])[VIEWS - 2 :], grouped[VIEWS:], atol=1e-6
    )
    assert tuned.encode_views(images[:0], groups[:0]).shape == (0, tuned.dim)


def test_describers_group_the_views_of_an_object(clip_id: str, views: ViewDataset, tmp_path: Path) -> None:
    encoder = open_network(clip_id)
    config = TuneConfig(**FEW, cross_view=1)
    base = encoder.fingerprint
    write_tuned(tmp_path / "t", config, encoder, base, views, tune(encoder, views, config), {})
    describer = Describer.from_config(DescriberConfig(f"tuned:{tmp_path / 't'}", views.rig, size=64), device="cpu")
    images = np.concatenate([views.images(row) for row in (0, 5)])  # (S * B, V, ...), as in indexing
    found = describer.encode(images)
    tuned = describer.encoder
    assert tuned.cross_view == 1
    for i in range(2):
        np.testing.assert_allclose(found[i], tuned.encode_views(images[i], np.zeros(VIEWS, np.int64)), atol=1e-6)
        assert np.abs(found[i] - tuned.encode_views(images[i])).max() > 1e-4
    # The photos of one query are a group too.
    several = describer.pool(found[:1, None], np.ones((1, VIEWS), bool), known_directions=False)[0][0]
    np.testing.assert_allclose(describer.embed_images(images[0]), several, atol=1e-6)


# -- tuned encoders on disk --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned_folder(clip_id: str, views: ViewDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned") / "t"
    encoder = open_network(clip_id)
    config = TuneConfig(**FEW, bias=True)
    tuned = tune(encoder, views, config)
    write_tuned(folder, config, encoder, "base", views, tuned, {"options": {}})
    np.savez(
        folder.parent / "expected.npz",
        views=encoder.encode_views(views.images(0)[0]),
        texts=encoder.encode_text(["a"]),
    )
    return folder


def test_a_tuned_encoder_reopens_with_the_same_vectors(tuned_folder: Path, clip_id: str, views: ViewDataset) -> None:
    base, encoder = open_network(clip_id), open_network(f"tuned:{tuned_folder}")
    expected = np.load(tuned_folder.parent / "expected.npz")
    found = encoder.encode_views(views.images(0)[0])
    assert (found * expected["views"]).sum(axis=1).min() > 0.9999
    assert (found * base.encode_views(views.images(0)[0])).sum(axis=1).max() < 0.999
    assert encoder.has_text and encoder.dim == base.dim and encoder.image_size == base.image_size
    np.testing.assert_allclose(encoder.encode_text(["a"]), expected["texts"], atol=1e-6)
    np.testing.assert_allclose(encoder.encode_text(["a"]), base.encode_text(["a"]), atol=1e-6)
    assert encoder.id == f"tuned:{tuned_folder}" == absolute_encoder(encoder.id)
    assert public_encoder(encoder.id) == "tuned:t"
    assert encoder.fingerprint != base.fingerprint == open_network(clip_id).fingerprint
    config = json.loads((tuned_folder / "config.json").read_text())
    assert config["base_fingerprint"] == "base" and config["method"] == "lora" and config["classes"] == views.classes
    assert config["preprocessing"] == json.loads(json.dumps(asdict(base.preprocessing)))
    for path in tuned_folder.rglob("*.json"):  # no paths in published files
        for place in (tuned_folder.parent, Path(clip_id.partition("@")[2]).parent):
            assert str(place) not in path.read_text()
    # The jointly trained adapter fits its views.
    adapter = Adapter.load(tuned_folder / "adapter")
    describer = Describer.from_config(DescriberConfig(encoder.id, views.rig, size=64), device="cpu")
    assert adapter.config.check_fits(describer.view_fingerprint) == [] and adapter.whitening is None
    with pytest.raises(EncoderError, match="missing"):
        open_encoder("tuned:missing")


def test_a_tuned_encoder_can_be_tuned_further(tuned_folder: Path, views: ViewDataset, tmp_path: Path) -> None:
    encoder = open_network(f"tuned:{tuned_folder}")
    base = encoder.fingerprint
    config = TuneConfig(**FEW, method="last-blocks", last_blocks=1)
    write_tuned(tmp_path / "u", config, encoder, base, views, tune(encoder, views, config), {})
    again = open_network(f"tuned:{tmp_path / 'u'}")
    images = views.images(3)[0]
    assert again.fingerprint == encoder.fingerprint != base
    assert (again.encode_views(images) * encoder.encode_views(images)).sum(axis=1).min() > 0.9999


def test_mobilenet_and_timm_reopen(mobilenet_id: str, timm_id: str, views: ViewDataset, tmp_path: Path) -> None:
    few = TuneConfig(**{**FEW, "max_steps": 1, "classes_per_batch": 2, "views_per_object": 1}, method="last-blocks")
    for name, encoder_id in (("m", mobilenet_id), ("t", timm_id)):
        encoder = open_network(encoder_id)
        base = encoder.fingerprint
        write_tuned(tmp_path / name, few, encoder, base, views, tune(encoder, views, few), {})
        again = open_network(f"tuned:{tmp_path / name}")
        images = views.images(3)[0]
        np.testing.assert_allclose(again.encode_views(images), encoder.encode_views(images), atol=1e-5)
        assert again.fingerprint == encoder.fingerprint != base and not again.has_text
        assert not (tmp_path / name / "lora.safetensors").exists()


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
        (lambda f: (f / "config.json").unlink(), "config.json"),
        (lambda f: (f / "config.json").write_text("{"), "config.json"),
        (lambda f: (f / "config.json").write_text('{"format": 1}'), "tuned encoder"),
        (lambda f: (f / "model.safetensors").write_bytes(b"noise"), "weights"),
        (lambda f: _edit(f, bias=False), "tuned_bias"),
        (lambda f: _edit(f, name="test_vit"), "test_vit"),
    ],
)
def test_damaged_folders_are_refused(damage: Any, named: str, tuned_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((tuned_folder / name).read_bytes())
    damage(folder)
    with pytest.raises(WeightsError, match=named):
        open_encoder(f"tuned:{folder}", "cpu")


def _edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["architecture"] |= changes
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"rank": 0}, "out_of_range"),
        ({"alpha": 0.0}, "out_of_range"),
        ({"last_blocks": 0}, "out_of_range"),
        ({"method": "lorra"}, "unknown_choice"),
        ({"held_out": 0.7}, "out_of_range"),
        ({"classes_per_batch": 1}, "out_of_range"),
        ({"loss": "supcom"}, "unknown_choice"),
        ({"network": NetworkConfig("chunk")}, "slots_not_supported"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], code: str) -> None:
    ((name, value),) = options.items()
    with raises_code(TrainingError, code, *([] if name == "network" else [name, str(value)])):
        TuneConfig(**options)


def test_unsupported_options_are_refused(clip_id: str, mobilenet_id: str, views: ViewDataset) -> None:
    with raises_code(TrainingError, "no_attention", "last-blocks"):
        tune(open_network(mobilenet_id), views, TuneConfig(**FEW))
    with raises_code(TrainingError, "too_many_blocks", "9", "3 blocks"):
        tune(open_network(clip_id), views, TuneConfig(**FEW, method="last-blocks", last_blocks=9))
    with raises_code(TrainingError, "too_few_classes", "there are 1"):
        tune(open_network(clip_id), views.of_classes(["class-0"]), TuneConfig(**FEW))
    with raises_code(TrainingError, "no_text_tower", "mobilenet_v2"):
        check_tunable(open_network(mobilenet_id), TuneConfig(**FEW, method="last-blocks", loss="text"))
    with raises_code(TrainingError, "cached_views_unreadable", "object-0"):
        replace(views, keys=("ff" * 16, *views.keys[1:])).images(0)


def test_networks_without_cross_view_attention_are_refused(
    clip_id: str, mobilenet_id: str, timm_id: str, views: ViewDataset
) -> None:
    """The error has the code of the encoder's error."""
    timm = pytest.importorskip("timm")

    def check_refused(encoder: NetworkEncoder, value: str, **options: Any) -> None:
        with pytest.raises(TrainingError, match=value) as caught:
            check_tunable(encoder, TuneConfig(**FEW, **options))
        assert isinstance(caught.value.__cause__, EncoderError) and caught.value.code == caught.value.__cause__.code

    check_refused(open_network(clip_id), "9", cross_view=9)
    check_refused(open_network(mobilenet_id), "mobilenet_v2", method="last-blocks", cross_view=1)
    encoder = open_network(timm_id)
    encoder.network = timm.create_model("densenet121", growth_rate=4, block_config=(1, 1), num_classes=0).eval()
    check_refused(encoder, "DenseNet", method="last-blocks")
    options = {"img_size": encoder.image_size, "embed_dim": encoder.dim, "depth": 2, "num_heads": 2, "num_classes": 0}
    encoder.network = timm.create_model("vit_relpos_small_patch16_224", **options).eval()
    before = encoder.encode_views(views.images(0)[0])
    check_refused(encoder, "test_vit", cross_view=1)
    np.testing.assert_array_equal(encoder.encode_views(views.images(0)[0]), before)  # still usable, unchanged
