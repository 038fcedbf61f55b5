"""Files of a request, saved in a temporary folder while the request is handled."""

from __future__ import annotations

import shutil
import tempfile
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


@contextmanager
def saved_uploads(files: Sequence[UploadFile], settings: ServiceSettings) -> Iterator[Uploads]:
    """Save uploaded files, and delete them at the end of the block.

    Raises:
        ProblemError: there are too many files, or a name is used twice or cannot be used.
    """
    if len(files) > settings.max_files:
        raise ProblemError("too_many_files", f"{len(files)} files in one request, at most {settings.max_files} allowed")
    with tempfile.TemporaryDirectory(prefix="mvr-upload-") as folder:
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
            pixels = int(image.width * image.height)
    except Image.DecompressionBombError:
        pixels = limit + 1
    except (OSError, ValueError, SyntaxError) as error:
        raise QueryError(
            f"{path.name} is not an image of a supported format: use PNG, JPEG or WebP", code="unknown_image_format"
        ) from error
    if pixels > limit:
        raise QueryError(
            f"{path.name} has more than {limit / 1e6:g} million pixels: make it smaller", code="too_many_pixels"
        )
    return pixels
