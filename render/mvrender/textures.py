"""Reading textures at surface points without shimmer: a pyramid of halved pictures, as GPUs use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class TexturePyramids:
    """All textures of a mesh at all sizes, in one flat array of texels, so that one gather reads any of them."""

    def __init__(self, textures: Sequence[NDArray[np.uint8]]) -> None:
        """Build the pyramids.

        Args:
            textures: each (h, w, 3) uint8.
        """
        texels: list[NDArray[np.uint8]] = []
        levels: list[list[tuple[int, int, int]]] = []  # per texture and level: offset, height, width
        offset = 0
        for texture in textures:
            picture = Image.fromarray(texture)
            own: list[tuple[int, int, int]] = []
            while True:
                own.append((offset, picture.height, picture.width))
                texels.append(np.asarray(picture).reshape(-1, 3))
                offset += picture.width * picture.height
                if max(picture.size) == 1:
                    break
                picture = picture.reduce((min(2, picture.width), min(2, picture.height)))
            levels.append(own)
        deepest = max(len(own) for own in levels)
        self._table = np.array([own + [own[-1]] * (deepest - len(own)) for own in levels], np.int64)
        self._texels = np.concatenate(texels)
        self.sizes = self._table[:, 0, 1:].astype(np.float32)
        """(T, 2) height and width of each texture."""

    def sample(
        self, texture: NDArray[np.int32], uv: NDArray[np.float32], level: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Bilinear colour at (N,) texture indices, (N, 2) uv (repeating, v upwards) and (N,) log2 texels per pixel.

        Returns:
            (N, 3) sRGB in 0..255.
        """
        rounded = np.clip(np.rint(level), 0, self._table.shape[1] - 1).astype(np.int64)
        offset, height, width = self._table[texture, rounded].T
        x = np.mod(uv[:, 0], 1.0) * width - 0.5
        y = (1.0 - np.mod(uv[:, 1], 1.0)) * height - 0.5
        x0, y0 = np.floor(x), np.floor(y)
        fx, fy = (x - x0)[:, None].astype(np.float32), (y - y0)[:, None].astype(np.float32)
        left, top = x0.astype(np.int64) % width, y0.astype(np.int64) % height
        right, bottom = (left + 1) % width, (top + 1) % height
        upper = self._texels[offset + top * width + left] * (1 - fx) + self._texels[offset + top * width + right] * fx
        lower = (
            self._texels[offset + bottom * width + left] * (1 - fx) + self._texels[offset + bottom * width + right] * fx
        )
        return np.asarray(upper * (1 - fy) + lower * fy, np.float32)
