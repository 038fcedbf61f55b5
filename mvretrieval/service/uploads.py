"""Files of a request, saved in a temporary folder while the request is handled."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import UploadFile
from PIL import Image

from mvrender.image_formats import open_image
from mvretrieval.errors import MvrError, QueryError
from mvretrieval.service.problems import ProblemError
from mvretrieval.service.settings import ServiceSettings

_MAX_DEPTH, _MAX_NAME_BYTES = 8, 200
_MAX_SIDE = 16_384  # of an image in pixels
INCOMING = "incoming"
"""Folder of a collection for the files of requests in progress."""
_LOCK = "service.lock"
_STARTING_S = 60.0  # between making a folder and locking it


@dataclass(frozen=True)
class Uploads:
    """Uploaded files.

    Attributes:
        folder: holds these files only.
        paths: path of each file by the name that the client gave it, in the order of the request.
    """

    folder: Path
    paths: dict[str, Path]

    @property
    def first(self) -> Path:
        """Path of the first file."""
        return next(iter(self.paths.values()))


class Incoming:
    """Folder for the files of requests in progress: inside the collection, where a killed service leaves nothing for long.

    Each service has a folder of its own there, and holds a lock on it. At the start those without one are deleted.
    """

    def __init__(self, collection: Path) -> None:
        """Make the folder; in the system's folder for temporary files, if the collection may not be written."""
        parent = collection / INCOMING
        try:
            parent.mkdir(exist_ok=True)
            for left in parent.iterdir():
                if _is_left(left):
                    shutil.rmtree(left, ignore_errors=True)
            self.folder = Path(tempfile.mkdtemp(prefix="service-", dir=parent))
        except OSError:
            self.folder = Path(tempfile.mkdtemp(prefix="mvr-service-"))
        self._lock = (self.folder / _LOCK).open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()
        with contextlib.suppress(OSError):  # another service has a folder there
            if self.folder.parent.name == INCOMING:
                self.folder.parent.rmdir()


def _is_left(folder: Path) -> bool:
    """Whether the service that made this folder has ended."""
    try:
        with (folder / _LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:  # it was killed, or is just starting
        return time.time() - folder.stat().st_mtime > _STARTING_S
    except OSError:
        return False
    return True


@contextmanager
def saved_uploads(files: Sequence[UploadFile], settings: ServiceSettings, incoming: Incoming) -> Iterator[Uploads]:
    """Save uploaded files, and delete them at the end of the block.

    Raises:
        ProblemError: there are too many files, or a name is used twice or cannot be used.
    """
    if len(files) > settings.max_files:
        raise ProblemError("too_many_files", f"{len(files)} files in one request, at most {settings.max_files} allowed")
    with tempfile.TemporaryDirectory(prefix="request-", dir=incoming.folder) as folder:
        paths: dict[str, Path] = {}
        for file in files:
            name = file.filename or ""
            path = Path(folder, *safe_parts(name))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as out:
                    shutil.copyfileobj(file.file, out)
            except (FileExistsError, NotADirectoryError):  # also where one file's name is another one's folder
                raise ProblemError("duplicate_file", f"two files are called '{name}': rename one") from None
            paths[name] = path
        try:
            yield Uploads(Path(folder), paths)
        except MvrError as error:  # clients do not see the temporary folder
            raise type(error)(str(error).replace(f"{folder}/", ""), code=error.code) from error.__cause__


def safe_parts(name: str) -> list[str]:
    """Folders and name of a file as parts that stay inside their folder and are valid on every file system.

    Raises:
        ProblemError: nothing is left, or it is too long or too deep.
    """
    parts = []
    for part in name.replace("\\", "/").split("/"):
        safe = "".join(c for c in part if c.isprintable() and c not in '<>:"|?*').lstrip(". ").rstrip()
        if safe:
            parts.append(safe)
    if not parts or len(parts) > _MAX_DEPTH or any(len(part.encode()) > _MAX_NAME_BYTES for part in parts):
        raise ProblemError("bad_file_name", f"'{name[:100]}' cannot be the name of a file: rename it")
    return parts


def check_image(path: Path, settings: ServiceSettings) -> int:
    """Check the format and size of an image before it is decoded.

    Returns:
        Number of pixels.

    Raises:
        QueryError: it is not an image of a supported format, or has too many pixels.
    """
    limit = settings.max_image_pixels
    try:
        with open_image(path) as image:
            pixels = limit + 1 if max(image.size) > _MAX_SIDE else int(image.width * image.height)
    except Image.DecompressionBombError:
        pixels = limit + 1
    except (OSError, ValueError, SyntaxError) as error:
        raise QueryError(
            f"{path.name} is not an image of a supported format: use PNG, JPEG or WebP", code="unknown_image_format"
        ) from error
    if pixels > limit:
        raise QueryError(
            f"{path.name} has more than {limit / 1e6:g} million pixels, or a side of more than {_MAX_SIDE:,}: make it smaller",
            code="too_many_pixels",
        )
    return pixels
