"""A strip of small pictures, one a view, kept beside an object to be shown to people."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvrender.renderer import Views

_MAX_WEBP_SIDE = 16383


def strip_of(views: Views, size: int) -> bytes:
    """All views of the first style side by side, as a WebP of `size` pixels a view; fewer where it would get too wide."""
    size = min(size, _MAX_WEBP_SIDE // len(views.images[0]))
    pictures = [
        Image.fromarray(image).resize((size, size), Image.Resampling.BOX, reducing_gap=1.0) for image in views.images[0]
    ]
    row: NDArray[np.uint8] = np.concatenate([np.asarray(picture) for picture in pictures], axis=1)
    out = io.BytesIO()
    Image.fromarray(row).save(out, "WEBP", quality=75, method=0)
    return out.getvalue()
