"""Query images for the encoder: one object on a white background, filling a square like a render."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvrender.image_formats import small_rgba
from mvretrieval.errors import QueryError

Background = Literal["auto", "keep"]

Decode = Callable[[Path, int], NDArray[np.uint8]]
"""Path and longest side to the pixels (h, w, 4) of an image, as `small_rgba`."""

# Border pixels that differ by at most this (of 255) are one plain background.
_PLAIN_TOLERANCE = 24.0
# Renders have a margin around the object; cropped photos get about the same.
_MARGIN = 0.08


def load_image(
    path: Path, size: int, background: Background = "auto", decode: Decode = small_rgba
) -> NDArray[np.uint8]:
    """Read one image as (size, size, 3) uint8.

    Args:
        path: one of `IMAGE_FORMATS`; the EXIF orientation is applied.
        size: of the result.
        background: `auto` puts transparent images on white. If the border has one plain colour, that becomes white and the image is
            cropped to the rest; an image with another background is not cropped. `keep` only resizes.
        decode: reads the file; a service does that in a worker process.

    Raises:
        QueryError: the file is missing (code `missing_file`), too large (`too_many_pixels`) or not an image
            (`unknown_image_format`).
    """
    try:
        rgba = np.asarray(decode(path, 4 * size), np.float32)
    except FileNotFoundError:
        raise QueryError(f"there is no image {path}: check the path", code="missing_file") from None
    except Image.DecompressionBombError as error:
        raise QueryError(
            f"{path} is too large ({error}): scale it down to 150 megapixels or fewer", code="too_many_pixels"
        ) from None
    except (OSError, ValueError, SyntaxError) as error:
        raise QueryError(
            f"{path} is not a readable image ({error}): give a PNG, JPEG or WebP", code="unknown_image_format"
        ) from error
    rgb = over_white(rgba)
    if background == "auto":
        rgb = _crop_plain_background(rgb)
    return _square(rgb, size)


def over_white(rgba: NDArray[np.float32]) -> NDArray[np.float32]:
    """Composite (H, W, 4) over white to (H, W, 3)."""
    alpha = rgba[..., 3:] / 255
    return np.asarray(rgba[..., :3] * alpha + 255 * (1 - alpha), np.float32)


def _crop_plain_background(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace a plain background by white and crop to the object; return other images unchanged."""
    border = np.concatenate([rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]])
    colour = np.median(border, axis=0)
    if np.percentile(np.abs(border - colour).max(axis=1), 90) > _PLAIN_TOLERANCE:
        return rgb
    difference = np.abs(rgb - colour).max(axis=2)
    kept = difference > _PLAIN_TOLERANCE
    if not kept.any():
        return rgb
    rows, columns = np.flatnonzero(kept.any(axis=1)), np.flatnonzero(kept.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    # Pixels close to the background fade to white, so that no rim is left.
    opacity = np.clip(difference[box] / _PLAIN_TOLERANCE, 0, 1)[..., None]
    return np.asarray(rgb[box] * opacity + 255 * (1 - opacity), np.float32)


def _square(rgb: NDArray[np.float32], size: int) -> NDArray[np.uint8]:
    """Pad with white to a square with a margin, and resize."""
    image = Image.fromarray(np.rint(rgb).clip(0, 255).astype(np.uint8))
    side = max(1, round(max(image.size) * (1 + 2 * _MARGIN)))
    canvas = Image.new("RGB", (side, side), (255, 255, 255))
    canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(canvas.resize((size, size), Image.Resampling.BICUBIC))
