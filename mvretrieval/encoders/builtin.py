"""The encoder that needs no weights: oriented edges in the silhouette's own frame, as random Fourier features."""

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

from mvretrieval.encoders.encoder import Precision
from mvretrieval.errors import EncoderError

_SIZE = 224
_FRAME = 96  # samples across the silhouette's frame
_FRAME_RADII = 2.2  # half the frame's width, in root-mean-square radii of the silhouette
_ORIENTATIONS = 8
_GRIDS = (6, 12)  # cells across the frame
_COLOUR_WEIGHT = 0.2
_GAMMA = 8.0
_FREQUENCIES = 512
_BATCH = 32


@dataclass
class BuiltinEncoder:
    """`ViewEncoder` without weights: signal processing and fixed random projections, nothing learnt from data."""

    id: str = "builtin:"
    dim: int = 2 * _FREQUENCIES
    image_size: int = _SIZE
    fingerprint: str = "builtin-1"
    precision: Precision = "float32"
    precision_reason: str = "signal processing, no network"
    has_text: bool = False
    _frequencies: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._frequencies = _orthogonal_frequencies(sum(_ORIENTATIONS * g * g for g in _GRIDS) + 2, _FREQUENCIES)

    def encode_views(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `ViewEncoder.encode_views`."""
        out = np.empty((len(images), self.dim), np.float32)
        with torch.inference_mode():
            for start in range(0, len(images), _BATCH):
                angles = describe(_pixels(images[start : start + _BATCH])) @ self._frequencies
                vectors = torch.cat([angles.cos(), angles.sin()], 1) / math.sqrt(_FREQUENCIES)
                out[start : start + len(vectors)] = vectors.numpy()
        return out

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `ViewEncoder.encode_text`.

        Raises:
            EncoderError: always.
        """
        raise EncoderError(
            f"{self.id} reads no words: ask with a mesh or a picture, or index with an encoder that has a text tower, "
            "such as open_clip:ViT-B-32/laion2b_s34b_b79k"
        )


def describe(pixels: Tensor) -> Tensor:
    """Shape (unit norm) and a little colour of pictures (N, 3, H, W) in 0..1."""
    background = torch.cat([pixels[..., 0, :], pixels[..., -1, :], pixels[..., 0], pixels[..., -1]], 2).median(2).values
    contrast = pixels - background[..., None, None]
    mask = (contrast.abs().amax(1, keepdim=True) > 0.025).float()
    luminance = (contrast * contrast.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    mask, luminance = F.avg_pool2d(mask, 2), F.avg_pool2d(luminance, 2)
    edges = _oriented_edges(_in_silhouette_frame(luminance, mask))
    shape = torch.cat([F.normalize(_cells(edges, grid).sqrt(), dim=1) for grid in _GRIDS], 1) / math.sqrt(len(_GRIDS))
    inside = F.interpolate(mask, scale_factor=2.0)
    mean = (contrast * inside).sum((2, 3)) / inside.sum((2, 3)).clamp_min(1.0)
    chroma = torch.stack([mean[:, 0] - mean[:, 1], (mean[:, 0] + mean[:, 1]) / 2 - mean[:, 2]], 1)
    return torch.cat([shape, _COLOUR_WEIGHT * chroma], 1)


def _pixels(images: NDArray[np.uint8]) -> Tensor:
    if images.shape[1:3] != (_SIZE, _SIZE):
        how = Image.Resampling.BICUBIC
        images = np.stack([np.asarray(Image.fromarray(image).resize((_SIZE, _SIZE), how)) for image in images])
    return torch.tensor(images).permute(0, 3, 1, 2).to(torch.float32).div_(255)


def _in_silhouette_frame(picture: Tensor, mask: Tensor) -> Tensor:
    """Resample (N, 1, H, W) so that the silhouette's centroid is the middle and its rms radius a fixed length."""
    ruler = (torch.arange(mask.shape[-1]) + 0.5) * (2 / mask.shape[-1]) - 1
    columns, rows = mask.sum((1, 2)), mask.sum((1, 3))
    area = columns.sum(1).clamp_min(1e-3)
    x, y = (columns @ ruler) / area, (rows @ ruler) / area
    square_radius = (columns @ ruler**2 + rows @ ruler**2) / area - x**2 - y**2
    half = _FRAME_RADII * square_radius.clamp_min(1e-3).sqrt()
    steps = (torch.arange(_FRAME) + 0.5) * (2 / _FRAME) - 1
    x, y = x[:, None] + half[:, None] * steps, y[:, None] + half[:, None] * steps
    where = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), 3)
    return F.grid_sample(picture, where, padding_mode="border", align_corners=False)


def _oriented_edges(picture: Tensor) -> Tensor:
    """Gradient magnitude of (N, 1, H, W) shared between the two nearest of the unsigned orientations, (N, O, H, W)."""
    padded = F.pad(picture, (1, 1, 1, 1), mode="replicate")
    dx = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    dy = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    magnitude = torch.hypot(dx, dy)
    turn = torch.atan2(dy, dx) * (_ORIENTATIONS / math.pi) % _ORIENTATIONS
    away = (turn - torch.arange(_ORIENTATIONS).view(1, -1, 1, 1)).abs()
    return (1 - torch.minimum(away, _ORIENTATIONS - away)).clamp_min_(0) * magnitude


def _cells(maps: Tensor, grid: int) -> Tensor:
    """Soft sums of (N, C, H, W) over grid x grid cells, (N, C * grid * grid); neighbours overlap as Gaussians."""
    size = maps.shape[-1]
    centre = (torch.arange(grid) + 0.5) * (size / grid)
    away = (torch.arange(size) + 0.5 - centre[:, None]) / (size / grid)
    window = torch.exp(-2 * away**2)
    return (window @ maps @ window.T).flatten(1)


def _orthogonal_frequencies(n_inputs: int, n_frequencies: int) -> Tensor:
    """Gaussian frequencies in orthogonal blocks, (n_inputs, n_frequencies)."""
    rng = np.random.default_rng(0)
    blocks = []
    for _ in range(-(-n_frequencies // n_inputs)):
        directions, _ = np.linalg.qr(rng.standard_normal((n_inputs, n_inputs)))
        lengths = np.linalg.norm(rng.standard_normal((n_inputs, n_inputs)), axis=1)
        blocks.append(directions * lengths)
    return torch.tensor(np.concatenate(blocks, 1)[:, :n_frequencies] * math.sqrt(_GAMMA), dtype=torch.float32)
