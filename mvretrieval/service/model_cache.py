"""GLB files of a collection's meshes, made when one is first looked at and kept in its folder; they may be deleted."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

_FOLDER = "models"
_MOST_BYTES = 2 << 30


class ModelsCache:
    """Files by content hash; those not used for longest go first."""

    def __init__(self, collection_folder: Path, most_bytes: int = _MOST_BYTES) -> None:
        """Use a folder inside of the collection's; it is made with the first file."""
        self._folder = collection_folder / _FOLDER
        self._most_bytes = most_bytes

    def get(self, content_hash: str) -> bytes | None:
        """What was kept, if it was."""
        path = self._path(content_hash)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        with contextlib.suppress(OSError):  # where it may only be read, the oldest go first, not the least used
            os.utime(path)
        return data

    def put(self, content_hash: str, glb: bytes) -> None:
        """Keep a file, if the folder can be written; others have to go if there are too many."""
        part = self._folder / f"{content_hash}.{secrets.token_hex(4)}.part"
        try:
            self._folder.mkdir(exist_ok=True)
            part.write_bytes(glb)
            part.replace(self._path(content_hash))
            self._make_room()
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def _path(self, content_hash: str) -> Path:
        return self._folder / f"{content_hash}.glb"

    def _make_room(self) -> None:
        files = sorted(
            ((file.stat().st_mtime, file.stat().st_size, file) for file in self._folder.iterdir()), reverse=True
        )
        total = 0
        for _, size, file in files:
            total += size
            if total > self._most_bytes:
                file.unlink(missing_ok=True)
