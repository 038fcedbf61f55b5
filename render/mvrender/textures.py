"""Texture mipmaps: pyramids of images of half the size, as on GPUs, which avoid aliasing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class TexturePyramids:
    """All textures of a mesh at all sizes, in one flat array of texels."""

    def __init__(self, textures: Sequence[NDArray[np.uint8]]) -> None:
        """Build the pyramids.

        Args:
            textures: each (h, w, 3) uint8, or (h, w, 4), of which the alpha is left out.
        """
        texels: list[NDArray[np.uint8]] = []
        levels: list[list[tuple[int, int, int]]] = []  # per texture and level: offset, height, width
        offset = 0
        for texture in textures:
            image = Image.fromarray(np.ascontiguousarray(texture[..., :3]))
            own: list[tuple[int, int, int]] = []
            while True:
                own.append((offset, image.height, image.width))
                texels.append(np.asarray(image).reshape(-1, 3))
                offset += image.width * image.height
                if max(image.size) == 1:
                    break
                image = image.reduce((min(2, image.width), min(2, image.height)))
            levels.append(own)
        deepest = max(len(own) for own in levels)
        self.table = np.array([own + [own[-1]] * (deepest - len(own)) for own in levels], np.int64)
        """(T, L, 3) of each texture and level: index of the first texel, height, width."""
        self.texels = np.concatenate(texels)
        """(N, 3) uint8."""
