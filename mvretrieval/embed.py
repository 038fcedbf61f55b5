"""From rendered views to vectors: one function for indexing, re-embedding and querying."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvrender.renderer import Views
from mvretrieval.describe import Describer


@dataclass(frozen=True)
class Embedded:
    """Vectors of B objects.

    Attributes:
        raw: (B, S, V, D) float16 raw view vectors, as they are stored.
        masks: (B, V) False where a view shows nothing.
        vectors: (B, S * K) float32 object vectors, unit norm.
    """

    raw: NDArray[np.float16]
    masks: NDArray[np.bool_]
    vectors: NDArray[np.float32]


def embed(describer: Describer, views: Sequence[Views]) -> Embedded:
    """Encode and pool the views of objects.

    Raw view vectors are rounded to float16 before they are pooled, so that pooling the stored ones later gives the same vectors.

    Args:
        describer: of the collection.
        views: of B objects, B at least 1, rendered with the describer's rig, styles and size.

    Raises:
        EncoderError: the encoder cannot be opened.
    """
    images = np.stack([one.images for one in views])
    masks = np.stack([one.mask for one in views])
    b, s, v = images.shape[:3]
    raw = describer.encode(images.reshape(b * s, v, *images.shape[3:])).reshape(b, s, v, -1).astype(np.float16)
    vectors, _ = describer.pool(raw.astype(np.float32), masks)
    return Embedded(raw, masks, vectors)
