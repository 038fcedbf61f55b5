"""Thumbnails of views, from the strips in the store."""

from __future__ import annotations

import base64
import io

from PIL import Image

from mvrender.image_formats import open_image
from mvretrieval.session.session import Session


def view_thumbnail(session: Session, row_id: int, view: int) -> Image.Image | None:
    """Thumbnail of one view of an object."""
    strip = session.store.strip_of(row_id)
    if strip is None:
        return None
    with open_image(io.BytesIO(strip)) as opened:
        image = opened.convert("RGB")
    side = image.height
    return image.crop((view * side, 0, (view + 1) * side, side))


def data_url(image: Image.Image) -> str:
    """An image as a data URL, WebP."""
    out = io.BytesIO()
    image.save(out, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
