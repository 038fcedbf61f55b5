"""The interface of all view encoders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import NoTextError

Precision = Literal["float32", "bfloat16"]
PrecisionChoice = Literal["auto", "float32", "bfloat16"]


class ViewEncoder(Protocol):
    """Embeds images, and with a text tower also text, as unit vectors.

    Attributes:
        id: text that opens this encoder again (see `registry.open_encoder`).
        dim: length D of a vector.
        image_size: width and height in pixels of the images that the network takes; others are resized.
        batch_size: number of images that are encoded efficiently in one call.
        fingerprint: changes with the weights and the preprocessing. It does not contain the precision: precisions agree
            within a tested tolerance.
        precision: numeric precision of the network.
        precision_reason: reason for that precision.
        has_text: whether there is a text tower.
        temperature: softmax temperature of image-text cosines in training, 0.01 for CLIP; None without a text tower.
        cross_view: number of last blocks in which the views of an object attend to one another; 0 for most encoders.
    """

    @property
    def id(self) -> str: ...  # noqa: D102 - described above
    @property
    def dim(self) -> int: ...  # noqa: D102
    @property
    def image_size(self) -> int: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def precision(self) -> Precision: ...  # noqa: D102
    @property
    def precision_reason(self) -> str: ...  # noqa: D102
    @property
    def has_text(self) -> bool: ...  # noqa: D102
    @property
    def temperature(self) -> float | None: ...  # noqa: D102
    @property
    def cross_view(self) -> int: ...  # noqa: D102

    def encode_views(self, images: NDArray[np.uint8], groups: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Embed images.

        Args:
            images: (N, H, W, 3) uint8 sRGB.
            groups: (N,) object that each image shows. Only encoders with `cross_view` use it; without it each image is an
                object of its own.

        Returns:
            (N, D), unit norm.
        """
        ...

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts as (N, D), unit norm.

        Raises:
            NoTextError: the encoder has no text tower.
        """
        ...


def no_text_error(encoder_id: str) -> NoTextError:
    """The error of an encoder without a text tower."""
    return NoTextError(
        f"encoder '{encoder_id}' has no text tower: query with a mesh or an image, or index with an encoder that has one, such "
        "as open_clip:ViT-B-32/laion2b_s34b_b79k"
    )
