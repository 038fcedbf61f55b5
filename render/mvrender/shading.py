"""Shading constants of the styles, shared by `backends/raster.py` and the GL shaders.

Shading is computed in the camera's frame: an image depends only on the pose of the object relative to the camera. Both sides of
a face are lit: meshes from the web have mixed winding, and one-sided light would turn half of a car black.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from mvrender.errors import RigError

VIEWS_VERSION = 2
"""Part of every fingerprint. Increase it when rendered images change: by a change here, in the GL shaders, in
`mesh.normalize`, in the readers or `assemble` (colours, textures) or in the sampling of a backend."""

Style = Literal["texture", "clay", "depth", "normal", "silhouette"]
STYLES: tuple[Style, ...] = get_args(Style)

BACKGROUND = 255
CLAY = np.array([178, 178, 178], np.float32)

AMBIENT = 0.35
# Direction to each light in the camera's frame, and its strength: a key light from above left, a fill light from the right.
LIGHTS: tuple[tuple[tuple[float, float, float], float], ...] = (
    ((-0.40, 0.60, 0.69), 0.65),
    ((0.70, 0.10, 0.71), 0.25),
)

# Light above the knee is compressed below white, so that a white object differs from the white background.
KNEE, BRIGHTEST = 215.0, 245.0
TO_LIGHTS = np.array([np.array(towards) / np.linalg.norm(towards) for towards, _ in LIGHTS], np.float32)
STRENGTHS = np.array([strength for _, strength in LIGHTS], np.float32)
_FULL_LIGHT = AMBIENT + float(STRENGTHS.sum())
KNEE_SLOPE = (BRIGHTEST - KNEE) / (255 * _FULL_LIGHT - KNEE)

DEPTH_NEAR, DEPTH_FAR = 0.0, 0.85
"""Grey of the nearest and the farthest point of the unit sphere in the depth style, on a white background."""

SILHOUETTE = 0.0


def check_style(text: str) -> Style:
    """Return the style of a name.

    Raises:
        RigError: the style is unknown.
    """
    for style in STYLES:
        if style == text:
            return style
    raise RigError(f"unknown style '{text}': choose one of {', '.join(STYLES)}", code="unknown_style")


def parse_styles(text: str) -> tuple[Style, ...]:
    """Parse comma-separated names of styles.

    Raises:
        RigError: a style is unknown.
    """
    return tuple(check_style(name.strip()) for name in text.split(","))
