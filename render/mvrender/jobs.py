"""Input and results of a render pool: what to render, and how each file ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mvrender.backends.selection import choose_backend
from mvrender.cameras import Rig, ring
from mvrender.mesh import Limits, UpAxis
from mvrender.renderer import BackendName, Views
from mvrender.shading import Style

Operation = Literal["render", "glb"]
"""What a worker produces from a loaded file."""


@dataclass(frozen=True)
class RenderSpec:
    """How files become views.

    Attributes:
        rig: cameras.
        styles: one image per camera and style.
        size: width and height of a view in pixels.
        backend: name of the render backend.
        limits: resources that one file may use.
        strip_size: also make a strip of thumbnails with this many pixels per view.
    """

    rig: Rig = field(default_factory=ring)
    styles: tuple[Style, ...] = ("texture",)
    size: int = 224
    backend: BackendName = "raster"
    limits: Limits = field(default_factory=Limits)
    strip_size: int | None = None

    @classmethod
    def default(cls) -> RenderSpec:
        """The default views with the best backend of this machine."""
        return cls(backend=choose_backend()[0])


@dataclass(frozen=True)
class RenderJob:
    """One file to render.

    Attributes:
        path: the file.
        root: folder that its references may not leave; the file's folder if None.
        up: up axis; the format's convention if None.
    """

    path: Path
    root: Path | None = None
    up: UpAxis | None = None


@dataclass(frozen=True)
class Opened:
    """A loaded file (see `loading.Loaded`)."""

    job: RenderJob
    content_hash: str
    references: tuple[str, ...]
    up: UpAxis
    facts: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Rendered:
    """A rendered file.

    Attributes:
        opened: the loaded file.
        views: None if the caller did not need them.
        strip: thumbnails of the views as a WebP image; empty without `RenderSpec.strip_size`.
    """

    opened: Opened
    views: Views | None
    strip: bytes = b""


@dataclass(frozen=True)
class Converted:
    """A file as GLB (see `glb.to_glb`)."""

    opened: Opened
    glb: bytes


@dataclass(frozen=True)
class Failed:
    """A file that could not be rendered.

    Attributes:
        job: the file.
        code: one of `errors.FAILURE_CODES`.
        message: problem, value and next step.
    """

    job: RenderJob
    code: str
    message: str


def always(_: Opened) -> bool:
    """Need the views of every file."""
    return True
