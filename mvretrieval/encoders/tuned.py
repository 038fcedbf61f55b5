"""Tuned encoders as folders: weights with the text tower, and a record of the base encoder and the tuning.

`model.safetensors` holds the weights with the low-rank updates merged: a tuned encoder is as fast as its base, and does not
need the base's files. `lora.safetensors`, if present, holds the low-rank factors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mvretrieval.encoders.cross_view import enable_cross_view, has_cross_view
from mvretrieval.encoders.device import choose_device, choose_precision, weights_hash
from mvretrieval.encoders.encoder import PrecisionChoice
from mvretrieval.encoders.image_only import convolution_precision, untrained_network
from mvretrieval.encoders.network import Architecture, Family, NetworkEncoder, Preprocessing, output_dim
from mvretrieval.encoders.open_clip import towers, untrained_model
from mvretrieval.errors import EncoderError, WeightsError

FORMAT = 1
MODEL, CONFIG, LORA = "model.safetensors", "config.json", "lora.safetensors"
_BIAS = "tuned_bias"
TextTower = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class TunedConfig:
    """Configuration of a tuned encoder, stored beside its weights.

    Attributes:
        base: id of the base encoder, without folders.
        base_fingerprint: fingerprint of the base encoder.
        architecture: recipe of the network.
        preprocessing: image preprocessing.
        method: `lora` or `last-blocks`.
        classes: classes seen in tuning.
        metrics: validation metrics.
        training: resolved options, seed, versions and revision.
    """

    base: str
    base_fingerprint: str
    architecture: Architecture
    preprocessing: Preprocessing
    method: str
    classes: tuple[str, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Convert to values for JSON."""
        return {"format": FORMAT, "kind": "tuned encoder", **asdict(self)}

    @classmethod
    def from_dict(cls, values: Any) -> TunedConfig:
        """Create from the values of `to_dict`.

        Raises:
            WeightsError: another format, or values are missing or invalid.
        """
        found = values.get("format") if isinstance(values, dict) else None
        if not isinstance(values, dict) or values.get("kind") != "tuned encoder" or found != FORMAT:
            no_kind = not isinstance(values, dict) or "kind" not in values
            problem = "is not that of a tuned encoder" if no_kind else f"has format {found}"
            raise WeightsError(
                f"{CONFIG} {problem}; this version reads format {FORMAT}. Tune it again with 'mvr tune'",
                code="bad_tuned_format",
            )
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        try:
            stored = known["preprocessing"]
            known["preprocessing"] = Preprocessing(**stored | {key: tuple(stored[key]) for key in ("mean", "std")})
            known["architecture"] = Architecture(**known["architecture"])
            if known["architecture"].family not in get_args(Family) or not isinstance(stored["size"], int):
                raise TypeError(f"family {known['architecture'].family}, size {stored['size']!r}")
            return cls(**known | {"classes": tuple(known.get("classes", ()))})
        except (KeyError, TypeError) as error:
            raise WeightsError(
                f"{CONFIG} is not complete ({error}). Tune it again with 'mvr tune'", code="bad_tuned_config"
            ) from error


def add_bias(network: nn.Module, dim: int) -> None:
    """Add a learned vector to the output of a network (the additive bias of DAC). It starts at zero."""
    network.register_parameter(_BIAS, nn.Parameter(torch.zeros(dim)))
    network.register_forward_hook(_plus_bias)


def _plus_bias(network: nn.Module, _: Any, out: Tensor) -> Tensor:
    return out + network.get_parameter(_BIAS)


def weights_of(encoder: NetworkEncoder) -> dict[str, Tensor]:
    """Return all weights of an encoder in float32, with the text tower."""
    state = dict((encoder.full_model or encoder.network).state_dict())
    if encoder.full_model is not None and _BIAS in dict(encoder.network.named_parameters(recurse=False)):
        state[_BIAS] = encoder.network.get_parameter(_BIAS)
    return {name: tensor.detach().cpu().float().contiguous() if tensor.is_floating_point() else tensor.cpu()
            for name, tensor in state.items()}  # fmt: skip


def save_tuned(
    folder: Path, config: TunedConfig, weights: dict[str, Tensor], low_rank: dict[str, Tensor] | None = None
) -> None:
    """Write a tuned encoder. The configuration is written last: a folder that has one is complete.

    Raises:
        EncoderError: the folder cannot be written.
    """
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).unlink(missing_ok=True)
        part = folder / f"{CONFIG}.part"
        part.write_text(text, encoding="utf-8")
        for name, tensors in ((MODEL, weights), (LORA, low_rank)):
            if not tensors:
                (folder / name).unlink(missing_ok=True)  # left by an earlier tuning run
            else:
                # The format cannot share tensors: a tensor with two names is written twice.
                save_file({key: tensor.clone() for key, tensor in tensors.items()}, folder / name)
                # safetensors makes files readable for the owner only; give them the permissions of the configuration.
                (folder / name).chmod(part.stat().st_mode)
        part.replace(folder / CONFIG)
    except (OSError, SafetensorError) as error:
        raise EncoderError(f"cannot write the tuned encoder to {folder}: {error}", code="write_failed") from error


def read_config(folder: Path) -> TunedConfig:
    """Read the configuration of a tuned encoder.

    Raises:
        WeightsError: it is missing, damaged or of another format.
    """
    for name in (CONFIG, MODEL):
        if not (folder / name).is_file():
            raise WeightsError(
                f"no tuned encoder at {folder}: {name} is missing. 'mvr tune' writes it; run it again to resume a stopped run",
                code="no_tuned_encoder",
            )
    try:
        return TunedConfig.from_dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"cannot read {folder / CONFIG} ({error}). Tune it again with 'mvr tune'", code="bad_tuned_config"
        ) from error
    except WeightsError as error:
        raise WeightsError(f"{folder}: {error}", code=error.code) from error


def open_tuned(folder: Path, device: str, precision: PrecisionChoice) -> NetworkEncoder:
    """Open a tuned encoder from its folder.

    Raises:
        WeightsError: it is missing or damaged, or its files do not fit together.
    """
    config = read_config(folder)
    try:
        weights = load_file(folder / MODEL)
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"cannot read the weights in {folder / MODEL} ({error}). Copy or tune it again", code="bad_checkpoint"
        ) from error
    built = build(config.architecture, config.preprocessing, device, precision, weights, str(folder))
    built.id = f"tuned:{folder}"
    built.fingerprint = tuned_fingerprint(config.architecture, config.preprocessing, weights)
    return built


def tuned_fingerprint(architecture: Architecture, preprocessing: Preprocessing, weights: dict[str, Tensor]) -> str:
    """Fingerprint text: everything that changes the meaning of a view vector."""
    built = " ".join(f"{name}={value}" for name, value in asdict(architecture).items() if value)
    return f"tuned {built} weights={weights_hash(weights)} {asdict(preprocessing)}"


def build(
    architecture: Architecture,
    preprocessing: Preprocessing,
    device: str,
    precision: PrecisionChoice,
    weights: dict[str, Tensor],
    name: str,
) -> NetworkEncoder:
    """Build an encoder of an architecture with given weights; id and fingerprint stay empty.

    Args:
        architecture: recipe of the network.
        preprocessing: image preprocessing.
        device: where the network runs.
        precision: of weights and activations.
        weights: as `weights_of` returns them.
        name: for messages.

    Raises:
        EncoderError: the architecture is unknown.
        WeightsError: the weights do not fit the architecture.
    """
    target = choose_device(device)
    full_model, network, text = _untrained(architecture)
    bias = _load_weights(full_model or network, architecture, weights, name)
    dim = output_dim(network, preprocessing.size)
    extend(network, dim, architecture)
    if bias is not None:
        network.get_parameter(_BIAS).data.copy_(bias)
    is_mobilenet = (architecture.family, architecture.name) == ("image_only", "mobilenet_v2")
    chosen, reason = convolution_precision(precision) if is_mobilenet else choose_precision(target, precision)
    return NetworkEncoder(
        id="",
        network=network,
        dim=dim,
        preprocessing=preprocessing,
        fingerprint="",
        device=target,
        precision=chosen,
        precision_reason=reason,
        channels_last=is_mobilenet,
        embed_text=text,
        architecture=architecture,
        full_model=full_model,
    )


def _untrained(architecture: Architecture) -> tuple[nn.Module | None, nn.Module, TextTower | None]:
    """The full model if there is one, the image network, and the text tower if there is one."""
    if architecture.family == "open_clip":
        full_model = untrained_model(architecture)
        return full_model, *towers(full_model, architecture.name)
    return None, untrained_network(architecture), None


def _load_weights(model: nn.Module, architecture: Architecture, weights: dict[str, Tensor], name: str) -> Tensor | None:
    """Load weights into a model. Returns the bias of the output, which is not part of the model, if there is one."""
    rest = dict(weights)
    bias = rest.pop(_BIAS, None)
    if (bias is not None) != architecture.bias:
        raise WeightsError(
            f"{name}: its weights do not fit its configuration ({_BIAS}). Copy it again", code="checkpoint_mismatch"
        )
    try:
        model.load_state_dict(rest)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{name} does not fit {architecture.name}: {first}. Are all of its files from one tuning run?",
            code="checkpoint_mismatch",
        ) from error
    return bias


def extend(network: nn.Module, dim: int, architecture: Architecture) -> None:
    """Add the parts of an architecture that its plain network lacks: output bias and cross-view attention."""
    if architecture.bias and _BIAS not in dict(network.named_parameters(recurse=False)):
        add_bias(network, dim)
    if architecture.cross_view and not has_cross_view(network):
        enable_cross_view(network, architecture.cross_view)
