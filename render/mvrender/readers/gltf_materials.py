"""Base colours and textures of glTF materials.

Source: glTF 2.0 specification, chapters 3.9 and 3.8.4; KHR_texture_transform, KHR_materials_pbrSpecularGlossiness,
EXT_texture_webp, MSFT_texture_dds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvrender.readers.gltf_file import GltfFile
from mvrender.readers.parts import Color, Material, Reading, srgb_of_linear
from mvrender.texture_images import Wrap

_WRAPS: dict[int, Wrap] = {10497: "repeat", 33648: "mirror", 33071: "clamp"}
_SPECULAR_GLOSSINESS = "KHR_materials_pbrSpecularGlossiness"
_SOURCES = ("EXT_texture_webp", "MSFT_texture_dds")
_BLACK = 0.01
_VISIBLE = 1 / 255


@dataclass(frozen=True)
class GltfMaterial:
    """How primitives with a material are coloured.

    Attributes:
        material: for parts.
        opaque: opacity of colours and textures has no meaning.
        uv_set: number of the texture coordinates.
        uv_matrix: (2, 3) transform of the texture coordinates, or None.
    """

    material: Material | None
    opaque: bool = True
    uv_set: int = 0
    uv_matrix: NDArray[np.float64] | None = None


class GltfMaterials:
    """The materials of a file, each made once."""

    def __init__(self, file: GltfFile, reading: Reading) -> None:
        """Of a file; notes go to `reading`."""
        self._file = file
        self._reading = reading
        self._made: dict[int, GltfMaterial] = {}

    def of(self, index: Any) -> GltfMaterial:
        """A material by its index; None is the default material."""
        if index is None:
            return GltfMaterial(None)
        if index not in self._made:
            self._made[index] = self._make(self._file.item("materials", index))
        return self._made[index]

    def _make(self, entry: dict[str, Any]) -> GltfMaterial:
        mode = entry.get("alphaMode", "OPAQUE")
        opaque = mode == "OPAQUE"
        factor, texture = _base(entry)
        try:
            image, wrap = self._image(texture)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            self._reading.note(f"a texture is damaged ({type(error).__name__}: {error}); rendered without it")
            image, wrap = None, ("repeat", "repeat")
        cutoff = _VISIBLE if mode == "BLEND" else None
        if mode == "MASK":
            opacity = 1.0 if factor is None else float(factor[3])
            cutoff = float(entry.get("alphaCutoff", 0.5)) / max(opacity, 1e-6)  # of the texture alone
            factor = None if factor is None else [*factor[:3], 1.0 if image is not None else float(cutoff <= 1)]
        color = None if factor is None else _srgb(factor, opaque)
        info = texture or {}
        transform = info.get("extensions", {}).get("KHR_texture_transform", {})
        return GltfMaterial(
            Material(color, image, mode != "BLEND", wrap, cutoff),
            opaque,
            int(transform.get("texCoord", info.get("texCoord", 0))),
            _uv_matrix(transform) if transform else None,
        )

    def _image(self, info: dict[str, Any] | None) -> tuple[Image.Image | None, tuple[Wrap, Wrap]]:
        """The image of a texture and what is beyond its edges."""
        wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")
        if info is None:
            return None, wrap
        texture = self._file.item("textures", info["index"])
        sampler = self._file.item("samplers", texture["sampler"]) if "sampler" in texture else {}
        wrap = (_WRAPS.get(sampler.get("wrapS", 10497), "repeat"), _WRAPS.get(sampler.get("wrapT", 10497), "repeat"))
        extensions = texture.get("extensions", {})
        sources = [extensions[name]["source"] for name in _SOURCES if name in extensions]
        if "source" in texture:
            sources.append(texture["source"])
        if not sources:
            kinds = ", ".join(extensions) or "nothing"
            self._reading.note(f"a texture has only {kinds} as its image, which is not read; rendered without it")
        images = (self._file.image(source) for source in sources)
        return next((image for image in images if image is not None), None), wrap


def _base(entry: dict[str, Any]) -> tuple[list[float] | None, dict[str, Any] | None]:
    """Factor (RGBA, linear; None if not stated) and texture of the base colour."""
    specular = entry.get("extensions", {}).get(_SPECULAR_GLOSSINESS)
    if specular is not None:
        return specular.get("diffuseFactor"), specular.get("diffuseTexture")
    pbr = entry.get("pbrMetallicRoughness", {})
    factor, texture = pbr.get("baseColorFactor"), pbr.get("baseColorTexture")
    glow, glow_texture = entry.get("emissiveFactor", [0, 0, 0]), entry.get("emissiveTexture")
    has_no_base = texture is None and (factor is None or max(factor[:3]) <= _BLACK)
    if has_no_base and max(glow) > _BLACK:  # what only glows has the colour of its glow
        strength = entry.get("extensions", {}).get("KHR_materials_emissive_strength", {}).get("emissiveStrength", 1.0)
        return [*(min(1.0, value * strength) for value in glow), 1.0], glow_texture
    return factor, texture


def _srgb(factor: list[float], opaque: bool) -> Color:
    """Linear RGBA as sRGB bytes, over white unless opaque."""
    linear = np.clip(np.nan_to_num(np.asarray(factor, np.float64)), 0, 1)
    rgb = 255 * srgb_of_linear(linear[:3])
    alpha = 1.0 if opaque or len(linear) < 4 else linear[3]
    r, g, b = (int(value) for value in np.rint(rgb * alpha + 255 * (1 - alpha)))
    return r, g, b


def _uv_matrix(transform: dict[str, Any]) -> NDArray[np.float64]:
    """(2, 3) matrix of KHR_texture_transform: scale, then counter-clockwise rotation (v points down), then offset."""
    angle = float(transform.get("rotation", 0))
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    scale = np.array(transform.get("scale", (1, 1)), float)
    offset = np.array(transform.get("offset", (0, 0)), float)
    return np.column_stack([turn * scale, offset])
