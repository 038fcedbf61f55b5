"""An encoder without weights: oriented edges in the frame of the silhouette, as random Fourier features.

An object's vector is the mean of its view vectors. A mean of plain histograms mixes the views. A mean of random Fourier
features (Rahimi and Recht, "Random features for large-scale kernel machines", 2007) is a kernel mean embedding (Smola et
al., 2007): the cosine of two such means counts pairs of similar views and ignores the others. This gave the largest gain of
all variants; see the table in `benchmarks/NOTES.md`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mvretrieval.encoders.encoder import Precision, no_text_error

_SIZE = 224
_SEED = 0
_BATCH = 16  # the intermediate images of larger batches do not fit the cache
_SOLID = 0.2  # contrast to the background, in 0..1, that counts fully as object: a hard mask flickers at smooth edges

# Half the width of the frame, in rms radii of the silhouette: a disc fills 64 % of the width, and a thin cross still fits.
_FRAME_RADII = 2.2

# Edges. Results do not change with 48, 64 or 96 samples, 6, 8 or 12 orientations, grids of 5 to 12 cells.
_FRAME = 64
_STRETCH = 0.7
_ORIENTATIONS = 8
_GRID = 8
_EDGE_POWER = 0.6
_COLOUR_WEIGHT = 0.2  # distance of red and blue 0.36, of two dissimilar shapes 0.87

# Rings.
_RINGS, _ANGLES, _HARMONICS = 16, 64, 12
_RING_POWER = 0.5


@dataclass(frozen=True)
class _Kernel:
    """exp(-gamma / 2 |x - y|^2) by random features, and its weight in the similarity of two views."""

    n_inputs: int
    n_frequencies: int
    gamma: float
    weight: float


# gamma: dissimilar views have a kernel value near 0, and the noise of the random features stays below the kernel.
_EDGES = _Kernel(_ORIENTATIONS * _GRID**2 + 2, 384, gamma=9.0, weight=0.85)
_CIRCLES = _Kernel(_RINGS * _HARMONICS, 128, gamma=24.0, weight=0.15)


@dataclass
class BuiltinEncoder:
    """`ViewEncoder` without learned weights: image processing and fixed random projections."""

    id: str = "builtin:"
    dim: int = 2 * (_EDGES.n_frequencies + _CIRCLES.n_frequencies)
    image_size: int = _SIZE
    batch_size: int = 48
    fingerprint: str = "builtin-2"
    precision: Precision = "float32"
    precision_reason: str = "no neural network"
    has_text: bool = False
    temperature: float | None = None
    cross_view: int = 0
    _frequencies: tuple[Tensor, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(_SEED)
        self._frequencies = _orthogonal_frequencies(_EDGES, rng), _orthogonal_frequencies(_CIRCLES, rng)

    def encode_views(self, images: NDArray[np.uint8], groups: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """See `ViewEncoder.encode_views`. Pairs of cosine and sine have unit norm without a division."""
        out = np.empty((len(images), self.dim), np.float32)
        with torch.inference_mode():
            for start in range(0, len(images), _BATCH):
                edges, circles = image_features(_pixels(images[start : start + _BATCH]))
                parts = []
                for kernel, frequencies, x in zip((_EDGES, _CIRCLES), self._frequencies, (edges, circles), strict=True):
                    angles = x @ frequencies
                    length = math.sqrt(kernel.weight / kernel.n_frequencies)
                    parts += [length * angles.cos(), length * angles.sin()]
                out[start : start + len(edges)] = torch.cat(parts, 1).numpy()
        return out

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `ViewEncoder.encode_text`.

        Raises:
            NoTextError: always.
        """
        raise no_text_error(self.id)


def image_features(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Compute two feature vectors of each image.

    Args:
        pixels: (N, 3, H, W) sRGB in 0..1, an object on a plain background.

    Returns:
        Edges and mean colour (N, 514), where the edges have unit norm; circle harmonics (N, 192), unit norm.
    """
    # The background is the median of the border: white for renders, the paper of a sketch, the table of a photo.
    border = torch.cat([pixels[..., 0, :], pixels[..., -1, :], pixels[..., 0], pixels[..., -1]], 2)
    contrast = pixels - border.median(2).values[..., None, None]
    mask = (contrast.abs().amax(1, keepdim=True) / _SOLID).clamp(max=1.0)
    luminance = (contrast * contrast.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    centre, radii = _centre_and_radii(mask)
    edges = torch.cat([_edge_cells(luminance, centre, radii), _COLOUR_WEIGHT * _chroma(contrast, mask)], 1)
    return edges, _circle_harmonics(luminance, centre, radii)


def _pixels(images: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, 3) bytes as (N, 3, 112, 112) in 0..1: means of 2 x 2 pixels, which cut the cost of all later steps to a quarter."""
    if images.shape[1:3] != (_SIZE, _SIZE):
        how = Image.Resampling.BICUBIC
        images = np.stack([np.asarray(Image.fromarray(image).resize((_SIZE, _SIZE), how)) for image in images])
    # Sums of bytes are exact in any order. `avg_pool2d` made the encoder slower by a fifth.
    pixels = torch.tensor(images).to(torch.float32)
    rows = pixels[:, ::2] + pixels[:, 1::2]
    return (rows[:, :, ::2] + rows[:, :, 1::2]).permute(0, 3, 1, 2).contiguous().div_(4 * 255)


def _centre_and_radii(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Centroid (N, 2) and rms half extents along x and y (N, 2) of the silhouette, in image coordinates -1..1."""
    ruler = (torch.arange(mask.shape[-1]) + 0.5) * (2 / mask.shape[-1]) - 1
    profiles = torch.cat([mask.sum(2), mask.sum(3)], 1)  # (N, 2, size): per column, per row
    area = profiles.sum(2).clamp_min(1e-3)
    centre = profiles @ ruler / area
    variance = profiles @ ruler**2 / area - centre**2
    return centre, variance.clamp_min(1e-4).sqrt()


def _edge_cells(image: Tensor, centre: Tensor, radii: Tensor) -> Tensor:
    """Histograms of oriented gradients over soft cells, in the frame of the silhouette, (N, 512).

    After Dalal and Triggs, "Histograms of oriented gradients for human detection" (2005), without their normalization of each
    cell, which costs 0.04 mAP. The frame is stretched most of the way (`_STRETCH`) to equal width and height, so that long
    and short cars are similar; a full stretch is no better.
    """
    square = (radii**2).sum(1, keepdim=True)
    half = _FRAME_RADII * ((1 - _STRETCH) * square + _STRETCH * 2 * radii**2).sqrt()
    steps = (torch.arange(_FRAME) + 0.5) * (2 / _FRAME) - 1
    at = centre[..., None] + half[..., None] * steps  # (N, 2, frame)
    maps = _oriented_edges(_sample(image, at[:, 0, None, :], at[:, 1, :, None]))
    cell = _FRAME / _GRID
    middle = (torch.arange(_GRID) + 0.5) * cell
    window = torch.exp(-2 * ((torch.arange(_FRAME) + 0.5 - middle[:, None]) / cell) ** 2)
    # The power keeps a few strong edges from hiding the weak ones (Perronnin et al., 2010).
    return F.normalize((window @ maps @ window.T).flatten(1).pow(_EDGE_POWER), dim=1)


def _oriented_edges(image: Tensor) -> Tensor:
    """Gradient magnitude of (N, 1, H, W), split between the two nearest unsigned orientations, (N, O, H, W)."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    dx = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    dy = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    turn = torch.atan2(dy, dx) * (_ORIENTATIONS / math.pi) % _ORIENTATIONS
    away = (turn - torch.arange(_ORIENTATIONS).view(1, -1, 1, 1)).abs_()
    return torch.minimum(away, _ORIENTATIONS - away).neg_().add_(1).clamp_min_(0).mul_(torch.hypot(dx, dy))


def _circle_harmonics(image: Tensor, centre: Tensor, radii: Tensor) -> Tensor:
    """Fourier magnitudes along circles around the centroid, (N, 192), invariant to rotations of the image.

    Similar to the polar Fourier descriptor of Zhang and Lu, "Shape-based image retrieval using generic Fourier descriptor"
    (2002), which also transforms the radius. It matches objects that were modelled lying with the same ones standing.
    """
    radius = (torch.arange(_RINGS) + 0.5) * (_FRAME_RADII / _RINGS)
    angle = torch.arange(_ANGLES) * (2 * math.pi / _ANGLES)
    reach = (radii**2).sum(1).sqrt().view(-1, 1, 1) * radius[:, None]
    x, y = centre[:, 0].view(-1, 1, 1), centre[:, 1].view(-1, 1, 1)
    rings = _sample(image, x + reach * angle.cos(), y + reach * angle.sin())[:, 0]
    harmonics = torch.fft.rfft(rings, dim=2)[..., :_HARMONICS].abs()
    return F.normalize(harmonics.flatten(1).pow(_RING_POWER), dim=1)


def _chroma(contrast: Tensor, mask: Tensor) -> Tensor:
    """Mean red-green and yellow-blue opponent colour of the object, relative to the background, (N, 2); 0 for grey."""
    red, green, blue = ((contrast * mask).sum((2, 3)) / mask.sum((2, 3)).clamp_min(1.0)).unbind(1)
    return torch.stack([red - green, (red + green) / 2 - blue], 1)


def _sample(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear samples of (N, 1, H, W) at x and y, which broadcast to (N, h, w); the nearest pixel outside of -1..1."""
    grid = torch.stack([x + 0 * y, y + 0 * x], 3)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)


def _orthogonal_frequencies(kernel: _Kernel, rng: np.random.Generator) -> Tensor:
    """Frequencies of a Gaussian kernel, (n_inputs, n_frequencies), orthogonal within blocks.

    See Yu et al., "Orthogonal random features" (2016): less noise than the same number of independent draws.
    """
    size, blocks = kernel.n_inputs, []
    for _ in range(0, kernel.n_frequencies, size):
        directions, _ = np.linalg.qr(rng.standard_normal((size, size)))
        blocks.append(directions * np.sqrt(rng.chisquare(size, size)))
    frequencies = math.sqrt(kernel.gamma) * np.concatenate(blocks, 1)[:, : kernel.n_frequencies]
    return torch.tensor(frequencies, dtype=torch.float32)
