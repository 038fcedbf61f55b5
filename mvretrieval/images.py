"""Photos, renders and drawings as an encoder wants them: one object, on white, filling a square as renders do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mvretrieval.errors import QueryError

Background = Literal["auto", "keep"]

MAX_PIXELS = 150_000_000
# How much border pixels may differ (of 255) and still be one plain background.
_PLAIN = 24.0
# Renders leave some air around the object; a cropped photo gets about as much.
_MARGIN = 0.08


def load_image(path: Path, size: int, background: Background = "auto") -> NDArray[np.uint8]:
    """One picture as (size, size, 3) uint8.

    Args:
        path: any format that Pillow reads; the camera's orientation is honoured.
        size: of the result.
        background: `auto` puts transparent pictures on white, and where the border is one plain colour, makes that
            white and crops to what is left; a picture with a busy background is kept whole. `keep` only resizes.

    Raises:
        QueryError: the file is missing or not a picture.
    """
    try:
        with Image.open(path) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{opened.width} x {opened.height} pixels")
            opened.draft("RGB", (4 * size, 4 * size))
            picture = eight_bit(ImageOps.exif_transpose(opened))
            picture.thumbnail((4 * size, 4 * size), Image.Resampling.LANCZOS, reducing_gap=3.0)
            rgba = np.asarray(picture.convert("RGBA"), np.float32)
    except FileNotFoundError:
        raise QueryError(f"no picture at {path}", code="missing_file") from None
    except Image.DecompressionBombError as error:
        raise QueryError(
            f"{path} is too large ({error}); scale it down to 150 megapixels or less", code="too_many_pixels"
        ) from None
    except (OSError, ValueError, SyntaxError) as error:
        raise QueryError(
            f"{path} is no readable picture ({error}); PNG, JPEG and WebP are", code="unknown_image_format"
        ) from error
    rgb = over_white(rgba)
    if background == "auto":
        rgb = _on_white(rgb)
    return _square(rgb, size)


def eight_bit(picture: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits scaled to 8: Pillow would clip all but the darkest 1/256 to white."""
    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture, np.float32)
    top = float(values.max(initial=0))
    full = next((full for full in (1, 255, 65535) if top <= full), top) if picture.mode == "F" else max(65535.0, top)
    return Image.fromarray((values * (255 / full)).clip(0, 255).astype(np.uint8))


def over_white(rgba: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W, 3) of (H, W, 4): what is transparent shows a white ground."""
    alpha = rgba[..., 3:] / 255
    return np.asarray(rgba[..., :3] * alpha + 255 * (1 - alpha), np.float32)


def _on_white(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """The object on white and cropped, where the background is plain; otherwise the picture as it is."""
    border = np.concatenate([rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]])
    colour = np.median(border, axis=0)
    if np.percentile(np.abs(border - colour).max(axis=1), 90) > _PLAIN:
        return rgb
    difference = np.abs(rgb - colour).max(axis=2)
    kept = difference > _PLAIN
    if not kept.any():
        return rgb
    rows, columns = np.flatnonzero(kept.any(axis=1)), np.flatnonzero(kept.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    # What differs little from the background fades to white, so that no rim stays.
    share = np.clip(difference[box] / _PLAIN, 0, 1)[..., None]
    return np.asarray(rgb[box] * share + 255 * (1 - share), np.float32)


def _square(rgb: NDArray[np.float32], size: int) -> NDArray[np.uint8]:
    """Padded with white to a square with a margin, and resized."""
    picture = Image.fromarray(np.rint(rgb).clip(0, 255).astype(np.uint8))
    side = max(1, round(max(picture.size) * (1 + 2 * _MARGIN)))
    canvas = Image.new("RGB", (side, side), (255, 255, 255))
    canvas.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return np.asarray(canvas.resize((size, size), Image.Resampling.BICUBIC))
