"""Networks that see but do not read: MobileNetV2 and anything in timm."""

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
from mvretrieval.encoders.network import Architecture, NetworkEncoder, Preprocessing
from mvretrieval.errors import EncoderError, WeightsError, did_you_mean

TORCHVISION = Preprocessing(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
MINUS_ONE_TO_ONE = Preprocessing(size=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@dataclass(frozen=True)
class KnownWeights:
    """How a published file of weights wants its pictures; torchvision's own way where a file is not listed.

    Attributes:
        sha256: of the file.
        preprocessing: size and normalisation.
        same_padding: stride-2 convolutions pad as TensorFlow's SAME does, (0, 1, 0, 1), not as torch's padding=1.
        source: where the file comes from.
        license: of the weights.
        trained_on: data.
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
    """Image encoder by architecture name, with local weights or, for timm's names, those of its hub.

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
        raise WeightsError("image_only:mobilenet_v2 needs local weights: image_only:mobilenet_v2@FILE.safetensors")
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
    """Network of an architecture without weights of any worth; MobileNetV2's batch norms are folded.

    Raises:
        EncoderError: timm is not installed, or does not know it.
    """
    if architecture.name == "mobilenet_v2":
        return _folded(MobileNetV2(architecture.same_padding))
    try:
        import timm
    except ImportError:
        raise EncoderError(f"image_only:{architecture.name} needs the extra: pip install 'mvretrieval[timm]'") from None
    try:
        network: nn.Module = timm.create_model(architecture.name, pretrained=False, num_classes=0)
    except Exception as error:  # unknown names, and hub configurations out of reach
        raise EncoderError(f"timm cannot build '{architecture.name}' ({type(error).__name__}: {error})") from error
    return network.eval()


def _folded(network: MobileNetV2) -> nn.Module:
    network = network.eval()
    fold_batch_norms(network)
    return PooledMobileNet(network.features)


def _timm(name: str, weights: Path | None, device: torch.device, precision: PrecisionChoice) -> NetworkEncoder:
    try:
        import timm
    except ImportError:
        raise EncoderError(f"image_only:{name} needs the extra: pip install 'mvretrieval[timm]'") from None
    base = name.removeprefix("hf-hub:").removeprefix("timm/")
    if not name.startswith("hf-hub:") and not timm.is_model(base.split(".")[0]):
        raise EncoderError(
            f"unknown image encoder '{name}': {did_you_mean(base, ['mobilenet_v2', *timm.list_models()])}"
            "mobilenet_v2@FILE and every model of timm.list_models() are known"
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
            raise EncoderError(f"image_only:{name}: {error}; timm.list_pretrained() has all tags") from error
        repository = name.removeprefix("hf-hub:") if pretrained is None else (pretrained.hf_hub_id or f"timm/{base}")
        ensure_hub_weights(f"image_only:{name}", repository)
        try:
            network = timm.create_model(name, pretrained=True, **options)
        except Exception as error:  # hub and weight files each raise their own
            raise WeightsError(f"image_only:{name} cannot be loaded ({type(error).__name__}: {error})") from error
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
        dim=_dim(network, preprocessing.size),
        preprocessing=preprocessing,
        fingerprint=f"image_only:{base} weights={weights_hash(network.state_dict())} {asdict(preprocessing)}",
        device=device,
        precision=chosen,
        precision_reason=reason,
        architecture=Architecture("image_only", name if name.startswith("hf-hub:") else base),
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file, or of a torch checkpoint that holds tensors alone.

    Raises:
        WeightsError: the file is missing or not readable.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at {path}: give the path of a .safetensors or .pt file after '@'")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch goes on to advise reading it in a way that runs what is in it.
        reason = f"{type(error).__name__}: {error}".split(". ")[0].splitlines()[0][:200]
        raise WeightsError(f"{path} holds no readable weights ({reason}): give a .safetensors or .pt file") from error
    while isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    return {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}


def _dim(network: nn.Module, size: int) -> int:
    """Length of a network's vectors: what timm calls `num_features` is another number where a head convolves once more."""
    with torch.inference_mode():
        return int(network(torch.zeros(1, 3, size, size)).shape[-1])


def convolution_precision(requested: PrecisionChoice) -> tuple[Precision, str]:
    """float32 unless asked: in bfloat16 MobileNetV2 is 1.9 times as fast, but its vectors turn by up to cosine 0.9957.

    The tolerance that vectors of one collection must keep is 0.999.
    """
    if requested != "auto":
        return requested, "requested"
    return "float32", "bfloat16 turns this network's vectors more than the tolerance of cosine 0.999"


def _load_state(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    missing, unexpected = network.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise WeightsError(
            f"{path} does not fit: {len(missing)} tensors missing ({', '.join(missing[:3])}), "
            f"{len(unexpected)} unknown ({', '.join(unexpected[:3])}); is it another architecture?"
        )


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()
