"""GLSL of the OpenGL backends: the files in `shaders/`, with the style and the constants of `shading` as definitions."""

from __future__ import annotations

import math
from pathlib import Path

from mvrender.cameras import Rig
from mvrender.shading import (
    AMBIENT,
    CLAY,
    DEPTH_FAR,
    DEPTH_NEAR,
    KNEE,
    KNEE_SLOPE,
    SILHOUETTE,
    STRENGTHS,
    TO_LIGHTS,
    Style,
)

_SHADERS = Path(__file__).parent / "shaders"
SHIFTS = (-1 / 16, 1 / 16)
"""Each image is rendered twice, shifted by 1/16 pixel to either side along the diagonal, and averaged. All drivers have the same
four samples, which become the eight samples of `triangles`, no two in one column or row."""

# Shading rate: per sample, or once per pixel and face.
_AT: dict[Style, str] = {"texture": "sample", "depth": "sample", "clay": "", "normal": "", "silhouette": ""}
# Margin between the unit sphere and the clipping planes.
_CLIP_MARGIN = 0.02


def shader_sources(style: Style, colored: bool, textured: bool) -> tuple[str, str]:
    """Vertex and fragment shader of a style, for faces with or without vertex colours and a texture.

    Styles without colour use a texture for its holes only.
    """
    names = {f"MVR_STYLE_{style.upper()}": "1", "MVR_AT": "sample" if textured else _AT[style], **_constants()}
    names |= {name: "1" for name, used in (("MVR_COLORED", colored), ("MVR_TEXTURED", textured)) if used}
    head = "\n".join(["#version 400 core", *(f"#define {name} {text}" for name, text in names.items()), ""])
    vertex, fragment = (head + (_SHADERS / f"mesh.{kind}").read_text("utf-8") for kind in ("vert", "frag"))
    return vertex, fragment


def clipping_planes(rig: Rig) -> tuple[float, float]:
    """Distances of the near and the far clipping plane."""
    return rig.distance - 1 - _CLIP_MARGIN, rig.distance + 1 + _CLIP_MARGIN


def uniform_values(rig: Rig, size: int, shift: float) -> dict[str, float | tuple[float, ...]]:
    """Values of the uniforms that do not change within an image.

    Args:
        rig: cameras.
        size: width and height in pixels.
        shift: of the image along the diagonal, in pixels.
    """
    tan_half_fov = math.tan(math.radians(rig.fov_y_deg) / 2)
    near, far = clipping_planes(rig)
    return {
        "zoom": 1 / tan_half_fov,
        "clip": ((near + far) / (near - far), 2 * near * far / (near - far)),
        "shift": 2 * shift / size,
        "depth_range": (rig.distance - 1, rig.distance + 1),
        "pixel_at_unit_depth": 2 * tan_half_fov / size,
    }


def _constants() -> dict[str, str]:
    """GLSL text of each MVR_ constant in the shaders, from `shading`."""
    lights = [_vector(*towards, strength) for towards, strength in zip(TO_LIGHTS, STRENGTHS, strict=True)]
    return {
        "MVR_AMBIENT": _number(AMBIENT),
        "MVR_LIGHTS": ", ".join(lights),
        "MVR_KNEE_AT": _number(KNEE / 255),
        "MVR_KNEE_SLOPE": _number(KNEE_SLOPE),
        "MVR_CLAY": _vector(*CLAY / 255),
        "MVR_GREY_NEAR": _number(DEPTH_NEAR),
        "MVR_GREY_FAR": _number(DEPTH_FAR),
        "MVR_SILHOUETTE_GREY": _number(SILHOUETTE),
    }


def _number(value: float) -> str:
    """GLSL text of a float: nine digits cover the precision of float32, and the decimal point makes it a float in GLSL."""
    return f"{float(value):.9f}"


def _vector(*values: float) -> str:
    return f"vec{len(values)}({', '.join(map(_number, values))})"
