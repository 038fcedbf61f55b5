"""What every encoder can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import NoTextError

Precision = Literal["float32", "bfloat16"]


class ViewEncoder(Protocol):
    """Turns pictures, and sometimes words, into unit vectors.

    Attributes:
        id: the text that opens this encoder again.
        dim: D, the length of its vectors.
        image_size: width and height in pixels that it looks at.
        fingerprint: changes when weights or preprocessing do. Precision is not in it: precisions agree within a tested
            tolerance.
        precision: what it computes in, with `precision_reason`.
        has_text: whether `encode_text` works.
    """

    @property
    def id(self) -> str: ...  # noqa: D102 - described above
    @property
    def dim(self) -> int: ...  # noqa: D102
    @property
    def image_size(self) -> int: ...  # noqa: D102
    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def precision(self) -> Precision: ...  # noqa: D102
    @property
    def precision_reason(self) -> str: ...  # noqa: D102
    @property
    def has_text(self) -> bool: ...  # noqa: D102

    def encode_views(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Vectors of pictures.

        Args:
            images: (N, H, W, 3) uint8 sRGB.

        Returns:
            (N, D), unit norm.
        """
        ...

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of words, (N, D), unit norm.

        Raises:
            NoTextError: the encoder has no text tower.
        """
        ...


def no_text_error(encoder_id: str) -> NoTextError:
    """What an encoder without a text tower raises."""
    return NoTextError(
        f"{encoder_id} reads no words: ask with a mesh or a picture, or index with an encoder that has a text tower, such as "
        "open_clip:ViT-B-32/laion2b_s34b_b79k"
    )
