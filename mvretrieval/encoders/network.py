"""A torch network as a `ViewEncoder`: preprocessing, batching, precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from mvretrieval.encoders.cross_view import views_grouped
from mvretrieval.encoders.device import tune_malloc
from mvretrieval.encoders.encoder import Precision, no_text_error

Family = Literal["open_clip", "image_only"]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Preprocessing:
    """Image preprocessing that a network was trained with.

    Attributes:
        size: width and height in pixels.
        mean: per channel, of sRGB in 0..1.
        std: per channel.
        resampling: interpolation for images of another size.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resampling: str = "bicubic"


@dataclass(frozen=True)
class Architecture:
    """Everything needed to build a network except its weights. Stored with tuned encoders.

    Attributes:
        family: library that builds it.
        name: its name in that library.
        quick_gelu: open_clip: use QuickGELU, which some weights were trained with.
        same_padding: MobileNetV2: see `image_only.KnownWeights`.
        cross_view: number of last blocks with cross-view attention.
        bias: a learned vector is added to the output.
    """

    family: Family
    name: str
    quick_gelu: bool = False
    same_padding: bool = False
    cross_view: int = 0
    bias: bool = False


def output_dim(network: nn.Module, size: int) -> int:
    """Measure the length of a network's vectors on an image of `size` pixels.

    timm's `num_features` differs for networks whose head has one more convolution.
    """
    with torch.inference_mode():
        return int(network(torch.zeros(1, 3, size, size)).shape[-1])


@dataclass
class NetworkEncoder:
    """`ViewEncoder` around a network that maps (N, 3, size, size) to (N, dim).

    Attributes:
        batch_size: images per forward pass: enough to use all cores, few enough to bound the memory.
        embed_text: maps texts to (N, dim) tensors; None without a text tower.
        architecture: recipe to build the network.
        full_model: model that `network` is a part of, with the text tower; None if there is no larger model.
    """

    id: str
    network: nn.Module
    dim: int
    preprocessing: Preprocessing
    fingerprint: str
    device: torch.device
    precision: Precision
    precision_reason: str
    channels_last: bool = False
    batch_size: int = 48
    embed_text: Callable[[Sequence[str]], Tensor] | None = field(default=None, repr=False)
    architecture: Architecture | None = None
    full_model: nn.Module | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        tune_malloc()
        if self.device.type == "cuda":
            self.batch_size = 512
        self.network = self.network.eval().requires_grad_(False).to(self.device, _DTYPES[self.precision])
        if self.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)
        # Normalization from bytes in one multiplication and one addition. Factors are repeated for all pixels: broadcasting a
        # row of three numbers takes four times as long.
        mean, std = torch.tensor(self.preprocessing.mean), torch.tensor(self.preprocessing.std)
        n_pixels = self.preprocessing.size**2
        self._scale = (1 / (255 * std)).repeat(n_pixels).to(self.device)
        self._shift = (-mean / std).repeat(n_pixels).to(self.device)

    @property
    def image_size(self) -> int:
        """Width and height in pixels of the images that the network takes."""
        return self.preprocessing.size

    @property
    def has_text(self) -> bool:
        """Whether there is a text tower."""
        return self.embed_text is not None

    @property
    def cross_view(self) -> int:
        """Number of last blocks with cross-view attention; 0 for most encoders."""
        return 0 if self.architecture is None else self.architecture.cross_view

    @property
    def temperature(self) -> float | None:
        """Softmax temperature of image-text cosines in training, 0.01 for CLIP; None without a text tower."""
        scale = getattr(self.full_model, "logit_scale", None)  # open_clip's models differ in their attributes
        return None if scale is None else float((-scale.detach().float()).exp())

    def encode_views(self, images: NDArray[np.uint8], groups: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """See `ViewEncoder.encode_views`."""
        out = np.empty((len(images), self.dim), np.float32)
        results: list[tuple[slice | NDArray[np.int64], Tensor]] = []
        images = self._resized(images)
        with torch.inference_mode():
            for rows, n_views in self._batches(len(images), groups if self.cross_view else None):
                with views_grouped(self.network, n_views):
                    vectors = self.network(self._input(images[rows]))
                # Copied to the CPU at the end: a copy here would wait for the GPU and leave it idle.
                results.append((rows, nn.functional.normalize(vectors.float(), dim=1)))
            for rows, vectors in results:
                out[rows] = vectors.cpu().numpy()
        return out

    def pixels(self, images: NDArray[np.uint8]) -> Tensor:
        """Preprocess images (N, H, W, 3) to the network's input (N, 3, size, size) on its device."""
        return self._input(self._resized(images))

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `ViewEncoder.encode_text`."""
        if self.embed_text is None:
            raise no_text_error(self.id)
        with torch.inference_mode():
            vectors = self.embed_text(texts)
            return np.asarray(nn.functional.normalize(vectors.float(), dim=1).cpu().numpy(), np.float32)

    def _batches(self, count: int, groups: NDArray[np.int64] | None) -> Iterator[tuple[slice | NDArray[np.int64], int]]:
        """Rows of each batch, and the number of consecutive images per object. A group is never split."""
        if groups is None:
            yield from ((slice(start, start + self.batch_size), 1) for start in range(0, count, self.batch_size))
            return
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(groups[order], prepend=groups.min() - 1)) if count else np.empty(0, np.int64)
        members = np.split(order, starts[1:])
        for n_views in sorted({len(group) for group in members if len(group)}):
            same_size = np.stack([group for group in members if len(group) == n_views])
            n_groups = max(1, self.batch_size // n_views)
            for start in range(0, len(same_size), n_groups):
                yield same_size[start : start + n_groups].ravel(), n_views

    def _input(self, images: NDArray[np.uint8]) -> Tensor:
        # Transferred as bytes, a quarter of the size of floats. To a GPU from pinned memory, so that the copy overlaps with
        # computation.
        staged = torch.empty(images.shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        np.copyto(staged.numpy(), images)
        pixels = staged.to(self.device, non_blocking=True).flatten(1).to(torch.float32)
        pixels = pixels.mul_(self._scale).add_(self._shift).to(_DTYPES[self.precision])
        # The permuted view of (N, H, W, 3) already has channels-last layout.
        pixels = pixels.view(images.shape).permute(0, 3, 1, 2)
        return pixels if self.channels_last else pixels.contiguous()

    def _resized(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = self.preprocessing.size
        if len(images) == 0 or images.shape[1:3] == (size, size):
            return images
        filters = {"bilinear": Image.Resampling.BILINEAR, "lanczos": Image.Resampling.LANCZOS}
        resample = filters.get(self.preprocessing.resampling, Image.Resampling.BICUBIC)
        return np.stack([np.asarray(Image.fromarray(image).resize((size, size), resample)) for image in images])
