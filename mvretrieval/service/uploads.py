"""Files that come with a request: kept in a folder of their own while it is worked on."""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from itertools import pairwise
from pathlib import Path

import anyio
from fastapi import UploadFile
from PIL import Image
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mvretrieval.api import Collection
from mvretrieval.errors import MvrError
from mvretrieval.ingest.scan import absolute
from mvretrieval.service.guard import most_bytes, too_large
from mvretrieval.service.problems import ProblemError
from mvretrieval.service.settings import ServiceSettings

_UPLOAD = re.compile("[0-9a-f]{16}")
UPLOADS = "uploads"
"""Folder of a collection for the files of objects that were uploaded, each in a folder of its own."""


def settle_uploads(collection: Collection) -> None:
    """Find the uploaded files of a collection that was moved or copied, and delete those that no object is made of.

    A kill between a file and its object leaves the latter behind.
    """
    folder = absolute(collection.folder) / UPLOADS
    if not folder.is_dir():
        return
    store = collection.store
    uploaded = [
        (row_id, Path(path), name) for row_id, path in store.paths_with(f"/{UPLOADS}/") if (name := upload_of(path))
    ]
    with store.transaction():
        for row_id, path, name in uploaded:
            there = path.parts.index(name)
            here = folder.joinpath(*path.parts[there:])
            if here != path and here.is_file():
                store.move(row_id, str(here), store.stat_of(row_id), str(here.parent))
    used = {name for _, _, name in uploaded}
    for place in folder.iterdir():
        if _UPLOAD.fullmatch(place.name) and place.name not in used:
            shutil.rmtree(place, ignore_errors=True)


def new_upload(collection: Collection) -> Path:
    """A folder for the files of a new object; not made yet."""
    return collection.folder / UPLOADS / secrets.token_hex(8)


def forget_upload(collection: Collection, path: str) -> None:
    """Delete what was uploaded for an object that is gone, if it was."""
    if name := upload_of(path):
        shutil.rmtree(collection.folder / UPLOADS / name, ignore_errors=True)


def upload_of(path: str) -> str | None:
    """Name of the upload that a file is of. It is random: a collection may be moved, or called by another path, and it stays."""
    pairs = pairwise(Path(path).parts)
    return next((name for before, name in pairs if before == UPLOADS and _UPLOAD.fullmatch(name)), None)


# Pillow reads many more, some by code that few have ever looked at.
_PICTURES = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]
_DEEPEST, _LONGEST = 8, 200


_SECONDS_BETWEEN_PARTS = 30.0


class BodyLimit:
    """Stops reading a request that has too many bytes, whatever it said of its length, or that stalls."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, counting."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        read, most, is_whole = 0, most_bytes(scope, self._settings), False

        async def counted() -> Message:
            nonlocal read, is_whole
            if is_whole:  # what comes now is the end of the connection
                return await receive()
            try:
                with anyio.fail_after(_SECONDS_BETWEEN_PARTS):
                    message = await receive()
            except TimeoutError:
                raise ProblemError(
                    HTTPStatus.REQUEST_TIMEOUT,
                    "too_slow",
                    f"nothing came for {_SECONDS_BETWEEN_PARTS:g} s: send it again",
                ) from None
            read += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if read > most:
                raise too_large(most)
            return message

        await self._app(scope, counted, send)


@dataclass(frozen=True)
class Kept:
    """Uploaded files.

    Attributes:
        folder: where they are, and nothing else.
        paths: of each, by the name that it came with; in the order in which they came.
    """

    folder: Path
    paths: dict[str, Path]


@contextmanager
def kept(files: Sequence[UploadFile], settings: ServiceSettings) -> Iterator[Kept]:
    """Uploaded files, gone afterwards.

    Raises:
        ProblemError: too many, or two of one name.
    """
    if len(files) > settings.max_files:
        raise ProblemError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_many_files", f"more than {settings.max_files} files"
        )
    with tempfile.TemporaryDirectory(prefix="mvr-upload-") as folder:
        found: dict[str, Path] = {}
        for file in files:
            given = file.filename or ""
            path = Path(folder, *safe_parts(given))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as out:
                    shutil.copyfileobj(file.file, out)
            except (
                FileExistsError,
                NotADirectoryError,
            ):  # or a folder is called so, or a file is called as the folder has to be
                raise ProblemError(
                    HTTPStatus.UNPROCESSABLE_ENTITY, "bad_request", f"two files are called '{given}'"
                ) from None
            found[given] = path
        try:
            yield Kept(Path(folder), found)
        except MvrError as error:  # where the files were for a moment is nobody's business
            raise type(error)(str(error).replace(f"{folder}/", "")) from error.__cause__


def safe_parts(name: str) -> list[str]:
    """A file's name as folders and a last part that cannot lead anywhere else, and that every file system can hold.

    Raises:
        ProblemError: nothing is left, or too much.
    """
    parts = []
    for part in name.replace("\\", "/").split("/"):
        plain = "".join(c for c in part if c.isprintable() and c not in '<>:"|?*').lstrip(". ").rstrip()
        if plain:
            parts.append(plain)
    if not parts or len(parts) > _DEEPEST or any(len(part.encode()) > _LONGEST for part in parts):
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "bad_request",
            f"an uploaded file cannot be called '{name[:100]}': rename it",
        )
    return parts


def check_picture(path: Path, settings: ServiceSettings) -> int:
    """Refuse what is no picture, or one with too many pixels, before it is decoded.

    Returns:
        Its pixels.

    Raises:
        ProblemError: it is one of these.
    """
    try:
        with Image.open(path, formats=_PICTURES) as picture:
            pixels = int(picture.width * picture.height)
    except Image.DecompressionBombError:
        pixels = settings.max_picture_pixels + 1
    except (OSError, ValueError, SyntaxError) as error:
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "unknown_picture",
            f"{path.name} is not a picture known here: try PNG, JPEG or WebP",
        ) from error
    if pixels > settings.max_picture_pixels:
        raise ProblemError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "too_many_pixels",
            f"{path.name} has more than {settings.max_picture_pixels // 1_000_000} million pixels: make it smaller",
        )
    return pixels
