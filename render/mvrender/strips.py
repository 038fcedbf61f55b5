"""Thumbnail strips: one small image per view, side by side, stored with an object for display."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvrender.renderer import Views

_MAX_WEBP_SIDE = 16383


def thumbnail_strip(views: Views, size: int) -> bytes:
    """Encode all views of the first style side by side as WebP, `size` pixels per view; less where WebP's limit requires it."""
    size = min(size, _MAX_WEBP_SIDE // len(views.images[0]))
    thumbnails = [
        Image.fromarray(image).resize((size, size), Image.Resampling.BOX, reducing_gap=1.0) for image in views.images[0]
    ]
    row: NDArray[np.uint8] = np.concatenate([np.asarray(thumbnail) for thumbnail in thumbnails], axis=1)
    out = io.BytesIO()
    Image.fromarray(row).save(out, "WEBP", quality=75, method=0)
    return out.getvalue()
