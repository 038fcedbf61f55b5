"""A view encoder without a network: the pixels of a small grey image, as a unit vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvretrieval.encoders.encoder import Precision, PrecisionChoice, ViewEncoder, no_text_error


class ThumbnailEncoder:
    """`thumbnail:SIDE`, with SIDE x SIDE dimensions."""

    image_size = 224
    batch_size = 256
    precision: Precision = "float32"
    precision_reason = "no neural network"
    has_text = False
    temperature = None
    cross_view = 0

    def __init__(self, side: int) -> None:
        self.side = side
        self.id = f"thumbnail:{side}"
        self.dim = side * side
        self.fingerprint = f"thumbnail-1 {side}"  # increase the number when the vectors change

    def encode_views(self, images: NDArray[np.uint8], groups: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Embed images (N, H, W, 3) as (N, D), unit norm."""
        size = (self.side, self.side)
        grey = [np.asarray(Image.fromarray(image).convert("L").resize(size, Image.Resampling.BOX)) for image in images]
        # White, the background, becomes zero; a small constant keeps a white image from having no direction.
        vectors = 1.0 + 255.0 - np.stack(grey).reshape(len(images), -1).astype(np.float32)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """There is no text tower."""
        raise no_text_error(self.id)


def open_thumbnail(rest: str, device: str, precision: PrecisionChoice) -> ViewEncoder:
    """Entry point: `rest` is the text after the colon."""
    return ThumbnailEncoder(int(rest or 16))
