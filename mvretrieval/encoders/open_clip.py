"""CLIP models of open_clip: image and text towers, with the preprocessing of each model."""

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
from mvretrieval.encoders.network import Architecture, NetworkEncoder, Preprocessing, output_dim
from mvretrieval.errors import EncoderError, WeightsError, did_you_mean


def open_clip_encoder(
    architecture: str, tag: str | None, checkpoint: Path | None, device: str, precision: PrecisionChoice
) -> NetworkEncoder:
    """Open a CLIP encoder by architecture and either a pretraining tag or a local checkpoint.

    Args:
        architecture: one of `open_clip.list_models()`, or a `hf-hub:` id.
        tag: one of the architecture's `open_clip.list_pretrained()` tags.
        checkpoint: local file instead of a tag.
        device: `auto`, `cpu`, `cuda`, ...
        precision: of weights and activations.

    Raises:
        EncoderError: architecture or tag is unknown.
        WeightsError: the weights are missing, cannot be downloaded or do not fit.
    """
    import open_clip

    encoder_id = _check_available(architecture, tag, checkpoint)
    is_hub = architecture.startswith("hf-hub:")
    # Some weights were trained with QuickGELU although the file of their architecture names GELU; open_clip only warns.
    quick_gelu = bool(tag and not is_hub and (open_clip.get_pretrained_cfg(architecture, tag) or {}).get("quick_gelu"))
    model = _load_model(encoder_id, architecture, tag, checkpoint, quick_gelu)
    preprocessing = _preprocessing(open_clip.get_model_preprocess_cfg(model))
    target = choose_device(device)
    chosen, reason = choose_precision(target, precision)
    digest = weights_hash(model.state_dict())
    image_tower, text_tower = towers(model, architecture)
    return NetworkEncoder(
        id=encoder_id,
        network=image_tower,
        dim=output_dim(image_tower, preprocessing.size),
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
    """Build the CLIP model of an architecture with random weights.

    Raises:
        WeightsError: the model cannot be built; for a model of the hub, its configuration cannot be downloaded.
    """
    import open_clip

    name = architecture.name
    root = logging.getLogger()
    root.addFilter(_is_not_about_random_weights)
    try:
        model: nn.Module = open_clip.create_model(
            name,
            load_weights=False,
            pretrained_text=False,
            precision="fp32",
            device="cpu",
            force_quick_gelu=architecture.quick_gelu,
        )
    except Exception as error:  # the hub and open_clip raise different classes
        raise WeightsError(
            f"cannot build the CLIP model {name} ({type(error).__name__}: {str(error)[:300]})", code="no_architecture"
        ) from error
    finally:
        root.removeFilter(_is_not_about_random_weights)
    return model.eval()


def towers(model: nn.Module, architecture: str) -> tuple[nn.Module, Callable[[Sequence[str]], Tensor]]:
    """Image tower of a CLIP model, (N, 3, size, size) to (N, dim), and its text tower, N texts to (N, dim)."""
    import open_clip

    return _ImageTower(model.visual), _text_tower(open_clip, model, architecture)  # type: ignore[arg-type]


def _check_available(architecture: str, tag: str | None, checkpoint: Path | None) -> str:
    """Return the encoder's id if its weights exist here or can be downloaded."""
    import open_clip

    if architecture.startswith("hf-hub:"):
        ensure_hub_weights(architecture, architecture.removeprefix("hf-hub:"))
        return architecture
    if architecture not in open_clip.list_models():
        raise EncoderError(
            f"unknown CLIP architecture '{architecture}': {did_you_mean(architecture, open_clip.list_models())}"
            "open_clip.list_models() lists all",
            code="unknown_architecture",
        )
    if checkpoint is None:
        encoder_id = f"open_clip:{architecture}/{tag}"
        _check_tag(encoder_id, architecture, tag)
        return encoder_id
    if not checkpoint.is_file():
        raise WeightsError(
            f"no checkpoint at {checkpoint}: give the path of a .safetensors, .pt or .bin file",
            code="missing_checkpoint",
        )
    return f"open_clip:{architecture}@{checkpoint}"


def _check_tag(encoder_id: str, architecture: str, tag: str | None) -> None:
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if tag not in tags:
        raise EncoderError(
            f"'{architecture}' has no pretrained weights '{tag}': {did_you_mean(tag or '', tags)}"
            + (f"choose one of {', '.join(tags)}" if tags else f"give a local file as open_clip:{architecture}@FILE"),
            code="unknown_pretrained_tag",
        )
    config = open_clip.get_pretrained_cfg(architecture, tag)
    if config.get("hf_hub"):
        ensure_hub_weights(encoder_id, "/".join(str(config["hf_hub"]).strip("/").split("/")[:2]))
    elif config.get("url"):
        ensure_url_weights(encoder_id, str(config["url"]))


def _load_model(
    encoder_id: str, architecture: str, tag: str | None, checkpoint: Path | None, quick_gelu: bool
) -> nn.Module:
    import open_clip

    try:
        with _SkipInit():
            model: nn.Module = open_clip.create_model(
                architecture,
                pretrained=str(checkpoint) if checkpoint else tag,
                precision="fp32",
                device="cpu",
                force_quick_gelu=quick_gelu,
            )
    except Exception as error:  # hub, pickle and safetensors raise different classes
        raise WeightsError(
            f"cannot load {encoder_id} ({type(error).__name__}: {str(error)[:300]})", code="bad_checkpoint"
        ) from error
    model = model.eval()
    _check_weights(encoder_id, model)
    return model


class _SkipInit(TorchFunctionMode):
    """Build networks without random initialization, since a checkpoint replaces the weights.

    Initialization takes longer than reading the weights. The first element of each skipped tensor becomes NaN, so that
    `_check_weights` finds tensors that the checkpoint did not set.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("uniform_", "normal_", "kaiming_uniform_"):  # of tensors and of `nn.init`
            tensor: Tensor = args[0] if args else kwargs["tensor"]
            tensor.detach()[_first_element(tensor)] = torch.nan
            return tensor
        return func(*args, **kwargs)


def _first_element(tensor: Tensor) -> tuple[slice, ...]:
    """Index of the first element, empty for an empty tensor."""
    return (slice(1),) * tensor.dim()


def _check_weights(encoder_id: str, model: nn.Module) -> None:
    unset = [name for name, weights in model.state_dict().items() if weights[_first_element(weights)].isnan().any()]
    if unset:
        raise WeightsError(
            f"{encoder_id} has no valid values for {', '.join(unset[:3])}: the file is damaged or of another network",
            code="checkpoint_mismatch",
        )


def _is_not_about_random_weights(record: logging.LogRecord) -> bool:
    """Logging filter: open_clip warns of random weights, which are replaced at once here."""
    return "No pretrained weights" not in record.getMessage()


def _preprocessing(config: dict[str, Any]) -> Preprocessing:
    size = config["size"]
    width = size if isinstance(size, int) else size[0]
    resampling = config.get("interpolation", "bicubic")
    return Preprocessing(
        size=int(width),
        mean=tuple(float(x) for x in config["mean"]),
        std=tuple(float(x) for x in config["std"]),
        resampling=resampling if resampling in ("bicubic", "bilinear") else "bicubic",
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


def _text_tower(open_clip: Any, model: nn.Module, architecture: str) -> Callable[[Sequence[str]], Tensor]:
    """Text tower in float32 on the CPU: a query has few texts, and the image tower may be moved to another device.

    The tokenizer is loaded with the first text, so that image-only use does not need it.
    """
    state: dict[str, Any] = {}

    def embed(texts: Sequence[str]) -> Tensor:
        if "tokenizer" not in state:
            try:
                state["tokenizer"] = open_clip.get_tokenizer(architecture)
            except Exception as error:
                raise WeightsError(
                    f"cannot load the tokenizer of {architecture}: {error}", code="no_tokenizer"
                ) from error
        vectors: Tensor = model.encode_text(state["tokenizer"](list(texts)))  # type: ignore[operator]
        return vectors

    return embed
