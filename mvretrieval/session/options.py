"""How this machine runs a collection."""

from __future__ import annotations

from dataclasses import dataclass, field

from mvrender.mesh import Limits
from mvrender.renderer import BackendName
from mvretrieval.encoders.encoder import PrecisionChoice, ViewEncoder


@dataclass(frozen=True)
class OpenOptions:
    """How this machine runs a collection. None of these options changes the meaning of a vector.

    Attributes:
        device: where networks run and vectors are searched: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        precision: of the encoder.
        backend: name of the render backend; the best one of this machine by default.
        workers: number of render processes; one per core by default.
        start_workers: start them while the encoder is opened, instead of with the first file.
        limits: time, memory and size limits for one mesh.
        encoder: an open encoder to use, instead of opening the one that the collection names. It must be the same one.
        images_in_workers: decode the images of queries in a render process, within `limits`: they come from strangers.
        concurrent: several threads will search with meshes and images at the same time; their images are encoded in batches.
    """

    device: str = "auto"
    precision: PrecisionChoice = "auto"
    backend: BackendName | None = None
    workers: int | None = None
    start_workers: bool = False
    limits: Limits = field(default_factory=Limits)
    encoder: ViewEncoder | None = None
    images_in_workers: bool = False
    concurrent: bool = False
