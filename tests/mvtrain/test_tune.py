"""Tuning an encoder: what changes and what does not, and that a tuned encoder is an encoder like any other."""

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
from made_pictures import VIEWS, made_pictures, opened, write_clip
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mvretrieval.describe import Describer, DescriberConfig
from mvretrieval.encoders.blocks import PooledMobileNet
from mvretrieval.encoders.network import NetworkEncoder
from mvretrieval.encoders.registry import absolute_encoder, open_encoder, public_encoder
from mvretrieval.encoders.tuned import read_config
from mvretrieval.errors import EncoderError, TrainingError, WeightsError
from mvretrieval.weighting.adapter import Adapter
from mvtrain.checkpoint import FILE as CHECKPOINT
from mvtrain.checkpoint import load_checkpoint
from mvtrain.images import Pictures
from mvtrain.lora import LowRank, attach, low_rank_tensors, merge
from mvtrain.tunable import check_tunable, make_tunable
from mvtrain.tune import tune
from mvtrain.tune_config import TuneConfig
from mvtrain.tune_output import write_tuned
from mvtrain.validation import held_out, mean_view_ap

FEW: dict[str, Any] = {
    "rank": 3, "classes_per_batch": 4, "objects_per_class": 2, "views_per_object": 3, "max_steps": 3, "held_out": 0.0,
    "learning_rate": 3e-3,
}  # fmt: skip


@pytest.fixture(scope="module")
def clip_id(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    return made_pictures(tmp_path_factory.mktemp("pictures"))


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
    """Weights by the names that they have untuned."""
    found = {}
    for name, tensor in encoder.network.state_dict().items():
        plain = re.sub(r"\.?parametrizations\.(\w+)\.original$", r".\1", name).lstrip(".")
        if not re.search(r"parametrizations\.", plain):
            found[plain] = tensor.detach().clone()
    return found


def _scramble(network: nn.Module, size: float = 0.3) -> None:
    """Low-rank parts as after a long training."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, LowRank):
            module.up.data.normal_(0, size, generator=generator)


# -- low rank ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["clip_id", "timm_id"])
def test_untrained_low_rank_parts_change_nothing_and_merged_ones_what_they_changed_before(
    which: str, pictures: Pictures, request: pytest.FixtureRequest
) -> None:
    encoder = opened(request.getfixturevalue(which))
    images = np.concatenate([pictures.of(row)[0] for row in (0, 5)])
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
    for name in changed:  # what is written beside the merged weights is enough to get them again
        torch.testing.assert_close(weights[name] + 2.0 * parts[f"{name}.up"] @ parts[f"{name}.down"], after[name])


@pytest.mark.slow  # importing peft takes long
def test_it_is_what_peft_computes(clip_id: str, pictures: Pictures) -> None:
    pytest.importorskip("peft")
    from peft import LoraConfig, inject_adapter_in_model

    ours, theirs = opened(clip_id), opened(clip_id)
    attach(ours.network, 4, 8.0)
    _scramble(ours.network)
    for module in ours.network.modules():
        # peft 0.21 counts the product of the output projection twice: it is left out of the comparison.
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
    images = pictures.of(0)[0]
    cosines = (ours.encode_views(images) * theirs.encode_views(images)).sum(axis=1)
    assert cosines.min() > 0.99999
    assert (cosines > (ours.encode_views(images) * opened(clip_id).encode_views(images)).sum(axis=1)).all()


# -- what is learnt ----------------------------------------------------------------------------------------------------


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
def test_only_what_is_meant_changes(
    which: str, options: dict[str, Any], may_change: str, pictures: Pictures, request: pytest.FixtureRequest
) -> None:
    encoder = opened(request.getfixturevalue(which))
    before = _state(encoder)
    few = {**FEW, "max_steps": 2, "classes_per_batch": 2, "views_per_object": 2}
    tuned = tune(encoder, pictures, TuneConfig(**{**few, **options}))
    assert tuned.steps == 2 and not encoder.network.training
    after = _state(encoder)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    should = {name for name in after if re.match(may_change, name)}
    assert changed == should - {"tuned_bias"} and ("tuned_bias" in after) == bool(options.get("bias"))
    if options.get("bias"):
        assert after["tuned_bias"].abs().min() > 0
    if options["method"] == "lora":
        assert all(tensor.abs().max() > 0 for tensor in low_rank_tensors(encoder.network).values())
    assert any(parameter.abs().max() > 0 for name, parameter in tuned.pooling.named_parameters() if "dataset" in name)


def test_classes_come_apart_and_the_best_steps_are_kept(clip_id: str, tmp_path: Path) -> None:
    pictures = made_pictures(tmp_path, n_classes=8, styles=2, noise=250)
    encoder, losses, looks = opened(clip_id), [], {}
    config = TuneConfig(**{**FEW, "max_steps": 24, "held_out": 0.25, "evaluate_every": 6, "objects_per_class": 3})

    def log(entry: dict[str, Any]) -> None:
        losses.append(entry["loss"])
        if "mAP" in entry:
            looks[entry["step"]] = entry["mAP"]

    tuned = tune(encoder, pictures, config, log=log)
    assert np.mean(losses[-6:]) < 0.95 * np.mean(losses[:6])
    assert sorted(looks) == [6, 12, 18, 24] and tuned.steps == max(looks, key=lambda step: looks[step])
    assert tuned.metrics["held_out_mAP"] == max(looks.values()) and 0 < tuned.metrics["untrained_mAP"] < 1
    # The weights that are left in the encoder are those that were measured.
    judged, rest = held_out(pictures, config.held_out, config.seed)
    assert judged is not None and not set(judged.classes) & set(rest.classes) and len(judged.classes) == 2
    assert mean_view_ap(encoder, judged) == tuned.metrics["held_out_mAP"]


def test_less_memory_and_bfloat16_give_nearly_the_same_weights(clip_id: str, pictures: Pictures) -> None:
    def weights(**options: Any) -> dict[str, Tensor]:
        encoder = opened(clip_id)
        tune(encoder, pictures, TuneConfig(**{**FEW, "cross_view": 2, **options}))
        return low_rank_tensors(encoder.network)

    plain = weights()
    for name, tensor in weights(checkpointing=True).items():
        torch.testing.assert_close(tensor, plain[name], atol=1e-6, rtol=1e-4)
    rough = weights(precision="bfloat16")
    assert all(tensor.dtype == torch.float32 for tensor in rough.values())
    ups = [name for name in plain if name.endswith("up")]
    flat = [torch.cat([state[name].flatten() for name in ups]) for state in (plain, rough)]
    assert 0.9 < float(nn.functional.cosine_similarity(*flat, dim=0)) < 1


def test_what_is_measured_before_is_the_encoder_as_it_came(clip_id: str, tmp_path: Path) -> None:
    pictures = made_pictures(tmp_path, n_classes=8, noise=250)
    found = []
    for cross_view in (0, 2):
        config = TuneConfig(**{**FEW, "held_out": 0.25, "cross_view": cross_view})
        found.append(tune(opened(clip_id), pictures, config).metrics["untrained_mAP"])
    judged, _ = held_out(pictures, 0.25, 0)
    assert judged is not None and found[0] == found[1] == mean_view_ap(opened(clip_id), judged)


def test_a_training_that_diverges_leaves_nothing(clip_id: str, pictures: Pictures, tmp_path: Path) -> None:
    for options in ({}, {"held_out": 0.5, "evaluate_every": 1}, {"max_steps": 1}):
        config = TuneConfig(**{**FEW, "max_steps": 6, "learning_rate": 1e30, "save_every": 1, **options})
        with pytest.raises(TrainingError, match=r"has diverged after \d steps .*lower --learning-rate"):
            tune(opened(clip_id), pictures, config, tmp_path)
        found = load_checkpoint(tmp_path)
        assert found is None or all(bool(torch.isfinite(tensor).all()) for tensor in found[0].values())
        (tmp_path / CHECKPOINT).unlink(missing_ok=True)


def test_the_bias_of_mobilenet_is_learnt(mobilenet_id: str, pictures: Pictures) -> None:
    encoder = opened(mobilenet_id)
    tune(encoder, pictures, TuneConfig(**FEW, method="last-blocks", bias=True))
    assert isinstance(encoder.network, PooledMobileNet) and encoder.network.n_frozen > 10
    assert float(encoder.network.get_parameter("tuned_bias").abs().max()) > 1e-6


def test_further_tuning_joins_views_once_and_forgets_no_class(clip_id: str, tmp_path: Path) -> None:
    """Views stay joined once, and what it has met is neither held out nor forgotten."""
    pictures = made_pictures(tmp_path / "pictures", n_classes=8)
    first = TuneConfig(**FEW, cross_view=2, bias=True)
    encoder = opened(clip_id)
    seen = pictures.of_classes(["class-0", "class-1", "class-2"])
    write_tuned(tmp_path / "first", first, encoder, encoder.fingerprint, seen, tune(encoder, seen, first), {})
    for cross_view in (0, 2):
        again, out = opened(f"tuned:{tmp_path / 'first'}"), tmp_path / f"again-{cross_view}"
        config = TuneConfig(**{**FEW, "held_out": 0.25, "cross_view": cross_view, "views_per_object": 4})
        known = read_config(tmp_path / "first").classes
        tuned = tune(again, pictures, config, known=known)
        judged, rest = held_out(pictures, 0.25, 0, known)
        assert judged is not None and not set(judged.classes) & set(known) and set(rest.classes) > set(known)
        assert tuned.metrics["held_out_mAP"] == mean_view_ap(again, judged)
        write_tuned(out, config, again, again.fingerprint, pictures.of_classes(["class-7"]), tuned, {}, known)
        assert read_config(out).classes == ("class-0", "class-1", "class-2", "class-7")
        images = pictures.of(3)[0]
        groups = np.zeros(len(images), np.int64)
        reopened = opened(f"tuned:{out}")
        np.testing.assert_allclose(reopened.encode_views(images, groups), again.encode_views(images, groups), atol=1e-6)
    assert held_out(seen, 0.25, 0, seen.classes)[0] is None


def test_text_and_prototype_losses(clip_id: str, pictures: Pictures) -> None:
    texts = np.eye(4, 24, dtype=np.float32)
    encoder = opened(clip_id)
    tune(encoder, pictures, TuneConfig(**FEW, loss="text"), texts=texts)
    tune(opened(clip_id), pictures, TuneConfig(**FEW, loss="prototypes"))
    with pytest.raises(TrainingError, match="needs an encoder that reads words"):
        tune(opened(clip_id), pictures, TuneConfig(**FEW, loss="text"))


# -- views that see one another ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["clip_id", "timm_id"])
def test_views_attend_to_one_another_only_where_they_are_said_to_be_of_one_object(
    which: str, pictures: Pictures, request: pytest.FixtureRequest
) -> None:
    plain, joined = (opened(request.getfixturevalue(which)) for _ in range(2))
    make_tunable(joined, TuneConfig(**FEW, cross_view=2))
    images = np.concatenate([pictures.of(row)[0] for row in (0, 5, 9)])
    alone = plain.encode_views(images)
    np.testing.assert_allclose(joined.encode_views(images), alone, atol=1e-6)
    np.testing.assert_allclose(joined.encode_views(images, np.arange(len(images))), alone, atol=1e-6)
    np.testing.assert_array_equal(plain.encode_views(images, np.zeros(len(images), np.int64)), alone)
    groups = np.repeat([7, 3, 5], VIEWS)
    together = joined.encode_views(images, groups)
    assert np.abs(together - alone).max() > 1e-3
    # Neither the batch, nor the order, nor other objects have a say; groups may differ in size.
    joined.batch_size = 1
    np.testing.assert_allclose(joined.encode_views(images, groups), together, atol=1e-6)
    order = np.random.default_rng(0).permutation(len(images))
    np.testing.assert_allclose(joined.encode_views(images[order], groups[order]), together[order], atol=1e-5)
    fewer = np.arange(2, len(images))
    np.testing.assert_allclose(
        joined.encode_views(images[fewer], groups[fewer])[VIEWS - 2 :], together[VIEWS:], atol=1e-6
    )
    assert joined.encode_views(images[:0], groups[:0]).shape == (0, joined.dim)


def test_describers_tell_which_views_belong_together(clip_id: str, pictures: Pictures, tmp_path: Path) -> None:
    encoder = opened(clip_id)
    config = TuneConfig(**FEW, cross_view=1)
    base = encoder.fingerprint
    write_tuned(tmp_path / "t", config, encoder, base, pictures, tune(encoder, pictures, config), {})
    describer = Describer(DescriberConfig(f"tuned:{tmp_path / 't'}", pictures.rig, size=64), device="cpu")
    images = np.concatenate([pictures.of(row) for row in (0, 5)])  # (S * B, V, ...), as indexing has them
    found = describer.encode(images)
    encoder = describer.encoder
    assert isinstance(encoder, NetworkEncoder) and encoder.cross_view == 1
    for i in range(2):
        np.testing.assert_allclose(found[i], encoder.encode_views(images[i], np.zeros(VIEWS, np.int64)), atol=1e-6)
        assert np.abs(found[i] - encoder.encode_views(images[i])).max() > 1e-4
    # Photos of one object are seen together too.
    several = describer.pool(found[:1, None], np.ones((1, VIEWS), bool), known_directions=False)[0][0]
    np.testing.assert_allclose(describer.embed_images(images[0]), several, atol=1e-6)


# -- the folder --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned_folder(clip_id: str, pictures: Pictures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned") / "t"
    encoder = opened(clip_id)
    config = TuneConfig(**FEW, bias=True)
    tuned = tune(encoder, pictures, config)
    write_tuned(folder, config, encoder, "base's", pictures, tuned, {"options": {}})
    np.savez(
        folder.parent / "expected.npz", views=encoder.encode_views(pictures.of(0)[0]), words=encoder.encode_text(["a"])
    )
    return folder


def test_a_tuned_encoder_is_an_encoder_like_any_other(tuned_folder: Path, clip_id: str, pictures: Pictures) -> None:
    base, encoder = opened(clip_id), opened(f"tuned:{tuned_folder}")
    expected = np.load(tuned_folder.parent / "expected.npz")
    found = encoder.encode_views(pictures.of(0)[0])
    assert (found * expected["views"]).sum(axis=1).min() > 0.9999
    assert (found * base.encode_views(pictures.of(0)[0])).sum(axis=1).max() < 0.999
    assert encoder.has_text and encoder.dim == base.dim and encoder.image_size == base.image_size
    np.testing.assert_allclose(encoder.encode_text(["a"]), expected["words"], atol=1e-6)
    np.testing.assert_allclose(encoder.encode_text(["a"]), base.encode_text(["a"]), atol=1e-6)
    assert encoder.id == f"tuned:{tuned_folder}" == absolute_encoder(encoder.id)
    assert public_encoder(encoder.id) == "tuned:t"
    assert encoder.fingerprint != base.fingerprint == opened(clip_id).fingerprint
    config = json.loads((tuned_folder / "config.json").read_text())
    assert (
        config["base_fingerprint"] == "base's" and config["method"] == "lora" and config["classes"] == pictures.classes
    )
    assert config["preprocessing"] == json.loads(json.dumps(asdict(base.preprocessing)))
    for path in tuned_folder.rglob("*.json"):  # where it was made is nobody's business
        for place in (tuned_folder.parent, Path(clip_id.partition("@")[2]).parent):
            assert str(place) not in path.read_text()
    # The adapter that was trained with it fits what it sees, and nothing else.
    adapter = Adapter.load(tuned_folder / "adapter")
    views = Describer(DescriberConfig(encoder.id, pictures.rig, size=64), device="cpu")
    assert adapter.config.check_fits(views.view_fingerprint) == [] and adapter.whitening is None
    with pytest.raises(EncoderError, match="no tuned encoder"):
        open_encoder("tuned:nowhere")


def test_a_tuned_encoder_can_be_tuned_further(tuned_folder: Path, pictures: Pictures, tmp_path: Path) -> None:
    encoder = opened(f"tuned:{tuned_folder}")
    base = encoder.fingerprint
    config = TuneConfig(**FEW, method="last-blocks", last_blocks=1)
    write_tuned(tmp_path / "u", config, encoder, base, pictures, tune(encoder, pictures, config), {})
    again = opened(f"tuned:{tmp_path / 'u'}")
    images = pictures.of(3)[0]
    assert again.fingerprint == encoder.fingerprint != base
    assert (again.encode_views(images) * encoder.encode_views(images)).sum(axis=1).min() > 0.9999


def test_mobilenet_and_timm_come_back(mobilenet_id: str, timm_id: str, pictures: Pictures, tmp_path: Path) -> None:
    few = TuneConfig(**{**FEW, "max_steps": 1, "classes_per_batch": 2, "views_per_object": 1}, method="last-blocks")
    for name, encoder_id in (("m", mobilenet_id), ("t", timm_id)):
        encoder = opened(encoder_id)
        base = encoder.fingerprint
        write_tuned(tmp_path / name, few, encoder, base, pictures, tune(encoder, pictures, few), {})
        again = opened(f"tuned:{tmp_path / name}")
        images = pictures.of(3)[0]
        np.testing.assert_allclose(again.encode_views(images), encoder.encode_views(images), atol=1e-5)
        assert again.fingerprint == encoder.fingerprint != base and not again.has_text
        assert not (tmp_path / name / "lora.safetensors").exists()


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing; 'mvr tune' writes such a folder"),
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "config.json").write_text('{"format": 1}'), "is no tuned encoder"),
        (lambda f: (f / "model.safetensors").write_bytes(b"noise"), "holds no readable weights"),
        (lambda f: _edit(f, bias=False), "do not belong together"),
        (lambda f: _edit(f, name="ViT-B-32"), "does not fit ViT-B-32"),
    ],
)
def test_damaged_folders_are_refused(spoil: Any, said: str, tuned_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((tuned_folder / name).read_bytes())
    spoil(folder)
    with pytest.raises(WeightsError, match=re.escape(said)):
        open_encoder(f"tuned:{folder}", "cpu")


def _edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["architecture"] |= changes
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 0}, "rank has to be at least 1, not 0"),
        ({"alpha": 0.0}, "alpha has to be above 0"),
        ({"last_blocks": 0}, "last_blocks has to be at least 1"),
        ({"method": "lorra"}, "did you mean 'lora'?"),
        ({"held_out": 0.7}, "share of the classes from 0 to 0.5, not 0.7"),
        ({"classes_per_batch": 1}, "classes_per_batch has to be at least 2"),
        ({"loss": "supcom"}, "did you mean 'supcon'?"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TrainingError, match=re.escape(said)):
        TuneConfig(**options)


def _random(folder: Path, name: str) -> str:
    """A file of weights that timm's network of that name begins with."""
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model(name, pretrained=False, num_classes=0).state_dict(), folder / name)
    (folder / name).rename(folder / f"{name}.safetensors")
    return str(folder / f"{name}.safetensors")


def test_networks_that_cannot_be_tuned_like_that(
    clip_id: str, mobilenet_id: str, pictures: Pictures, tmp_path: Path
) -> None:
    with pytest.raises(
        TrainingError, match="no attention that low-rank tuning could change: take --method last-blocks"
    ):
        tune(opened(mobilenet_id), pictures, TuneConfig(**FEW))
    with pytest.raises(TrainingError, match="has 3 blocks; --last-blocks 9 is more"):
        tune(opened(clip_id), pictures, TuneConfig(**FEW, method="last-blocks", last_blocks=9))
    with pytest.raises(TrainingError, match="1 to 3 of this network's blocks, not 9"):
        tune(opened(clip_id), pictures, TuneConfig(**FEW, cross_view=9))
    with pytest.raises(TrainingError, match="needs a vision transformer"):
        tune(opened(mobilenet_id), pictures, TuneConfig(**FEW, method="last-blocks", cross_view=1))
    relative = opened("image_only:vit_relpos_small_patch16_224@" + _random(tmp_path, "vit_relpos_small_patch16_224"))
    with pytest.raises(TrainingError, match="takes tokens of several pictures, and this network's only those of one"):
        check_tunable(relative, TuneConfig(**FEW, cross_view=1))
    assert not hasattr(relative.network, "together") and relative.encode_views(pictures.of(0)[0]).shape == (VIEWS, 384)
    with pytest.raises(TrainingError, match=r"blocks of this network \(DenseNet\) are not known"):
        check_tunable(
            opened("image_only:densenet121@" + _random(tmp_path, "densenet121")),
            TuneConfig(**FEW, method="last-blocks"),
        )
    with pytest.raises(TrainingError, match="1 class cannot be told from others"):
        tune(opened(clip_id), pictures.of_classes(["class-0"]), TuneConfig(**FEW))
    with pytest.raises(TrainingError, match="reads no words, which the text loss compares with"):
        check_tunable(opened(mobilenet_id), TuneConfig(**FEW, method="last-blocks", loss="text"))
    gone = replace(pictures, keys=("ff" * 16, *pictures.keys[1:]))
    with pytest.raises(TrainingError, match=r"cannot be read .*run again to render them"):
        gone.of(0)
