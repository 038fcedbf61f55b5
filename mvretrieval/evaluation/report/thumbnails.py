"""Thumbnails of objects for a page, from the strips that a collection stores."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mvrender.image_formats import open_image
from mvretrieval.session.session import Session

# A view slightly from the side and from above shows most of a shape.
_PREFERRED_AZIMUTH_DEG, _PREFERRED_ELEVATION_DEG = 30.0, 25.0


class Thumbnails:
    """Thumbnails of a collection's objects, all from the same direction."""

    def __init__(self, session: Session) -> None:
        """Choose the view nearest to the preferred direction.

        Args:
            session: open collection.
        """
        self._store = session.store
        rig = session.describer.rig
        self._n_views = rig.n_views
        azimuth, elevation = math.radians(_PREFERRED_AZIMUTH_DEG), math.radians(_PREFERRED_ELEVATION_DEG)
        horizontal = math.cos(elevation)
        preferred = np.array([horizontal * math.sin(azimuth), math.sin(elevation), horizontal * math.cos(azimuth)])
        self._view = int((rig.directions @ preferred).argmax())

    def views(self, row_id: int) -> list[Image.Image]:
        """Return all views of an object in order; none if no strip is stored."""
        strip = self._store.strip_of(row_id)
        if strip is None:
            return []
        with open_image(io.BytesIO(strip)) as opened:
            image = opened.convert("RGB")
        side = image.height
        return [image.crop((v * side, 0, (v + 1) * side, side)) for v in range(self._n_views)]

    def image(self, row_id: int) -> Image.Image | None:
        """Return the chosen view of an object, or the one of highest contrast if that is empty (a plane seen edge-on)."""
        views = self.views(row_id)
        if not views:
            return None
        if _contrast(views[self._view]) > 0:
            return views[self._view]
        return max(views, key=_contrast)

    def atlas(self, row_ids: Sequence[int], side: int) -> tuple[str | None, int]:
        """Return one image with a tile of `side` pixels per object, row by row, and the number of tiles in a row.

        One image of 2,000 tiles is smaller than 2,000 images, and browsers decode it at once. None if no object has an
        image.
        """
        columns = max(1, math.ceil(math.sqrt(len(row_ids))))
        sheet = Image.new("RGB", (columns * side, math.ceil(len(row_ids) / columns) * side), "white")
        filled = False
        for i, row_id in enumerate(row_ids):
            image = self.image(int(row_id))
            if image is not None:
                tile = image.resize((side, side), Image.Resampling.LANCZOS)
                sheet.paste(tile, (i % columns * side, i // columns * side))
                filled = True
        return (data_uri(sheet, quality=72) if filled else None), columns


def data_uri(image: Image.Image | None, quality: int = 80) -> str | None:
    """Encode an image as a data URI."""
    if image is None:
        return None
    out = io.BytesIO()
    image.save(out, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def _contrast(image: Image.Image) -> float:
    return float(np.asarray(image).std())
