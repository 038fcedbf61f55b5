"""Copy a collection while it is in use: a consistent state, with its uploads."""

from __future__ import annotations

import contextlib
import os
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mvretrieval.errors import CollectionError
from mvretrieval.index.augmenter import ORIGINAL_INDEX
from mvretrieval.index.vector_index import VectorIndex
from mvretrieval.store.store import FILE, Store
from mvretrieval.store.uploads import UPLOADS, missing_uploads, relocate_uploads, used_uploads

_ATTEMPTS = 5


@dataclass(frozen=True)
class CopyReport:
    """What was copied.

    Attributes:
        objects: number of objects.
        uploads: number of uploads.
        missing: ids of objects whose upload was missing in the source already.
        size_bytes: of all files of the copy.
    """

    objects: int
    uploads: int
    missing: tuple[str, ...]
    size_bytes: int


def copy_collection(source: Path, target: Path) -> CopyReport:
    """Copy a collection that others may be reading and writing. The copy appears whole or not at all.

    The index is copied if it belongs to the copied state; otherwise the copy builds one at its first search. Meshes are not copied:
    a collection stores their paths.

    Raises:
        CollectionError: `source` is no collection or damaged (code `copy_damaged`), `target` exists (`target_exists`) or cannot be
            written (`copy_failed`).
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CollectionError(f"{target} exists: name a folder that does not", code="target_exists")
    part = target.absolute().with_name(f"{target.name}.part")
    with closing(Store.open(source)) as store:  # also migrates an earlier version
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            missing = _copy_state(store, source, part)
            _copy_indexes(source, part)
            with closing(Store.open(part)) as copy:
                report = _verified(copy, source, part, missing)
            _flush(part)
            if target.is_dir():
                target.rmdir()
            part.rename(target)
            with closing(Store.open(target)) as copy:
                relocate_uploads(copy, target)
        except OSError as error:
            raise CollectionError(
                f"{source} cannot be copied to {target} ({error}): check the space and the mode", code="copy_failed"
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return report


def _copy_state(store: Store, source: Path, part: Path) -> set[str]:
    """Copy the database and the uploads that it uses; names of uploads that the source lacks.

    An object that is removed in between takes its upload with it: then a later state is copied.
    """
    lacking: set[str] | None = None
    for _ in range(_ATTEMPTS):
        for left in part.glob(f"{FILE}*"):
            left.unlink()
        store.db.backup(part / FILE)
        with closing(Store.open(part)) as copy:
            used = used_uploads(copy)
        missing = {name for name in used if not _copied(source / UPLOADS / name, part / UPLOADS / name)}
        for extra in (part / UPLOADS).iterdir() if (part / UPLOADS).is_dir() else ():
            if extra.name not in used:
                shutil.rmtree(extra)
        if missing == (lacking or set()):
            return missing
        lacking = missing
    raise CollectionError(
        f"{source} changes faster than it can be copied: try again when less is removed", code="copy_failed"
    )


def _copied(upload: Path, target: Path) -> bool:
    if target.exists():
        return True
    try:
        shutil.copytree(upload, target)
    except OSError:  # a full disk, or it is being removed
        shutil.rmtree(target, ignore_errors=True)
        if upload.exists():
            raise
        return False
    return True


def _copy_indexes(source: Path, part: Path) -> None:
    """Copy saved indexes. One that is replaced meanwhile is left out: it can be built again."""
    for folder in (Path(), Path(ORIGINAL_INDEX)):
        for head in (source / folder).glob("index-*.npz"):
            with contextlib.suppress(FileNotFoundError):
                (part / folder).mkdir(exist_ok=True)
                for file in sorted((source / folder).glob(f"{head.stem}.*"), key=lambda file: file.suffix == ".npz"):
                    if file.suffix != ".part":
                        shutil.copy2(file, part / folder / file.name)
    with closing(Store.open(part)) as copy:
        for folder in (part, part / ORIGINAL_INDEX):
            VectorIndex.discard_newer(folder, copy.sequence, copy.generation)


def _verified(copy: Store, source: Path, part: Path, missing: set[str]) -> CopyReport:
    """Check the copy, and describe it."""
    problems = copy.db.integrity_problems()
    if problems:
        raise CollectionError(
            f"{source} is damaged ({problems[0]}): run 'mvr check {source}', or restore a backup", code="copy_damaged"
        )
    gone = missing_uploads(copy, part)
    records = copy.records(gone)
    return CopyReport(
        objects=copy.count(),
        uploads=len(used_uploads(copy) - missing),
        missing=tuple(records[row_id].id for row_id in gone),
        size_bytes=sum(file.stat().st_size for file in part.rglob("*") if file.is_file()),
    )


def _flush(folder: Path) -> None:
    """Write everything to the disk, before the name of the copy says that it is whole."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
