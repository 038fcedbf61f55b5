"""Cache of GLB models in the collection's folder, made when a model is first requested. It may be deleted at any time."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

_FOLDER = "models"
_MAX_BYTES = 2 << 30


class ModelCache:
    """GLB files by content hash; the least recently used are deleted first."""

    def __init__(self, collection_folder: Path, max_bytes: int = _MAX_BYTES) -> None:
        """Use a folder inside the collection's; it is created with the first file."""
        self._folder = collection_folder / _FOLDER
        self._max_bytes = max_bytes

    def get(self, content_hash: str) -> bytes | None:
        """The cached GLB, if there is one."""
        path = self._path(content_hash)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        with contextlib.suppress(OSError):  # in a read-only folder the oldest are deleted first
            os.utime(path)
        return data

    def put(self, content_hash: str, glb: bytes) -> None:
        """Cache a GLB if the folder is writable; old files are deleted if the cache gets too large."""
        part = self._folder / f"{content_hash}.{secrets.token_hex(4)}.part"
        try:
            self._folder.mkdir(exist_ok=True)
            part.write_bytes(glb)
            part.replace(self._path(content_hash))
            self._evict()
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def _path(self, content_hash: str) -> Path:
        return self._folder / f"{content_hash}.glb"

    def _evict(self) -> None:
        files = sorted(
            ((file.stat().st_mtime, file.stat().st_size, file) for file in self._folder.iterdir()), reverse=True
        )
        total = 0
        for _, size, file in files:
            total += size
            if total > self._max_bytes:
                file.unlink(missing_ok=True)
