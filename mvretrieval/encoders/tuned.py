"""Tuned encoders: a folder with all weights, text tower included, and what they were tuned from, for and how.

`model.safetensors` holds the weights with low-rank parts merged, so that a tuned encoder is as fast as the one it was
made from and needs nothing of it; `lora.safetensors`, where there is one, the low-rank parts by themselves.
"""

from __future__ import annotations

import json
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
from mvretrieval.encoders.network import Architecture, Family, NetworkEncoder, Preprocessing
from mvretrieval.errors import EncoderError, WeightsError

FORMAT = 1
MODEL, CONFIG, LORA = "model.safetensors", "config.json", "lora.safetensors"
_BIAS = "tuned_bias"


@dataclass(frozen=True)
class TunedConfig:
    """What a tuned encoder is.

    Attributes:
        base: id of the encoder that tuning started from, without folders.
        base_fingerprint: of its weights and preprocessing.
        architecture: how its network is built.
        preprocessing: of pictures.
        method: `lora`, or `last-blocks`.
        classes: that it was tuned on.
        metrics: of the validation.
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
        """For JSON."""
        return {"format": FORMAT, "kind": "tuned encoder", **asdict(self)}

    @classmethod
    def from_dict(cls, values: Any) -> TunedConfig:
        """Back from `to_dict`.

        Raises:
            WeightsError: another format, or something is missing.
        """
        found = values.get("format") if isinstance(values, dict) else None
        if not isinstance(values, dict) or values.get("kind") != "tuned encoder" or found != FORMAT:
            what = (
                "is no tuned encoder" if not isinstance(values, dict) or "kind" not in values else f"has format {found}"
            )
            raise WeightsError(f"its {CONFIG} {what}, and format {FORMAT} is read: tune it again with 'mvr tune'")
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        try:
            seen = known["preprocessing"]
            known["preprocessing"] = Preprocessing(**seen | {key: tuple(seen[key]) for key in ("mean", "std")})
            known["architecture"] = Architecture(**known["architecture"])
            if known["architecture"].family not in get_args(Family) or not isinstance(seen["size"], int):
                raise TypeError(f"family {known['architecture'].family}, size {seen['size']!r}")
            return cls(**known | {"classes": tuple(known.get("classes", ()))})
        except (KeyError, TypeError) as error:
            raise WeightsError(f"its {CONFIG} is not complete ({error}): tune it again with 'mvr tune'") from error


def add_bias(network: nn.Module, dim: int) -> None:
    """Add a learnt vector, zero at first, to what a network gives (DAC's additive bias)."""
    network.register_parameter(_BIAS, nn.Parameter(torch.zeros(dim)))
    network.register_forward_hook(_plus_bias)


def _plus_bias(network: nn.Module, _: Any, out: Tensor) -> Tensor:
    return out + network.get_parameter(_BIAS)


def weights_of(encoder: NetworkEncoder) -> dict[str, Tensor]:
    """All weights of an encoder in float32, text tower included."""
    state = dict((encoder.full_model or encoder.network).state_dict())
    if encoder.full_model is not None and _BIAS in dict(encoder.network.named_parameters(recurse=False)):
        state[_BIAS] = encoder.network.get_parameter(_BIAS)
    return {name: tensor.detach().cpu().float().contiguous() if tensor.is_floating_point() else tensor.cpu()
            for name, tensor in state.items()}  # fmt: skip


def save_tuned(
    folder: Path, config: TunedConfig, weights: dict[str, Tensor], low_rank: dict[str, Tensor] | None = None
) -> None:
    """Write a tuned encoder; the configuration comes last, so that a folder that has one is whole.

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
                (folder / name).unlink(missing_ok=True)  # of a tuning that was here before
            else:
                # Two names of one tensor are written twice: the format knows no sharing.
                save_file({key: tensor.clone() for key, tensor in tensors.items()}, folder / name)
                # safetensors lets nobody but the owner read; who may read the one may read the other.
                (folder / name).chmod(part.stat().st_mode)
        part.replace(folder / CONFIG)
    except (OSError, SafetensorError) as error:
        raise EncoderError(f"the tuned encoder cannot be written to {folder}: {error}") from error


def read_config(folder: Path) -> TunedConfig:
    """Configuration of a tuned encoder.

    Raises:
        WeightsError: there is none, or it is of another format.
    """
    for name in (CONFIG, MODEL):
        if not (folder / name).is_file():
            raise WeightsError(
                f"no tuned encoder at {folder}: {name} is missing; 'mvr tune' writes such a folder, and one that was stopped "
                "goes on when it is run again"
            )
    try:
        return TunedConfig.from_dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder / CONFIG} cannot be read ({error}): tune it again with 'mvr tune'") from error
    except WeightsError as error:
        raise WeightsError(f"{folder}: {error}") from error


def tuning_of(encoder: str) -> TunedConfig | None:
    """How an encoder, by its id, was tuned, read without opening it; None if it was not, or its folder is gone."""
    folder = Path(encoder.removeprefix("tuned:")).expanduser()
    if not encoder.startswith("tuned:"):
        return None
    try:
        return read_config(folder)
    except WeightsError:
        return None


def open_tuned(folder: Path, device: str, precision: PrecisionChoice) -> NetworkEncoder:
    """Tuned encoder from its folder.

    Raises:
        WeightsError: it is missing, damaged, or its parts do not belong together.
    """
    config = read_config(folder)
    try:
        weights = load_file(folder / MODEL)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{folder / MODEL} holds no readable weights ({error}): copy or tune it again") from error
    built = build(config.architecture, config.preprocessing, device, precision, weights, str(folder))
    built.id = f"tuned:{folder}"
    built.fingerprint = tuned_fingerprint(config.architecture, config.preprocessing, weights)
    return built


def tuned_fingerprint(architecture: Architecture, preprocessing: Preprocessing, weights: dict[str, Tensor]) -> str:
    """Everything that changes a view vector's meaning, as text."""
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
    """An encoder of an architecture with given weights, without an id or a fingerprint.

    Args:
        architecture: see there.
        preprocessing: of pictures.
        device: where it runs.
        precision: of weights and activations.
        weights: as `weights_of` gives them.
        name: for messages.

    Raises:
        EncoderError: the architecture is unknown.
        WeightsError: the weights are those of another.
    """
    target = choose_device(device)
    full_model, text = None, None
    is_mobilenet = (architecture.family, architecture.name) == ("image_only", "mobilenet_v2")
    if architecture.family == "open_clip":
        from mvretrieval.encoders.open_clip import towers, untrained_model

        full_model = untrained_model(architecture)
        network, text = towers(full_model, architecture.name)
    else:
        from mvretrieval.encoders.image_only import untrained_network

        network = untrained_network(architecture)
    rest = dict(weights)
    bias = rest.pop(_BIAS, None)
    if (bias is not None) != architecture.bias:
        raise WeightsError(f"{name}: its weights and its configuration do not belong together ({_BIAS}); copy it again")
    try:
        (full_model or network).load_state_dict(rest)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise WeightsError(f"{name} does not fit {architecture.name}: {first}; are its files of one tuning?") from error
    with torch.inference_mode():
        dim = int(network(torch.zeros(1, 3, preprocessing.size, preprocessing.size)).shape[-1])
    extend(network, dim, architecture)
    if bias is not None:
        network.get_parameter(_BIAS).data.copy_(bias)
    if is_mobilenet:
        from mvretrieval.encoders.image_only import convolution_precision

        chosen, reason = convolution_precision(precision)
    else:
        chosen, reason = choose_precision(target, precision)
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


def extend(network: nn.Module, dim: int, architecture: Architecture) -> None:
    """Give a plain network what an architecture has beyond it: a bias, attention across views."""
    if architecture.bias and _BIAS not in dict(network.named_parameters(recurse=False)):
        add_bias(network, dim)
    if architecture.cross_view and not has_cross_view(network):
        enable_cross_view(network, architecture.cross_view)
