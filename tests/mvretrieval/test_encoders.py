"""Encoders: real architectures with random weights, since published weights need a download."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from error_codes import raises_code
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from mvretrieval.encoders import fused
from mvretrieval.encoders.blocks import PooledMobileNet
from mvretrieval.encoders.device import choose_device
from mvretrieval.encoders.encoder import ViewEncoder
from mvretrieval.encoders.image_only import read_weights
from mvretrieval.encoders.mobilenet import MobileNetV2, fold_batch_norms
from mvretrieval.encoders.registry import ENCODERS, open_encoder, parse_encoder
from mvretrieval.errors import EncoderError, WeightsError

# Depth and patches of ViT-B-32 at half its width, with a small text tower: the twelve layers accumulate as much rounding.
CLIP = "ViT-S-32-for-tests"
_CONFIG = {
    "embed_dim": 256,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 384, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a CLIP model with random weights."""
    import open_clip

    folder = tmp_path_factory.mktemp("clip")
    (folder / f"{CLIP}.json").write_text(json.dumps(_CONFIG))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    model = open_clip.create_model(CLIP)
    path = folder / "clip.pt"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def clip(clip_file: Path) -> ViewEncoder:
    return open_encoder(f"open_clip:{CLIP}@{clip_file}", "cpu", "float32")


@pytest.fixture(scope="session")
def mobilenet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.torch import save_file
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    network = mobilenet_v2(weights=None)
    for module in network.modules():  # running statistics as after training, so that wrong folding shows
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
            nn.init.uniform_(module.bias, -0.2, 0.2)
    path = tmp_path_factory.mktemp("mobilenet") / "weights.safetensors"
    save_file(network.state_dict(), path)
    return path


def _images(n: int = 3, size: int = 224) -> NDArray[np.uint8]:
    """Smooth blobs. Noise gives nearly equal vectors in every network."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (n, 6, 6, 3), np.uint8)
    return np.stack([np.asarray(Image.fromarray(s).resize((size, size), Image.Resampling.BICUBIC)) for s in small])


def _cosines(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))


# -- CLIP --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [224, 64, 300])
def test_preprocessing_equals_the_transform_of_open_clip(clip: ViewEncoder, clip_file: Path, size: int) -> None:
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(
        CLIP, pretrained=str(clip_file), precision="fp32", device="cpu"
    )
    images = _images(size=size)
    with torch.inference_mode():
        expected = model.eval().encode_image(torch.stack([transform(Image.fromarray(p)) for p in images])).numpy()
    found = clip.encode_views(images)
    assert found.shape == (3, clip.dim) == (3, 256) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert _cosines(found, expected).min() > 0.9999
    # The tolerance is strict enough: a small change of the normalization exceeds it.
    other = clip.encode_views((images * 0.9).astype(np.uint8))
    assert _cosines(other, expected).min() < 0.9999


def test_bfloat16_agrees_with_float32(clip: ViewEncoder, clip_file: Path) -> None:
    half = open_encoder(f"open_clip:{CLIP}@{clip_file}", "cpu", "bfloat16")
    assert half.precision == "bfloat16" and half.precision_reason == "requested"
    assert half.fingerprint == clip.fingerprint
    assert _cosines(half.encode_views(_images()), clip.encode_views(_images())).min() > 0.999


def test_vectors_do_not_depend_on_the_batch(clip: ViewEncoder) -> None:
    images = _images(7)
    whole = clip.encode_views(images)
    clip.batch_size, before = 3, clip.batch_size  # type: ignore[misc]
    try:
        np.testing.assert_allclose(clip.encode_views(images), whole, atol=1e-5)
    finally:
        clip.batch_size = before  # type: ignore[misc]
    assert clip.encode_views(images[:0]).shape == (0, 256)


def test_vectors_do_not_depend_on_the_memory_layout_of_images(clip: ViewEncoder) -> None:
    images = _images(4)
    expected = clip.encode_views(images[::-1, :, ::-1].copy())
    images.setflags(write=False)
    np.testing.assert_array_equal(clip.encode_views(images[::-1, :, ::-1]), expected)


@pytest.mark.parametrize("changes", [{}, {"pool_type": "avg"}, {"ls_init_value": 0.5}, {"attentional_pool": True}])
def test_the_cls_only_forward_pass_equals_the_full_one(changes: dict[str, Any], tmp_path: Path) -> None:
    import open_clip

    from mvretrieval.encoders.cls_only import supports_cls_only

    name = "-".join(["ViT-of", *changes, "for-tests"])
    small = {"image_size": 64, "layers": 3, "width": 64, "head_width": 16, "patch_size": 16}
    config = {**_CONFIG, "embed_dim": 32, "vision_cfg": small | changes}
    (tmp_path / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    torch.manual_seed(0)
    model = open_clip.create_model(name).eval()
    torch.save(model.state_dict(), tmp_path / "clip.pt")
    assert supports_cls_only(model.visual) == (not {"pool_type", "attentional_pool"} & set(changes))
    encoder: Any = open_encoder(f"open_clip:{name}@{tmp_path / 'clip.pt'}", "cpu", "float32")
    with torch.inference_mode():
        expected = nn.functional.normalize(model.encode_image(encoder.pixels(_images(5, 64))), dim=1)
    np.testing.assert_allclose(encoder.encode_views(_images(5, 64)), expected.numpy(), atol=1e-6)


def test_text_vectors_equal_those_of_open_clip(clip: ViewEncoder, clip_file: Path) -> None:
    import open_clip

    assert clip.has_text
    texts = ["a chair", "an airplane with two propellers"]
    found = clip.encode_text(texts)
    assert found.shape == (2, 256) and found.dtype == np.float32
    model = open_clip.create_model(CLIP, pretrained=str(clip_file), precision="fp32")
    with torch.inference_mode():
        expected = model.eval().encode_text(open_clip.get_tokenizer(CLIP)(texts)).numpy()
    assert _cosines(found, expected).min() > 0.9999


def test_the_fingerprint_depends_on_the_weights_and_not_on_the_path(
    clip: ViewEncoder, clip_file: Path, tmp_path: Path
) -> None:
    state = torch.load(clip_file, weights_only=True)
    torch.save(state, tmp_path / "moved.pt")
    assert open_encoder(f"open_clip:{CLIP}@{tmp_path / 'moved.pt'}", "cpu").fingerprint == clip.fingerprint
    state["visual.proj"] = state["visual.proj"] * 1.01
    torch.save(state, tmp_path / "trained.pt")
    assert open_encoder(f"open_clip:{CLIP}@{tmp_path / 'trained.pt'}", "cpu").fingerprint != clip.fingerprint


# -- image encoders without a text tower ---------------------------------------------------------------------------------


def test_mobilenet_equals_torchvisions_with_folded_batch_norms(mobilenet_file: Path) -> None:
    from torchvision.models import mobilenet_v2

    encoder = open_encoder(f"image_only:mobilenet_v2@{mobilenet_file}", "cpu")
    assert (encoder.dim, encoder.image_size, encoder.has_text, encoder.precision) == (1280, 224, False, "float32")
    network = mobilenet_v2(weights=None)
    network.load_state_dict(read_weights(mobilenet_file))
    pixels = torch.from_numpy(_images()).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        expected = network.eval().features((pixels - mean[:, None, None]) / std[:, None, None]).mean(dim=(2, 3)).numpy()
    assert _cosines(encoder.encode_views(_images()), expected).min() > 0.9999
    with raises_code(EncoderError, "no_text_tower", "mobilenet_v2"):
        encoder.encode_text(["a chair"])


@pytest.mark.parametrize("same_padding", [False, True])
@pytest.mark.parametrize("n", [1, 27])
def test_fused_convolutions_equal_the_unfused_network(same_padding: bool, n: int) -> None:
    if not fused.available(torch.float32):
        pytest.skip("oneDNN has no fused convolutions here")
    network = _mobilenet(same_padding)
    pixels = torch.from_numpy(_images(n, 64)).permute(0, 3, 1, 2) / 255
    pixels[0, :, -1, -1] = 9  # in the corner, where the two paddings differ
    expected = network.features(pixels).mean(dim=(2, 3))
    with torch.inference_mode():
        found = network(pixels)
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        other = _mobilenet(not same_padding)(pixels)
    assert (other - found).abs().max() > 1e-3


def test_fused_convolutions_use_current_weights_and_are_not_used_in_training() -> None:
    network = _mobilenet(same_padding=True)
    pixels = torch.from_numpy(_images(2, 64)).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        before = network(pixels)
    with torch.no_grad():
        network.features.get_submodule("4.conv.1.1").weight.mul_(1.5)  # type: ignore[operator]  # a batch norm that stays unfolded
        after = network(pixels)
    assert (after - before).abs().max() > 1e-4
    trained = network.requires_grad_(True)(pixels)
    torch.testing.assert_close(trained.detach(), after, atol=1e-5, rtol=1e-5)
    trained.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_mobilenet_without_fused_convolutions(mobilenet_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = open_encoder(f"image_only:mobilenet_v2@{mobilenet_file}", "cpu")
    expected = encoder.encode_views(_images())
    monkeypatch.setattr(torch.ops.mkldnn, "_convolution_pointwise", None)
    fused.available.cache_clear()
    try:
        assert not fused.available(torch.float32)
        np.testing.assert_allclose(encoder.encode_views(_images()), expected, atol=1e-5)
    finally:
        fused.available.cache_clear()


def test_mobilenet_has_torchvisions_weight_names() -> None:
    from torchvision.models import mobilenet_v2

    theirs = mobilenet_v2(weights=None).state_dict()
    assert [name for name in theirs if not name.startswith("classifier.")] == list(MobileNetV2().state_dict())


def _mobilenet(same_padding: bool) -> PooledMobileNet:
    """A network with batch norm statistics as after training, folded as in an encoder."""
    torch.manual_seed(0)
    network = MobileNetV2(same_padding)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 2),
                (module.weight, 1, 2),
            ):
                nn.init.uniform_(tensor, low, high)  # type: ignore[arg-type]
            nn.init.uniform_(module.bias, -0.2, 0.2)
    fold_batch_norms(network.eval())
    return PooledMobileNet(network.features)


def test_timm_models_open_with_local_weights(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model("resnet18", pretrained=False)
    save_file(network.state_dict(), tmp_path / "resnet.safetensors")
    encoder = open_encoder(f"image_only:resnet18@{tmp_path / 'resnet.safetensors'}", "cpu", "float32")
    vectors = encoder.encode_views(_images(2))
    assert vectors.shape == (2, encoder.dim) == (2, 512)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@pytest.mark.shared_data
def test_published_mobilenet_weights_get_their_own_preprocessing(shared_data: Path) -> None:
    """Padding and normalization of these weights differ from torchvision's, and are recorded by their hash."""
    encoder = open_encoder(f"image_only:mobilenet_v2@{shared_data / 'mobilenet_v2_imagenet.safetensors'}", "cpu")
    assert "same=True" in encoder.fingerprint
    a, b = _images(2)
    moved = np.roll(a, 8, axis=1)
    vectors = encoder.encode_views(np.stack([a, moved, b]))
    assert vectors[0] @ vectors[1] > 0.9 > vectors[0] @ vectors[2]


# -- unknown names, and weights that cannot be loaded ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        ("open_clp:ViT-B-32/openai", "unknown_encoder", "did you mean 'open_clip'?"),
        ("ViT-B-32", "unknown_encoder", "open_clip:MODEL/TAG"),
        ("open_clip:ViT-B-32", "bad_encoder_id", "as in open_clip:ViT-B-32/laion2b"),
        ("open_clip:ViT-B32/openai", "unknown_architecture", "did you mean 'ViT-B-32'?"),
        ("open_clip:ViT-B-32/laion2b", "unknown_pretrained_tag", "did you mean 'laion2b_"),
        ("open_clip:ViT-B-32@/missing.pt", "missing_checkpoint", "/missing.pt"),
        ("image_only:mobilenet_v2", "needs_local_weights", "mobilenet_v2@FILE"),
        ("image_only:mobilenet_v2@/missing.pt", "missing_checkpoint", "/missing.pt"),
        ("image_only:resnet81@/missing.pt", "unknown_architecture", "did you mean 'resnet"),
        ("builtin:x", "bad_encoder_id", "'builtin:x'"),
        ("tuned:", "bad_encoder_id", "tuned:FOLDER"),
    ],
)
def test_bad_encoder_ids_are_refused_with_the_nearest_known_name(text: str, code: str, named: str) -> None:
    with raises_code(EncoderError, code, named):
        open_encoder(text)


def test_unknown_devices_are_refused() -> None:
    with raises_code(EncoderError, "unknown_device", "'gpu'"):
        choose_device("gpu")
    with raises_code(EncoderError, "device_unavailable", "'cuda:99'"):
        choose_device("cuda:99")


def test_unreadable_and_foreign_checkpoints_are_refused(mobilenet_file: Path, clip_file: Path, tmp_path: Path) -> None:
    noise = tmp_path / "noise.safetensors"
    noise.write_bytes(b"noise" * 100)
    with raises_code(WeightsError, "bad_checkpoint", str(noise)):
        open_encoder(f"image_only:mobilenet_v2@{noise}")
    with raises_code(WeightsError, "checkpoint_mismatch", str(clip_file)):
        open_encoder(f"image_only:mobilenet_v2@{clip_file}")
    with raises_code(WeightsError, "bad_checkpoint", str(mobilenet_file)):
        open_encoder(f"open_clip:{CLIP}@{mobilenet_file}")
    state = torch.load(clip_file, weights_only=True)
    state["visual.proj"].fill_(torch.nan)  # as after diverged training
    torch.save(state, tmp_path / "diverged.pt")
    with raises_code(WeightsError, "checkpoint_mismatch", "visual.proj"):
        open_encoder(f"open_clip:{CLIP}@{tmp_path / 'diverged.pt'}")


def test_clip_loads_every_weight_of_its_file(clip_file: Path) -> None:
    found = open_encoder(f"open_clip:{CLIP}@{clip_file}", "cpu", "float32").full_model.state_dict()  # type: ignore[attr-defined]
    state = torch.load(clip_file, weights_only=True)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], weights) for name, weights in state.items())


@pytest.fixture
def closed_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty weights cache, and a proxy on a closed port."""
    # urllib reads the proxies once per process.
    monkeypatch.setattr(urllib.request, "_opener", None)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield


@pytest.mark.parametrize(
    "text",
    [
        "open_clip:ViT-B-32/laion2b_s34b_b79k",
        "open_clip:RN50/yfcc15m",
        "hf-hub:apple/MobileCLIP-S1-OpenCLIP",
        "image_only:vit_base_patch14_dinov2.lvd142m",
    ],
)
def test_missing_weights_without_a_connection_fail_with_the_alternatives(text: str, closed_network: None) -> None:
    # The code is that of the probe, which runs before a download with its minutes of retries.
    with raises_code(WeightsError, "no_weights_offline", text, "no connection", "@FILE", "builtin:") as caught:
        open_encoder(text)
    assert len(str(caught.value)) < 700


def test_an_offline_setting_is_reported_as_the_cause(closed_network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with raises_code(WeightsError, "no_weights_offline", "HF_HUB_OFFLINE is set"):
        open_encoder("open_clip:ViT-B-32/laion2b_s34b_b79k")


@pytest.mark.parametrize("record", ENCODERS, ids=lambda record: record.id)
def test_every_recommended_encoder_exists(record: Any) -> None:
    name = parse_encoder(record.id)
    if name.family == "open_clip":
        import open_clip

        assert name.tag in open_clip.list_pretrained_tags_by_model(name.architecture)
        config = open_clip.get_model_config(name.architecture)
        assert config["embed_dim"] == record.dim
    elif name.family == "image_only" and name.file is None:
        timm = pytest.importorskip("timm")
        assert timm.get_pretrained_cfg(name.architecture) is not None
    elif name.family == "builtin":
        encoder = open_encoder(record.id)
        assert (encoder.dim, encoder.image_size, encoder.has_text) == (record.dim, record.image_size, record.text)
