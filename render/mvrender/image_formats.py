"""The image formats that are opened at all, for textures, queries, given views and uploads."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "TGA", "DDS", "PPM")
"""Pillow opens forty more, some with little-tested decoders. For PostScript it starts Ghostscript, which runs the file."""
MAX_PIXELS = 150_000_000
"""Of an image that is decoded for a query."""


def open_image(source: Path | BinaryIO) -> Image.Image:
    """Open an image without decoding it. The only place that calls Pillow's `Image.open`.

    Raises:
        OSError: it cannot be read, or has none of `IMAGE_FORMATS`.
        ValueError, SyntaxError, Image.DecompressionBombError: it is damaged, or too large.
    """
    return Image.open(source, formats=IMAGE_FORMATS)


def to_8_bit(image: Image.Image) -> Image.Image:
    """Scale grey values of 16 or 32 bits to 8: Pillow would clip all but the darkest 1/256 to white."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image, np.float32)
    top = float(values.max(initial=0))
    full = next((full for full in (1, 255, 65535) if top <= full), top) if image.mode == "F" else max(65535.0, top)
    return Image.fromarray((values * (255 / full)).clip(0, 255).astype(np.uint8))


def small_rgba(path: Path, side: int) -> NDArray[np.uint8]:
    """Pixels (h, w, 4) of an image, upright and at most `side` wide and high.

    Raises:
        OSError, ValueError, SyntaxError, Image.DecompressionBombError: as `open_image`, or more than `MAX_PIXELS`.
    """
    with open_image(path) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise Image.DecompressionBombError(f"{opened.width} x {opened.height} pixels")
        opened.draft("RGB", (side, side))
        image = to_8_bit(ImageOps.exif_transpose(opened))
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
        return np.asarray(image.convert("RGBA"))
