"""Encoder ids, the recommended encoders, and opening an encoder by id."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mvrender import plugins
from mvretrieval.encoders.encoder import PrecisionChoice, ViewEncoder
from mvretrieval.encoders.imported import MAX_DIM, ImportedVectors
from mvretrieval.errors import EncoderError, WeightsError, did_you_mean

if TYPE_CHECKING:
    from mvretrieval.encoders.tuned import TunedConfig

OBJECT = "object"
"""Family of encoders that were given as objects, and cannot be opened by their id."""

DEFAULT_ENCODER = "open_clip:ViT-B-32/laion2b_s34b_b79k"
_FAMILIES = ("open_clip", "hf-hub", "image_only", "builtin", "tuned", "vectors", OBJECT)


@dataclass(frozen=True)
class EncoderRecord:
    """A recommended encoder.

    Attributes:
        id: value for `--encoder`.
        role: short description for tables.
        parameters_m: millions of parameters of the image tower.
        image_size: pixels.
        dim: length of its vectors.
        text: whether it has a text tower.
        license: license of the weights.
        trained_on: training data.
    """

    id: str
    role: str
    parameters_m: float
    image_size: int
    dim: int
    text: bool
    license: str
    trained_on: str


ENCODERS: tuple[EncoderRecord, ...] = (
    EncoderRecord("builtin:", "no weights, works offline", 0, 224, 1024, False, "Apache-2.0", "nothing"),
    EncoderRecord(
        "open_clip:MobileCLIP-S1/datacompdr", "small", 21.5, 256, 512, True, "Apple ML research", "DataCompDR-1B"
    ),
    EncoderRecord(DEFAULT_ENCODER, "default", 87.8, 224, 512, True, "MIT", "LAION-2B (English)"),
    EncoderRecord(
        "open_clip:ViT-L-14/laion2b_s32b_b82k", "best CLIP", 304, 224, 768, True, "MIT", "LAION-2B (English)"
    ),
    EncoderRecord("open_clip:ViT-B-16-SigLIP2/webli", "SigLIP", 92.9, 224, 768, True, "Apache-2.0", "WebLI"),
    EncoderRecord(
        "image_only:vit_base_patch14_dinov2.lvd142m", "DINOv2", 86.6, 518, 768, False, "Apache-2.0", "LVD-142M"
    ),
    EncoderRecord(
        "image_only:vit_large_patch16_dinov3.lvd1689m", "DINOv3", 303, 256, 1024, False, "DINOv3 License", "LVD-1689M"
    ),
    EncoderRecord(
        "image_only:mobilenet_v2@FILE", "local weights", 2.2, 224, 1280, False, "of the file", "usually ImageNet-1k"
    ),
)


@dataclass(frozen=True)
class EncoderName:
    """A parsed encoder id.

    Attributes:
        family: before the colon; one of ours, or the name of a plug-in.
        architecture: model name; of a plug-in, all that follows the colon.
        tag: of open_clip's weights.
        file: of the weights, or the folder of a tuned encoder.
    """

    family: str
    architecture: str
    tag: str | None
    file: Path | None


def parse_encoder(text: str) -> EncoderName:
    """Parse an encoder id.

    The forms are `open_clip:A/TAG`, `open_clip:A@FILE`, `hf-hub:ORG/NAME`, `image_only:A@FILE`, `builtin:`, `tuned:FOLDER`,
    `NAME:...` of a plug-in, and `vectors:D` for vectors of D numbers that were computed elsewhere (see `encoders.imported`).

    Raises:
        EncoderError: the id has none of these forms.
    """
    family, colon, rest = text.partition(":")
    if colon and (family == OBJECT or (family not in _FAMILIES and plugins.find("encoders", family) is not None)):
        return EncoderName(family, rest, None, None)
    forms = (
        "open_clip:MODEL/TAG, open_clip:MODEL@FILE, hf-hub:ORG/NAME, image_only:MODEL, image_only:MODEL@FILE, builtin:, "
        "tuned:FOLDER"
    )
    if not colon or family not in _FAMILIES:
        raise EncoderError(
            f"unknown encoder '{text}': {did_you_mean(family, [*_FAMILIES, *plugins.names('encoders')])}choose one of {forms}; or "
            f"install the package whose plug-in '{family}' is",
            code="unknown_encoder",
        )
    if family == "builtin":
        if rest:
            raise EncoderError(
                f"'{text}' is not an encoder id: nothing follows the colon of 'builtin:'", code="bad_encoder_id"
            )
        return EncoderName("builtin", "", None, None)
    if family == "tuned":
        if not rest:
            raise EncoderError(
                "'tuned:' needs a folder: give the output of 'mvr tune', as tuned:FOLDER", code="bad_encoder_id"
            )
        return EncoderName("tuned", "", None, Path(rest).expanduser())
    if family == "hf-hub":
        return EncoderName("hf-hub", rest, None, None)
    if family == "vectors":
        if not re.fullmatch("[1-9][0-9]{0,5}", rest) or int(rest) > MAX_DIM:
            raise EncoderError(
                f"'{text}' is not an encoder id: 'vectors:' is followed by the length of the vectors, 1 to {MAX_DIM}",
                code="bad_encoder_id",
            )
        return EncoderName("vectors", rest, None, None)
    name, at, file = rest.partition("@")
    path = Path(file).expanduser() if at else None
    if family == "image_only":
        return EncoderName("image_only", name, None, path)
    architecture, slash, tag = name.partition("/")
    if path is None and not slash:
        raise EncoderError(
            f"'{text}' has neither a tag nor a file: give one, as in open_clip:ViT-B-32/laion2b_s34b_b79k or "
            "open_clip:ViT-B-32@FILE",
            code="bad_encoder_id",
        )
    return EncoderName("open_clip", architecture, tag or None, path)


def absolute_encoder(text: str) -> str:
    """Make the path in an encoder id absolute, if there is one. Ids of plug-ins stay as they are.

    Raises:
        EncoderError: the id cannot be parsed.
    """
    if text.partition(":")[0] not in _FAMILIES:  # its package need not be installed to look at a collection
        return text
    name = parse_encoder(text)
    if name.file is None:
        return text
    if name.family == "tuned":
        return f"tuned:{name.file.absolute()}"
    return f"{text.partition('@')[0]}@{name.file.absolute()}"


def is_plugin(text: str) -> bool:
    """Whether an encoder id is of a plug-in or of an encoder that was given as an object."""
    family = parse_encoder(text).family
    return family == OBJECT or family not in _FAMILIES


def object_id(encoder: ViewEncoder) -> str:
    """The id by which a collection names an encoder object: its own if that opens it again, else with `object:` before it."""
    try:
        parse_encoder(encoder.id)
    except EncoderError:
        return f"{OBJECT}:{encoder.id}"
    return encoder.id


def public_encoder(text: str) -> str:
    """Remove the folders from the path in an encoder id. They are private to the user."""
    if text.startswith("tuned:"):
        return f"tuned:{Path(text.removeprefix('tuned:')).name}"
    family, at, path = text.partition("@")
    return f"{family}@{Path(path).name}" if at else text


def open_encoder(text: str, device: str = "auto", precision: PrecisionChoice = "auto") -> ViewEncoder:
    """Open an encoder by its id.

    Args:
        text: see `parse_encoder`.
        device: `auto` uses a GPU if there is one.
        precision: `auto` uses bfloat16 if the hardware supports it.

    Raises:
        EncoderError: the id cannot be parsed, or names an unknown model or device.
        WeightsError: the weights cannot be loaded; the message names the alternatives.
    """
    name = parse_encoder(text)
    if name.family == OBJECT:
        raise EncoderError(
            f"encoder '{name.architecture}' was given as an object: give it again, as in Collection.open(folder, encoder=...)",
            code="encoder_object_needed",
        )
    if name.family not in _FAMILIES:
        from mvretrieval.encoders.plugin import open_plugin

        return open_plugin(name.family, name.architecture, device, precision)
    if name.family == "builtin":
        from mvretrieval.encoders.builtin import BuiltinEncoder
        from mvretrieval.encoders.device import parse_device

        if device != "auto":
            parse_device(device)  # refuses unknown names; this encoder runs on the CPU
        return BuiltinEncoder()
    if name.family == "vectors":
        return ImportedVectors(int(name.architecture))
    if name.family == "tuned":
        from mvretrieval.encoders.tuned import open_tuned

        assert name.file is not None
        return open_tuned(name.file.resolve(), device, precision)
    if name.family == "image_only":
        from mvretrieval.encoders.image_only import open_image_only

        return open_image_only(name.architecture, name.file and name.file.resolve(), device, precision)
    from mvretrieval.encoders.open_clip import open_clip_encoder

    architecture = f"hf-hub:{name.architecture}" if name.family == "hf-hub" else name.architecture
    return open_clip_encoder(architecture, name.tag, name.file and name.file.resolve(), device, precision)


def tuning_of(encoder: str) -> TunedConfig | None:
    """Read the tuning record of an encoder by id, without opening it; None if it is not tuned or its folder is missing."""
    if not encoder.startswith("tuned:"):
        return None
    from mvretrieval.encoders.tuned import read_config  # loads torch

    try:
        return read_config(Path(encoder.removeprefix("tuned:")).expanduser())
    except WeightsError:
        return None
