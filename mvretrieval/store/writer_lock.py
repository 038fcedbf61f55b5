"""The writer lock: one process at a time may write to a collection. It is an flock on a file in the folder."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from typing import IO

from mvretrieval.errors import CollectionError

LOCK = "writer.lock"


class WriterLock:
    """The writer lock of a collection, held from `take` until `release` or the end of the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()  # an flock excludes a second thread of this process too

    @property
    def held(self) -> bool:
        """Whether this instance holds the lock."""
        return self._file is not None

    def take(self) -> None:
        """Take the lock; does nothing if it is held already.

        Raises:
            CollectionError: another process holds it (code `collection_locked`), or the folder is not writable (`read_only`).
        """
        with self._lock:
            if self._file is None:
                self._file = _locked(self._folder)

    def release(self) -> None:
        """Release the lock."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _locked(folder: Path) -> IO[bytes]:
    try:
        file = (folder / LOCK).open("a+b")
    except OSError as error:
        raise CollectionError(
            f"{folder} cannot be written ({error.strerror}): check its owner and mode", code="read_only"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read(20).decode(errors="replace").strip() or "unknown"
        file.close()
        raise CollectionError(
            f"another process ({holder}) has {folder} open for writing: wait until it has finished, or add objects through "
            "it if it is 'mvr serve'; searching works meanwhile",
            code="collection_locked",
        ) from None
    try:
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
    except OSError:  # full disk: the lock holds without a process id in the file
        pass
    return file
