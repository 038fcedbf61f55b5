"""From the image of a material to the pixels of a texture: bit depth, opacity, size, and what is beyond its edges."""

from __future__ import annotations

import io
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvrender.image_formats import open_image, to_8_bit

Wrap = Literal["repeat", "mirror", "clamp"]
# Views are at most 1024 pixels wide: a larger texture adds no visible detail.
_MAX_TEXTURE_SIDE = 2048
# A texture that ends at its edges is continued by this many of its sizes, where the coordinates are so far out.
_MOST_TILES = 4
_INSIDE = 1e-3  # so far from its end, where the other end would be seen


def open_texture(content: bytes) -> Image.Image | None:
    """Open an image without decoding it; None if it cannot be opened."""
    try:
        return open_image(io.BytesIO(content))
    except Exception:  # Pillow's plugins raise anything on a damaged file
        return None


def small_pixels(image: Image.Image, opaque: bool, cutoff: float | None = None) -> NDArray[np.uint8]:
    """Pixels (h, w, 3) of at most 2048 x 2048, transparent parts composited over white unless `opaque`.

    With holes, they are (h, w, 4): alpha is 0 there and 255 elsewhere. An image that would be nothing but a hole has none.

    Args:
        image: not yet decoded.
        opaque: its opacity has no meaning, but for holes.
        cutoff: opacity of 0 to 1 below which there are holes; None for no holes.

    Raises:
        OSError, ValueError, SyntaxError: the image cannot be decoded.
    """
    image.draft("RGB", (_MAX_TEXTURE_SIDE, _MAX_TEXTURE_SIDE))  # decodes JPEG at a fraction of its size
    image = to_8_bit(image)
    shrink = -(-max(image.size) // _MAX_TEXTURE_SIDE)
    if shrink > 1:
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA")
        elif image.mode == "1":
            image = image.convert("L")
        image = image.reduce(shrink)
    has_alpha = image.mode in ("RGBA", "LA", "PA", "P") or "transparency" in image.info
    if not has_alpha or (opaque and cutoff is None):
        return np.asarray(image.convert("RGB"))
    rgba = image.convert("RGBA")
    is_there = np.asarray(rgba)[..., 3] >= 255 * (cutoff or 0)
    if not opaque:
        rgba = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    pixels = np.asarray(rgba.convert("RGB"))
    if is_there.all() or not is_there.any():
        return pixels
    return np.dstack([_continued(pixels, is_there), np.where(is_there, np.uint8(255), np.uint8(0))])


def _continued(pixels: NDArray[np.uint8], is_there: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Give each pixel (h, w, 3) of a hole the nearest colour outside: filters would mix in what an editor left there."""
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(~is_there, return_distances=False, return_indices=True)
    return np.asarray(pixels[rows, columns])


Tiles = tuple[Wrap, int, int]
"""Along one axis: what is beyond the edges, and the first and last coordinate (whole numbers) that are used."""


def tiles_of(coordinates: NDArray[np.float64], wrap: Wrap) -> Tiles:
    """The tiles that texture coordinates (n,) use along one axis. Renderers repeat textures, so that repeating needs none."""
    low, high = float(coordinates.min(initial=0.0)), float(coordinates.max(initial=1.0))
    if wrap == "repeat" or (low >= 0 and high <= 1):
        return "repeat", 0, 1
    if wrap == "mirror":
        return "mirror", 0, 2
    return "clamp", max(-_MOST_TILES, math.floor(low)), min(1 + _MOST_TILES, math.ceil(high))


def unrolled(pixels: NDArray[np.uint8], tiles: tuple[Tiles, Tiles]) -> NDArray[np.uint8]:
    """A texture (h, w, 3) with what is beyond its edges along u and v, so that repeating it does no harm."""
    longest = max(size * (last - first) for size, (_, first, last) in zip(pixels.shape[1::-1], tiles, strict=True))
    if longest > 2 * _MAX_TEXTURE_SIDE:
        pixels = np.asarray(Image.fromarray(pixels).reduce(-(-longest // (2 * _MAX_TEXTURE_SIDE))))
    for axis, (wrap, first, last) in ((1, tiles[0]), (0, tiles[1])):
        if wrap == "mirror":
            both = (pixels, np.flip(pixels, axis)) if axis == 1 else (np.flip(pixels, axis), pixels)  # v points upwards
            pixels = np.concatenate(both, axis=axis)
        elif wrap == "clamp":
            size = pixels.shape[axis]
            before, after = -first * size, (last - 1) * size
            widths = [(0, 0)] * 3
            widths[axis] = (before, after) if axis == 1 else (after, before)
            pixels = np.pad(pixels, widths, mode="edge")
    return pixels


def unrolled_uv(uv: NDArray[np.float64], tiles: tuple[Tiles, Tiles]) -> NDArray[np.float64]:
    """Texture coordinates (n, 2) in an unrolled texture."""
    columns = []
    for i, (wrap, first, last) in enumerate(tiles):
        column = uv[:, i]
        if wrap == "clamp":
            column = column.clip(first + _INSIDE, last - _INSIDE)
        columns.append((column - first) / (last - first))
    return np.stack(columns, axis=1)
