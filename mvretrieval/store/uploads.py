"""Files that were uploaded through a service: each upload is a folder inside the collection's folder, with a random name.

The name says to which object the files belong, wherever the collection is now.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from mvretrieval.store.store import Store

UPLOADS = "uploads"
"""Folder of a collection that holds the uploads."""
_NAME = re.compile("[0-9a-f]{16}")


def new_upload(folder: Path) -> Path:
    """Folder for the files of a new object of the collection in `folder`; not created yet."""
    return folder / UPLOADS / secrets.token_hex(8)


def upload_of(path: str) -> str | None:
    """Name of the upload that a file belongs to; None if it was not uploaded."""
    pairs = pairwise(Path(path).parts)
    return next((name for parent, name in pairs if parent == UPLOADS and _NAME.fullmatch(name)), None)


def current_path(path: str, folder: Path) -> Path:
    """Where a stored file is now: an uploaded one moves with the collection in `folder`."""
    name, parts = upload_of(path), Path(path).parts
    return Path(path) if name is None else folder.absolute().joinpath(UPLOADS, *parts[parts.index(name) :])


def relocate_uploads(store: Store, folder: Path) -> None:
    """Update the paths of uploads after the collection was moved, copied or restored. The caller may write."""
    moved = [
        (row_id, now)
        for row_id, path in store.paths_with(f"/{UPLOADS}/")
        if (now := current_path(path, folder)) != Path(path) and now.is_file()
    ]
    if moved:
        with store.transaction():
            for row_id, now in moved:
                store.move(row_id, str(now), store.stat_of(row_id), str(now.parent))


def missing_uploads(store: Store, folder: Path) -> list[int]:
    """Row ids of the objects whose uploaded file is not there."""
    return [row_id for row_id, path in store.paths_with(f"/{UPLOADS}/") if not current_path(path, folder).is_file()]


def used_uploads(store: Store) -> set[str]:
    """Names of the uploads that objects use."""
    return {name for _, path in store.paths_with(f"/{UPLOADS}/") if (name := upload_of(path))}


def unused_uploads(store: Store, folder: Path, min_age_s: float) -> Iterator[Path]:
    """Uploads that no object uses, and whose folder has not changed for that long.

    A process that is killed between saving the files and adding the object leaves one. So does an older database that is put
    back: its missing objects are in these folders.
    """
    uploads = folder / UPLOADS
    used, newest = used_uploads(store), time.time() - min_age_s
    for upload in uploads.iterdir() if uploads.is_dir() else ():
        if _NAME.fullmatch(upload.name) and upload.name not in used and upload.stat().st_mtime <= newest:
            yield upload
