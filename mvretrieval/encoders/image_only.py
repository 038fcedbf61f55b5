"""Image encoders without a text tower: MobileNetV2 and all models of timm."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mvretrieval.encoders.blocks import PooledMobileNet
from mvretrieval.encoders.device import choose_device, choose_precision, weights_hash
from mvretrieval.encoders.encoder import Precision, PrecisionChoice
from mvretrieval.encoders.hub import ensure_hub_weights
from mvretrieval.encoders.mobilenet import MobileNetV2, fold_batch_norms
from mvretrieval.encoders.network import Architecture, NetworkEncoder, Preprocessing, output_dim
from mvretrieval.errors import EncoderError, WeightsError, did_you_mean

TORCHVISION = Preprocessing(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
MINUS_ONE_TO_ONE = Preprocessing(size=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@dataclass(frozen=True)
class KnownWeights:
    """Preprocessing of a published file of weights. Unlisted files are preprocessed as torchvision does.

    Attributes:
        sha256: of the file.
        preprocessing: size and normalization.
        same_padding: stride-2 convolutions use TensorFlow's SAME padding, (0, 1, 0, 1), instead of torch's padding=1.
        source: origin of the file.
        license: license of the weights.
        trained_on: training data.
    """

    sha256: str
    preprocessing: Preprocessing
    same_padding: bool
    source: str
    license: str
    trained_on: str


KNOWN_WEIGHTS = (
    KnownWeights(
        sha256="37378fb4cc86b8dc3d00f6b555f354fa1c0f9a0e7a4dae63887e541a842477a4",
        preprocessing=MINUS_ONE_TO_ONE,
        same_padding=True,
        source="tf2_mobilenet_v2_1.0_224_ptq.tflite (google-coral test data), dequantised",
        license="Apache-2.0",
        trained_on="ImageNet-1k",
    ),
)


def open_image_only(name: str, weights: Path | None, device: str, precision: PrecisionChoice) -> NetworkEncoder:
    """Open an image encoder by architecture name, with local weights or, for timm's models, those of the hub.

    Raises:
        EncoderError: the architecture is unknown.
        WeightsError: the weights are missing or do not fit.
    """
    target = choose_device(device)
    if name == "mobilenet_v2":
        return _mobilenet_v2(weights, target, precision)
    return _timm(name, weights, target, precision)


def _mobilenet_v2(weights: Path | None, device: torch.device, precision: PrecisionChoice) -> NetworkEncoder:
    if weights is None:
        raise WeightsError(
            "image_only:mobilenet_v2 needs local weights: give image_only:mobilenet_v2@FILE.safetensors",
            code="needs_local_weights",
        )
    state = read_weights(weights)
    digest = _file_sha256(weights)
    known = next((record for record in KNOWN_WEIGHTS if record.sha256 == digest), None)
    same_padding = bool(known and known.same_padding)
    network = MobileNetV2(same_padding)
    _load_state(network, {name: t for name, t in state.items() if not name.startswith("classifier.")}, weights)
    preprocessing = known.preprocessing if known else TORCHVISION
    chosen, reason = convolution_precision(precision)
    return NetworkEncoder(
        id=f"image_only:mobilenet_v2@{weights}",
        network=_folded(network),
        dim=1280,
        preprocessing=preprocessing,
        fingerprint=f"image_only:mobilenet_v2 weights={digest[:16]} {asdict(preprocessing)} same={same_padding}",
        device=device,
        precision=chosen,
        precision_reason=reason,
        channels_last=True,
        architecture=Architecture("image_only", "mobilenet_v2", same_padding=same_padding),
    )


def untrained_network(architecture: Architecture) -> nn.Module:
    """Build the network of an architecture with random weights. MobileNetV2's batch norms are folded.

    Raises:
        EncoderError: timm is not installed, or does not know the architecture.
    """
    if architecture.name == "mobilenet_v2":
        return _folded(MobileNetV2(architecture.same_padding))
    timm = _import_timm(architecture.name)
    try:
        network: nn.Module = timm.create_model(architecture.name, pretrained=False, num_classes=0)
    except Exception as error:  # unknown names, and hub configurations out of reach
        raise EncoderError(
            f"timm cannot build '{architecture.name}' ({type(error).__name__}: {error})", code="unknown_architecture"
        ) from error
    return network.eval()


def _import_timm(name: str) -> Any:
    try:
        import timm
    except ImportError:
        raise EncoderError(
            f"image_only:{name} needs timm: run pip install 'mvretrieval[timm]'", code="needs_extra"
        ) from None
    return timm


def _folded(network: MobileNetV2) -> nn.Module:
    network = network.eval()
    fold_batch_norms(network)
    return PooledMobileNet(network.features)


def _timm(name: str, weights: Path | None, device: torch.device, precision: PrecisionChoice) -> NetworkEncoder:
    timm = _import_timm(name)
    base = name.removeprefix("hf-hub:").removeprefix("timm/")
    if not name.startswith("hf-hub:") and not timm.is_model(base.split(".")[0]):
        raise EncoderError(
            f"unknown image encoder '{name}': {did_you_mean(base, ['mobilenet_v2', *timm.list_models()])}"
            "choose mobilenet_v2@FILE or one of timm.list_models()",
            code="unknown_architecture",
        )
    options: dict[str, Any] = {"num_classes": 0}
    if weights is not None:
        network = timm.create_model(base, pretrained=False, **options)
        state = {key: value for key, value in read_weights(weights).items() if key in network.state_dict()}
        _load_state(network, state, weights)
    else:
        try:
            pretrained = None if name.startswith("hf-hub:") else timm.get_pretrained_cfg(base)
        except RuntimeError as error:
            raise EncoderError(
                f"image_only:{name}: {error}. timm.list_pretrained() lists all tags", code="unknown_pretrained_tag"
            ) from error
        repository = name.removeprefix("hf-hub:") if pretrained is None else (pretrained.hf_hub_id or f"timm/{base}")
        ensure_hub_weights(f"image_only:{name}", repository)
        try:
            network = timm.create_model(name, pretrained=True, **options)
        except Exception as error:  # the hub and the weight formats raise different classes
            raise WeightsError(
                f"cannot load image_only:{name} ({type(error).__name__}: {error})", code="bad_checkpoint"
            ) from error
    config = timm.data.resolve_model_data_config(network)
    preprocessing = Preprocessing(
        size=config["input_size"][-1],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        resampling=config.get("interpolation", "bicubic"),
    )
    network = network.eval()
    chosen, reason = choose_precision(device, precision)
    return NetworkEncoder(
        id=f"image_only:{name}" + (f"@{weights}" if weights else ""),
        network=network,
        dim=output_dim(network, preprocessing.size),
        preprocessing=preprocessing,
        fingerprint=f"image_only:{base} weights={weights_hash(network.state_dict())} {asdict(preprocessing)}",
        device=device,
        precision=chosen,
        precision_reason=reason,
        architecture=Architecture("image_only", name if name.startswith("hf-hub:") else base),
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file, or of a torch checkpoint that holds only tensors.

    Raises:
        WeightsError: the file is missing or not readable.
    """
    if not path.is_file():
        raise WeightsError(
            f"no weights at {path}: give the path of a .safetensors or .pt file after '@'", code="missing_checkpoint"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's message goes on with advice to unpickle the file, which would run code in it.
        reason = f"{type(error).__name__}: {error}".split(". ")[0].splitlines()[0][:200]
        raise WeightsError(
            f"cannot read the weights in {path} ({reason}): give a .safetensors or .pt file", code="bad_checkpoint"
        ) from error
    while isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    return {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}


def convolution_precision(requested: PrecisionChoice) -> tuple[Precision, str]:
    """Choose float32 unless another precision is requested, and give the reason.

    In bfloat16 MobileNetV2 is 1.9 times as fast, but the cosine to the float32 vectors drops to 0.9957. The tolerance within
    a collection is 0.999.
    """
    if requested != "auto":
        return requested, "requested"
    return "float32", "bfloat16 changes this network's vectors by more than the tolerance of cosine 0.999"


def _load_state(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    missing, unexpected = network.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise WeightsError(
            f"{path} does not fit the architecture: {len(missing)} tensors missing ({', '.join(missing[:3])}), "
            f"{len(unexpected)} unknown ({', '.join(unexpected[:3])})",
            code="checkpoint_mismatch",
        )


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()
