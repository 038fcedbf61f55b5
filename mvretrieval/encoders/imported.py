"""The encoder of a collection of vectors that were computed elsewhere: it has a dimension, and encodes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from mvretrieval.encoders.encoder import Precision
from mvretrieval.errors import EncoderError

MAX_DIM = 65_536
"""Longest vector; the REST API takes no longer ones in a query."""
NEXT_STEP = "query with the id of an object, or with Query(vector=...) and a vector of the model that made the others"
"""What to do where a query cannot be encoded."""


class ImportedVectors:
    """Stands for an unknown encoder (see `ViewEncoder`): `vectors:512`."""

    image_size = 224
    batch_size = 1024
    precision: Precision = "float32"
    precision_reason = "as imported"
    has_text = False
    temperature = None
    cross_view = 0

    def __init__(self, dim: int) -> None:
        """For vectors of `dim` numbers."""
        self.dim = dim
        self.id = self.fingerprint = f"vectors:{dim}"

    def encode_views(self, images: NDArray[np.uint8], groups: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """See `ViewEncoder`.

        Raises:
            EncoderError: always (`imported_vectors`).
        """
        self._refuse("images")

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `ViewEncoder`.

        Raises:
            EncoderError: always (`imported_vectors`).
        """
        self._refuse("text")

    def _refuse(self, what: str) -> NoReturn:
        raise EncoderError(
            f"{what} cannot be encoded: the collection holds vectors that were computed elsewhere and has no encoder. Instead, "
            f"{NEXT_STEP}",
            code="imported_vectors",
        )
