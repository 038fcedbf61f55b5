"""The image formats that are opened at all, for textures, queries, given views and uploads."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from PIL import Image

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "TGA", "DDS", "PPM")
"""Pillow opens forty more, some with little-tested decoders. For PostScript it starts Ghostscript, which runs the file."""


def open_image(source: Path | BinaryIO) -> Image.Image:
    """Open an image without decoding it. The only place that calls Pillow's `Image.open`.

    Raises:
        OSError: it cannot be read, or has none of `IMAGE_FORMATS`.
        ValueError, SyntaxError, Image.DecompressionBombError: it is damaged, or too large.
    """
    return Image.open(source, formats=IMAGE_FORMATS)
