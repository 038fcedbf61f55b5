"""A torch network as a `ViewEncoder`: preprocessing, batches, precision."""

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
    """What a network was trained to see.

    Attributes:
        size: width and height in pixels.
        mean: per channel, of sRGB in 0..1.
        std: per channel.
        resampling: how a picture of another size is brought to `size`.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resampling: str = "bicubic"


@dataclass(frozen=True)
class Architecture:
    """What a network is built from without its weights; a tuned encoder is built again by it.

    Attributes:
        family: who builds it.
        name: theirs for it.
        quick_gelu: open_clip: the other GELU, which some weights were trained with.
        same_padding: MobileNetV2: see `image_only.KnownWeights`.
        cross_view: last blocks in which all views of an object attend to one another.
        bias: a learnt vector is added to what the network gives.
    """

    family: Family
    name: str
    quick_gelu: bool = False
    same_padding: bool = False
    cross_view: int = 0
    bias: bool = False


@dataclass
class NetworkEncoder:
    """`ViewEncoder` around a network that maps (N, 3, size, size) to (N, dim).

    Attributes:
        batch_size: pictures at once; large enough to fill the cores, small enough for memory not to grow.
        embed_text: maps words to (N, dim) tensors, where there is a text tower.
        architecture: how the network is built.
        full_model: what `network` is a part of, text tower included; None where it is all there is.
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
        # Normalisation in one multiply and one add, from bytes; by whole pictures, for a row of three numbers that is
        # read again and again takes four times as long.
        mean, std = torch.tensor(self.preprocessing.mean), torch.tensor(self.preprocessing.std)
        n_pixels = self.preprocessing.size**2
        self._scale = (1 / (255 * std)).repeat(n_pixels).to(self.device)
        self._shift = (-mean / std).repeat(n_pixels).to(self.device)

    @property
    def image_size(self) -> int:
        """Width and height in pixels that the network looks at."""
        return self.preprocessing.size

    @property
    def has_text(self) -> bool:
        """Whether there is a text tower."""
        return self.embed_text is not None

    @property
    def cross_view(self) -> int:
        """Last blocks in which views that are encoded together attend to one another; 0 for most encoders."""
        return 0 if self.architecture is None else self.architecture.cross_view

    @property
    def temperature(self) -> float | None:
        """What training divided the cosines of pictures and words by, 0.01 for CLIP; None without a text tower."""
        scale = getattr(self.full_model, "logit_scale", None)
        return None if scale is None else float((-scale.detach().float()).exp())

    def encode_views(self, images: NDArray[np.uint8], groups: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """See `ViewEncoder.encode_views`.

        Args:
            images: (N, H, W, 3) uint8 sRGB.
            groups: (N,) object that each picture shows, where the network looks across views (`cross_view`); others
                need none. Without it, each picture is an object of its own.
        """
        out = np.empty((len(images), self.dim), np.float32)
        found: list[tuple[slice | NDArray[np.int64], Tensor]] = []
        images = self._resized(images)
        with torch.inference_mode():
            for rows, views in self._batches(len(images), groups if self.cross_view else None):
                with views_grouped(self.network, views):
                    vectors = self.network(self._input(images[rows]))
                # Kept where they are until the end: waiting for a GPU here would leave it without work meanwhile.
                found.append((rows, nn.functional.normalize(vectors.float(), dim=1)))
            for rows, vectors in found:
                out[rows] = vectors.cpu().numpy()
        return out

    def pixels(self, images: NDArray[np.uint8]) -> Tensor:
        """Pictures (N, H, W, 3) as the network takes them, (N, 3, size, size) on its device."""
        return self._input(self._resized(images))

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `ViewEncoder.encode_text`."""
        if self.embed_text is None:
            raise no_text_error(self.id)
        with torch.inference_mode():
            vectors = self.embed_text(texts)
            return np.asarray(nn.functional.normalize(vectors.float(), dim=1).cpu().numpy(), np.float32)

    def _batches(self, count: int, groups: NDArray[np.int64] | None) -> Iterator[tuple[slice | NDArray[np.int64], int]]:
        """Pictures that are encoded at once, and how many in a row show one object; a group is never torn apart."""
        if groups is None:
            yield from ((slice(start, start + self.batch_size), 1) for start in range(0, count, self.batch_size))
            return
        order = np.argsort(groups, kind="stable")
        starts = np.flatnonzero(np.diff(groups[order], prepend=groups.min() - 1)) if count else np.empty(0, np.int64)
        members = np.split(order, starts[1:])
        for views in sorted({len(group) for group in members if len(group)}):
            alike = np.stack([group for group in members if len(group) == views])
            at_once = max(1, self.batch_size // views)
            for start in range(0, len(alike), at_once):
                yield alike[start : start + at_once].ravel(), views

    def _input(self, images: NDArray[np.uint8]) -> Tensor:
        # As bytes, and for a GPU from pinned memory: a quarter of what floats are, copied while it computes.
        staged = torch.empty(images.shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        np.copyto(staged.numpy(), images)
        pixels = staged.to(self.device, non_blocking=True).flatten(1).to(torch.float32)
        pixels = pixels.mul_(self._scale).add_(self._shift).to(_DTYPES[self.precision])
        # The permuted view of (N, H, W, 3) is channels-last already.
        pixels = pixels.view(images.shape).permute(0, 3, 1, 2)
        return pixels if self.channels_last else pixels.contiguous()

    def _resized(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = self.preprocessing.size
        if len(images) == 0 or images.shape[1:3] == (size, size):
            return images
        known = {"bilinear": Image.Resampling.BILINEAR, "lanczos": Image.Resampling.LANCZOS}
        how = known.get(self.preprocessing.resampling, Image.Resampling.BICUBIC)
        return np.stack([np.asarray(Image.fromarray(image).resize((size, size), how)) for image in images])
