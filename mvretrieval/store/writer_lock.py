"""Who may write to a collection: one process at a time, by a lock on a file in its folder."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from typing import IO

from mvretrieval.errors import CollectionError

LOCK = "writer.lock"


class WriterLock:
    """The right to write, from `take` until `release` or the end of the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()  # the file's lock would hold up a second thread like a second process

    @property
    def held(self) -> bool:
        """Whether this has the right to write."""
        return self._file is not None

    def take(self) -> None:
        """Take the right to write, if it is not held already.

        Raises:
            CollectionError: another process has it, or the folder cannot be written.
        """
        with self._lock:
            if self._file is None:
                self._file = _locked(self._folder)

    def release(self) -> None:
        """Let another process write."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _locked(folder: Path) -> IO[bytes]:
    try:
        file = (folder / LOCK).open("a+b")
    except OSError as error:
        raise CollectionError(f"{folder} cannot be written ({error.strerror}): check its owner and mode") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read(20).decode(errors="replace").strip() or "unknown"
        file.close()
        raise CollectionError(
            f"another program is writing to {folder} (process {holder}): wait until it is done; searching works meanwhile"
        ) from None
    try:
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
    except OSError:  # a full disk: the lock holds without a name on it
        pass
    return file
