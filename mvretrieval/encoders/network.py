"""A torch network as a `ViewEncoder`: preprocessing, batches, precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from mvretrieval.encoders.device import keep_freed_memory
from mvretrieval.encoders.encoder import Precision
from mvretrieval.errors import EncoderError

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


@dataclass
class NetworkEncoder:
    """`ViewEncoder` around a network that maps (N, 3, size, size) to (N, dim).

    Attributes:
        batch_size: pictures at once; large enough to fill the cores, small enough for memory not to grow.
        embed_text: maps words to (N, dim) tensors, where there is a text tower.
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

    def __post_init__(self) -> None:
        keep_freed_memory()
        if self.device.type == "cuda":
            self.batch_size = 512
        self.network = self.network.eval().requires_grad_(False).to(self.device, _DTYPES[self.precision])
        if self.channels_last:
            self.network = self.network.to(memory_format=torch.channels_last)
        # Normalisation in one multiply and one add, from bytes.
        mean, std = torch.tensor(self.preprocessing.mean), torch.tensor(self.preprocessing.std)
        self._scale = (1 / (255 * std)).view(1, 3, 1, 1).to(self.device)
        self._shift = (-mean / std).view(1, 3, 1, 1).to(self.device)

    @property
    def image_size(self) -> int:
        """Width and height in pixels that the network looks at."""
        return self.preprocessing.size

    @property
    def has_text(self) -> bool:
        """Whether there is a text tower."""
        return self.embed_text is not None

    def encode_views(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `ViewEncoder.encode_views`."""
        out = np.empty((len(images), self.dim), np.float32)
        images = self._resized(images)
        with torch.inference_mode():
            for start in range(0, len(images), self.batch_size):
                vectors = self.network(self._input(images[start : start + self.batch_size]))
                unit = nn.functional.normalize(vectors.float(), dim=1)
                out[start : start + len(unit)] = unit.cpu().numpy()
        return out

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See `ViewEncoder.encode_text`."""
        if self.embed_text is None:
            raise EncoderError(
                f"{self.id} reads no words: ask with a mesh or a picture, or index with an encoder that has a text tower, "
                "such as open_clip:ViT-B-32/laion2b_s34b_b79k"
            )
        with torch.inference_mode():
            vectors = self.embed_text(texts)
            return np.asarray(nn.functional.normalize(vectors.float(), dim=1).cpu().numpy(), np.float32)

    def _input(self, images: NDArray[np.uint8]) -> Tensor:
        # The permuted view of (N, H, W, 3) is channels-last already: nothing is copied before the cast.
        pixels = torch.tensor(images, device=self.device).permute(0, 3, 1, 2).to(torch.float32)
        pixels = pixels.mul_(self._scale).add_(self._shift).to(_DTYPES[self.precision])
        return pixels if self.channels_last else pixels.contiguous()

    def _resized(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = self.preprocessing.size
        if images.shape[1:3] == (size, size):
            return images
        known = {"bilinear": Image.Resampling.BILINEAR, "lanczos": Image.Resampling.LANCZOS}
        how = known.get(self.preprocessing.resampling, Image.Resampling.BICUBIC)
        return np.stack([np.asarray(Image.fromarray(image).resize((size, size), how)) for image in images])
