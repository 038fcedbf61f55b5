"""What a service allows, and whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mvrender.mesh import Limits
from mvretrieval.errors import ServiceError

UPLOAD_LIMITS = Limits(
    max_file_bytes=200 << 20, max_faces=5_000_000, max_texture_pixels=8192 * 8192, seconds=30.0, memory_bytes=4 << 30
)
"""What one uploaded mesh may cost; files of one's own disk may cost more."""


@dataclass(frozen=True)
class ServiceSettings:
    """How a collection is served.

    Attributes:
        token: what writers show as `Authorization: Bearer TOKEN`; without one nobody may write.
        auth: readers show it too.
        hosts: names that a request may call the service by; any without. A website whose name leads here (DNS rebinding) could
            otherwise read all that a browser on this machine can.
        show_paths: tell where objects' files lie on this machine.
        folders: what may be indexed by a job, each under a name; requests never name a path.
        limits: what one uploaded mesh may cost.
        max_upload_bytes: of one request, all its files together.
        max_json_bytes: of one request without files.
        max_picture_pixels: of the uploaded pictures of one question.
        max_meshes: in one question.
        max_files: in one request.
        max_hits: that one search may ask for.
        max_waiting: requests with meshes or pictures that may wait or be worked on at once; more are told to come again.
        queue_timeout_s: that a request waits for its turn, before it is told to come again.
    """

    token: str | None = None
    auth: bool = False
    hosts: frozenset[str] | None = None
    show_paths: bool = False
    folders: Mapping[str, Path] = field(default_factory=dict)
    limits: Limits = UPLOAD_LIMITS
    max_upload_bytes: int = 256 << 20
    max_json_bytes: int = 4 << 20
    max_picture_pixels: int = 100_000_000
    max_meshes: int = 4
    max_files: int = 16
    max_hits: int = 1000
    max_waiting: int = 64
    queue_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse limits that let nothing through.

        Raises:
            ServiceError: with the value.
        """
        for name in ("max_upload_bytes", "max_picture_pixels", "max_files", "max_hits"):
            if getattr(self, name) < 1:
                raise ServiceError(f"{name.replace('_', ' ')} is {getattr(self, name)}: nothing would be let through")
        if self.max_waiting < 0 or self.limits.max_faces < 1 or not self.limits.seconds > 0:
            raise ServiceError("most waiting requests are 0 or more, faces 1 or more, and seconds more than 0")
