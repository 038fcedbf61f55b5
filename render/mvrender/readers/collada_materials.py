"""Diffuse colours and textures of COLLADA materials.

Source: COLLADA 1.4.1 specification, chapter 8 (FX).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from mvrender.readers.collada_file import ColladaFile, Element
from mvrender.readers.parts import Color, Material, Reading
from mvrender.texture_images import Wrap

_SHADERS = ("phong", "lambert", "blinn", "constant")
_WRAPS: dict[str, Wrap] = {"WRAP": "repeat", "MIRROR": "mirror", "CLAMP": "clamp", "BORDER": "clamp", "NONE": "clamp"}


class ColladaMaterials:
    """The materials of a file, each made once."""

    def __init__(self, file: ColladaFile, reading: Reading) -> None:
        """Of a file; notes go to `reading`."""
        self._file = file
        self._reading = reading
        self._made: dict[str, tuple[Material, str | None]] = {}

    def of(self, url: str | None) -> tuple[Material | None, str | None]:
        """A material, and the name of its texture coordinates. What is not there has no colour."""
        if not url:
            return None, None
        if url not in self._made:
            material = self._file.target(url)
            link = None if material is None else material.find("instance_effect")
            effect = None if link is None else self._file.target(link.get("url"))
            if effect is None:
                self._reading.note(f"the material '{url.lstrip('#')}' is missing; rendered without it")
                return None, None
            self._made[url] = self._make(effect)
        return self._made[url]

    def _make(self, effect: Element) -> tuple[Material, str | None]:
        profile = effect.find("profile_COMMON")
        technique = None if profile is None else profile.find("technique")
        shader = None if technique is None else next((child for child in technique if child.tag in _SHADERS), None)
        if shader is None:
            return Material(), None
        base = shader.find("emission" if shader.tag == "constant" else "diffuse")
        if base is None:
            return Material(), None
        color, texture = base.find("color"), base.find("texture")
        if texture is not None:
            image, wrap = self._image(profile, effect, texture.get("texture", ""))
            return Material(None, image, wrap=wrap), texture.get("texcoord")
        return Material(None if color is None else _color(self._file.floats(color.text))), None

    def _image(self, profile: Element, effect: Element, name: str) -> tuple[Image.Image | None, tuple[Wrap, Wrap]]:
        """The image behind a sampler, a surface or directly an image, and what is beyond its edges."""
        wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")
        parameters = {p.get("sid"): p for p in (*effect.findall("newparam"), *profile.iter("newparam"))}
        for _ in range(4):  # sampler, surface, image
            sampler = _child(parameters.get(name), "sampler2D")
            surface = _child(parameters.get(name), "surface")
            if sampler is not None:
                wrap = _wrap(sampler.findtext("wrap_s")), _wrap(sampler.findtext("wrap_t"))
                inner = sampler.find("instance_image")
                name = (
                    (inner.get("url", "") if inner is not None else sampler.findtext("source") or "")
                    .strip()
                    .lstrip("#")
                )
            elif surface is not None:
                name = (surface.findtext("init_from") or "").strip()
            else:
                break
        entry = self._file.target(name)
        start = None if entry is None else entry.find("init_from")
        if start is None:
            self._reading.note(f"the image '{name}' is missing; rendered without it")
            return None, wrap
        path = (start.findtext("ref") or start.text or "").strip()
        return self._reading.references.image(path), wrap


def _child(element: Any, tag: str) -> Any:
    return None if element is None else element.find(tag)


def _wrap(text: str | None) -> Wrap:
    return _WRAPS.get((text or "WRAP").strip(), "repeat")


def _color(numbers: Any) -> Color:
    r, g, b = (int(value) for value in np.rint(255 * np.nan_to_num(numbers[:3]).clip(0, 1)))
    return r, g, b
