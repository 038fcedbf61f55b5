"""What a surface point looks like in each style, in numbers; `backends/raster.py` and the GL shader draw by them.

Everything happens in the camera's frame, so the picture depends on how the object is turned towards the camera and on
nothing else. Light reaches both sides of a face: meshes from the web have mixed winding, and one-sided light
turns half of a car black.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from mvrender.errors import RigError

VIEWS_VERSION = 2
"""Part of every fingerprint: raise it when pictures change, by a change here, in the GL shader, in `mesh.normalize`, in
`flatten` (colours, textures) or in how a backend samples."""

Style = Literal["texture", "clay", "depth", "normal", "silhouette"]
STYLES: tuple[Style, ...] = get_args(Style)

BACKGROUND = 255
CLAY = np.array([178, 178, 178], np.float32)

AMBIENT = 0.35
# Direction to each light in the camera's frame, and its strength: a key from above left, a fill from the right.
LIGHTS: tuple[tuple[tuple[float, float, float], float], ...] = (
    ((-0.40, 0.60, 0.69), 0.65),
    ((0.70, 0.10, 0.71), 0.25),
)

# Light beyond the knee is squeezed below white, so that a white object stands out from the white ground.
KNEE, BRIGHTEST = 215.0, 245.0
TO_LIGHTS = np.array([np.array(towards) / np.linalg.norm(towards) for towards, _ in LIGHTS], np.float32)
STRENGTHS = np.array([strength for _, strength in LIGHTS], np.float32)
_FULL_LIGHT = AMBIENT + float(STRENGTHS.sum())
KNEE_SLOPE = (BRIGHTEST - KNEE) / (255 * _FULL_LIGHT - KNEE)

DEPTH_NEAR, DEPTH_FAR = 0.0, 0.85
"""Grey of the nearest and the farthest point of the unit sphere in the depth style, on a white ground."""

SILHOUETTE = 0.0


def check_style(text: str) -> Style:
    """The style of that name.

    Raises:
        RigError: there is none.
    """
    for style in STYLES:
        if style == text:
            return style
    raise RigError(f"unknown style '{text}': known are {', '.join(STYLES)}")


def parse_styles(text: str) -> tuple[Style, ...]:
    """Styles from names with commas between them.

    Raises:
        RigError: there is no style of one of the names.
    """
    return tuple(check_style(name.strip()) for name in text.split(","))
