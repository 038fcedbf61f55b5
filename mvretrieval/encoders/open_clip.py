"""CLIP models through open_clip: image and text towers, preprocessing from the model itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mvretrieval.encoders.cls_only import encode_cls_only, supports_cls_only
from mvretrieval.encoders.device import choose_device, choose_precision, weights_hash
from mvretrieval.encoders.encoder import PrecisionChoice
from mvretrieval.encoders.hub import ensure_hub_weights, ensure_url_weights
from mvretrieval.encoders.network import Architecture, NetworkEncoder, Preprocessing
from mvretrieval.errors import EncoderError, WeightsError, did_you_mean


def open_clip_encoder(
    architecture: str, tag: str | None, checkpoint: Path | None, device: str, precision: PrecisionChoice
) -> NetworkEncoder:
    """CLIP encoder by architecture and either a pretraining tag or a local checkpoint.

    Args:
        architecture: one of `open_clip.list_models()`, or a `hf-hub:` id.
        tag: one of the architecture's `open_clip.list_pretrained()` tags.
        checkpoint: local file instead of a tag.
        device: `auto`, `cpu`, `cuda`, ...
        precision: of weights and activations.

    Raises:
        EncoderError: architecture or tag is unknown.
        WeightsError: the weights are missing, out of reach or do not fit.
    """
    import open_clip

    is_hub = architecture.startswith("hf-hub:")
    if is_hub:
        encoder_id = architecture
        ensure_hub_weights(encoder_id, architecture.removeprefix("hf-hub:"))
    else:
        if architecture not in open_clip.list_models():
            raise EncoderError(
                f"unknown CLIP architecture '{architecture}': "
                f"{did_you_mean(architecture, open_clip.list_models())}open_clip.list_models() has all"
            )
        if checkpoint is not None:
            encoder_id = f"open_clip:{architecture}@{checkpoint}"
            if not checkpoint.is_file():
                raise WeightsError(f"no checkpoint at {checkpoint}: give the path of a .safetensors, .pt or .bin file")
        else:
            encoder_id = f"open_clip:{architecture}/{tag}"
            _need_tag(encoder_id, architecture, tag)
    # Some published weights were trained with another GELU than their architecture's file says; open_clip only warns.
    quick_gelu = bool(tag and not is_hub and (open_clip.get_pretrained_cfg(architecture, tag) or {}).get("quick_gelu"))
    try:
        with _SkipInit():
            model = open_clip.create_model(
                architecture,
                pretrained=str(checkpoint) if checkpoint else tag,
                precision="fp32",
                device="cpu",
                force_quick_gelu=quick_gelu,
            )
    except Exception as error:  # hub, pickle and safetensors each raise their own
        raise WeightsError(f"{encoder_id} cannot be loaded ({type(error).__name__}: {str(error)[:300]})") from error
    model = model.eval()
    _check_weights(encoder_id, model)
    preprocessing = _preprocessing(open_clip.get_model_preprocess_cfg(model))
    target = choose_device(device)
    chosen, reason = choose_precision(target, precision)
    digest = weights_hash(model.state_dict())
    image_tower, text_tower = towers(model, architecture)
    return NetworkEncoder(
        id=encoder_id,
        network=image_tower,
        dim=_dim(image_tower, preprocessing.size),
        preprocessing=preprocessing,
        fingerprint=f"open_clip:{architecture} weights={digest} {asdict(preprocessing)}" + " quick_gelu" * quick_gelu,
        device=target,
        precision=chosen,
        precision_reason=reason,
        embed_text=text_tower,
        architecture=Architecture("open_clip", architecture, quick_gelu=quick_gelu),
        full_model=model,
    )


def untrained_model(architecture: Architecture) -> nn.Module:
    """CLIP model of an architecture without weights of any worth.

    Raises:
        WeightsError: it is one of the model hub, which tells how it is built, and cannot be reached.
    """
    import open_clip

    name = architecture.name
    root = logging.getLogger()
    root.addFilter(_not_of_bare_weights)
    try:
        model: nn.Module = open_clip.create_model(
            name,
            load_weights=False,
            pretrained_text=False,
            precision="fp32",
            device="cpu",
            force_quick_gelu=architecture.quick_gelu,
        )
    except Exception as error:  # the hub and open_clip each raise their own
        raise WeightsError(
            f"the CLIP model {name} cannot be built ({type(error).__name__}: {str(error)[:300]})"
        ) from error
    finally:
        root.removeFilter(_not_of_bare_weights)
    return model.eval()


class _SkipInit(TorchFunctionMode):
    """Networks are made without drawing the random numbers that their weights replace at once.

    Drawing takes longer than reading the weights. NaN stands at the head of each tensor instead, for `_check_weights` to find.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("uniform_", "normal_", "kaiming_uniform_"):  # of tensors and of `nn.init`
            tensor: Tensor = args[0] if args else kwargs["tensor"]
            tensor.detach()[_head(tensor)] = torch.nan
            return tensor
        return func(*args, **kwargs)


def _head(tensor: Tensor) -> tuple[slice, ...]:
    """Where the first number of a tensor stands, if it has any."""
    return (slice(1),) * tensor.dim()


def _check_weights(encoder_id: str, model: nn.Module) -> None:
    if lacking := [name for name, weights in model.state_dict().items() if weights[_head(weights)].isnan().any()]:
        raise WeightsError(
            f"{encoder_id} has no numbers for {', '.join(lacking[:3])}: its file is broken or of another network"
        )


def _not_of_bare_weights(record: logging.LogRecord) -> bool:
    """open_clip warns of weights that are made up; here they are replaced at once."""
    return "No pretrained weights" not in record.getMessage()


def towers(model: nn.Module, architecture: str) -> tuple[nn.Module, Callable[[Sequence[str]], Tensor]]:
    """The image tower of a CLIP model, (N, 3, size, size) to (N, dim), and its text tower, words to (N, dim)."""
    import open_clip

    return _ImageTower(model.visual), _text_tower(open_clip, model, architecture)  # type: ignore[arg-type]


def _need_tag(encoder_id: str, architecture: str, tag: str | None) -> None:
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in tags:
        raise EncoderError(
            f"'{architecture}' has no weights called '{tag}': {did_you_mean(tag or '', tags)}"
            f"known are {', '.join(tags) or 'none; give a local file as open_clip:' + architecture + '@FILE'}"
        )
    config = open_clip.get_pretrained_cfg(architecture, tag)
    if config.get("hf_hub"):
        ensure_hub_weights(encoder_id, "/".join(str(config["hf_hub"]).strip("/").split("/")[:2]))
    elif config.get("url"):
        ensure_url_weights(encoder_id, str(config["url"]))


def _preprocessing(config: dict[str, Any]) -> Preprocessing:
    size = config["size"]
    width = size if isinstance(size, int) else size[0]
    how = config.get("interpolation", "bicubic")
    return Preprocessing(
        size=int(width),
        mean=tuple(float(x) for x in config["mean"]),
        std=tuple(float(x) for x in config["std"]),
        resampling=how if how in ("bicubic", "bilinear") else "bicubic",
    )


class _ImageTower(nn.Module):
    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, images: Tensor) -> Tensor:
        if not torch.is_grad_enabled() and supports_cls_only(self.visual):
            return encode_cls_only(self.visual, images)
        out = self.visual(images)
        vectors: Tensor = out[0] if isinstance(out, tuple) else out
        return vectors


def _dim(tower: nn.Module, size: int) -> int:
    with torch.inference_mode():
        return int(tower(torch.zeros(1, 3, size, size)).shape[-1])


def _text_tower(open_clip: Any, model: nn.Module, architecture: str) -> Callable[[Sequence[str]], Tensor]:
    """Words to vectors, in float32 on the CPU side of things: a query has a handful of words, and the tower a second life.

    The tokenizer is fetched with the first words, so that image-only use never needs it.
    """
    state: dict[str, Any] = {}

    def embed(texts: Sequence[str]) -> Tensor:
        if "tokenizer" not in state:
            try:
                state["tokenizer"] = open_clip.get_tokenizer(architecture)
            except Exception as error:
                raise WeightsError(f"the tokenizer of {architecture} cannot be loaded: {error}") from error
        # The image tower may have gone to another precision or device; the text tower stays as it was loaded.
        vectors: Tensor = model.encode_text(state["tokenizer"](list(texts)))  # type: ignore[operator]
        return vectors

    return embed
