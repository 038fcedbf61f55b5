"""What a service allows: access, limits, folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mvrender.mesh import Limits
from mvretrieval.errors import ServiceError

UPLOAD_LIMITS = Limits(
    max_file_bytes=200 << 20, max_faces=5_000_000, max_texture_pixels=8192 * 8192, seconds=30.0, memory_bytes=4 << 30
)
"""Limits of one uploaded mesh; lower than those of local files."""


@dataclass(frozen=True)
class ServiceSettings:
    """How a collection is served.

    Attributes:
        token: required for changes, as `Authorization: Bearer TOKEN`; without one the service is read-only.
        auth: require the token for reading too.
        hosts: names that requests may use for the service; None for any. Without them a website whose name resolves to this machine
            (DNS rebinding) can read everything that a browser on this machine can.
        show_paths: include file paths of this machine in responses.
        folders: folders that can be indexed by a job, by name; requests never contain a path.
        limits: of one uploaded mesh.
        max_upload_bytes: of all files of one request.
        max_json_bytes: of one request without files.
        max_bytes_under_way: of all requests in progress together, with their files.
        max_image_pixels: of all images of one query.
        max_meshes: in one query.
        max_files: in one request.
        max_hits: largest `k` of a search.
        max_waiting: requests with meshes or images that may wait for their turn; more are refused.
        queue_timeout_s: time after which a waiting request is refused.
    """

    token: str | None = None
    auth: bool = False
    hosts: frozenset[str] | None = None
    show_paths: bool = False
    folders: Mapping[str, Path] = field(default_factory=dict)
    limits: Limits = UPLOAD_LIMITS
    max_upload_bytes: int = 256 << 20
    max_json_bytes: int = 2 << 20
    max_bytes_under_way: int = 1 << 30
    max_image_pixels: int = 40_000_000
    max_meshes: int = 4
    max_files: int = 16
    max_hits: int = 1000
    max_waiting: int = 64
    queue_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            ServiceError: a limit is too low.
        """
        for name in ("max_upload_bytes", "max_bytes_under_way", "max_image_pixels", "max_files", "max_hits"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        _check("max_waiting", self.max_waiting, self.max_waiting >= 0, "at least 0")
        _check("max_faces", self.limits.max_faces, self.limits.max_faces >= 1, "at least 1")
        _check("the time limit of a mesh", self.limits.seconds, self.limits.seconds > 0, "more than 0 s")


def _check(name: str, value: float, is_valid: bool, rule: str) -> None:
    if not is_valid:
        raise ServiceError(f"{name} is {value:g}, and must be {rule}", code="bad_limit")
