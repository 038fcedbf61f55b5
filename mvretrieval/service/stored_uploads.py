"""Uploaded files of stored objects: each upload is a folder inside the collection's folder."""

from __future__ import annotations

import re
import secrets
import shutil
from itertools import pairwise
from pathlib import Path

from mvretrieval.api import Collection
from mvretrieval.ingest.scan import absolute

UPLOADS = "uploads"
"""Folder of a collection that holds the uploads."""
_NAME = re.compile("[0-9a-f]{16}")


def new_upload(collection: Collection) -> Path:
    """Folder for the files of a new object; not created yet."""
    return collection.folder / UPLOADS / secrets.token_hex(8)


def delete_upload(collection: Collection, path: str) -> None:
    """Delete the upload that a file of a removed object belongs to, if it was uploaded."""
    if name := upload_of(path):
        shutil.rmtree(collection.folder / UPLOADS / name, ignore_errors=True)


def upload_of(path: str) -> str | None:
    """Name of the upload that a file belongs to. Names are random, so they survive a move of the collection."""
    pairs = pairwise(Path(path).parts)
    return next((name for parent, name in pairs if parent == UPLOADS and _NAME.fullmatch(name)), None)


def repair_uploads(collection: Collection) -> None:
    """Update the paths of uploads after the collection was moved or copied, and delete uploads that no object uses.

    A process that is killed between saving the files and adding the object leaves such an upload.
    """
    folder = absolute(collection.folder) / UPLOADS
    if not folder.is_dir():
        return
    store = collection.session.store
    uploaded = [
        (row_id, Path(path), name) for row_id, path in store.paths_with(f"/{UPLOADS}/") if (name := upload_of(path))
    ]
    with store.transaction():
        for row_id, path, name in uploaded:
            current = folder.joinpath(*path.parts[path.parts.index(name) :])
            if current != path and current.is_file():
                store.move(row_id, str(current), store.stat_of(row_id), str(current.parent))
    used = {name for _, _, name in uploaded}
    for upload in folder.iterdir():
        if _NAME.fullmatch(upload.name) and upload.name not in used:
            shutil.rmtree(upload, ignore_errors=True)
