"""Small pictures of objects for a page, out of the strips that a collection keeps."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from mvretrieval.api import Collection

# A little from the side and from above tells most of a shape.
_TELLING_AZIMUTH_DEG, _TELLING_ELEVATION_DEG = 30.0, 25.0


class Thumbnails:
    """Pictures of a collection's objects, all from the same side, as data addresses."""

    def __init__(self, collection: Collection) -> None:
        """Choose the view to be shown.

        Args:
            collection: open.
        """
        self._store = collection.store
        rig = collection.describer.rig
        self._n_views = rig.n_views
        azimuth, elevation = math.radians(_TELLING_AZIMUTH_DEG), math.radians(_TELLING_ELEVATION_DEG)
        flat = math.cos(elevation)
        wanted = np.array([flat * math.sin(azimuth), math.sin(elevation), flat * math.cos(azimuth)])
        self._view = int((rig.directions @ wanted).argmax())

    def views(self, row_id: int) -> list[Image.Image]:
        """All views of an object in order; none where no strip was kept."""
        strip = self._store.strip_of(row_id)
        if strip is None:
            return []
        with Image.open(io.BytesIO(strip)) as opened:
            picture = opened.convert("RGB")
        side = picture.height
        return [picture.crop((v * side, 0, (v + 1) * side, side)) for v in range(self._n_views)]

    def picture(self, row_id: int) -> Image.Image | None:
        """The telling view of an object, or the busiest one where that is empty (a plane looked at edge-on)."""
        views = self.views(row_id)
        if not views:
            return None
        if _contrast(views[self._view]) > 0:
            return views[self._view]
        return max(views, key=_contrast)

    def atlas(self, row_ids: Sequence[int], side: int) -> tuple[str | None, int]:
        """One picture with a tile of `side` pixels for each object, row by row, and the number of tiles in a row.

        One picture of 2,000 tiles is smaller than 2,000 pictures, and browsers open it at once. None where no object
        has a picture.
        """
        columns = max(1, math.ceil(math.sqrt(len(row_ids))))
        sheet = Image.new("RGB", (columns * side, math.ceil(len(row_ids) / columns) * side), "white")
        filled = False
        for i, row_id in enumerate(row_ids):
            picture = self.picture(int(row_id))
            if picture is not None:
                tile = picture.resize((side, side), Image.Resampling.LANCZOS)
                sheet.paste(tile, (i % columns * side, i // columns * side))
                filled = True
        return (address(sheet, quality=72) if filled else None), columns


def address(picture: Image.Image | None, quality: int = 80) -> str | None:
    """A picture as a data address."""
    if picture is None:
        return None
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def _contrast(picture: Image.Image) -> float:
    return float(np.asarray(picture).std())
