"""Check a collection: the database, the vectors, the saved index, and the uploaded files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvretrieval.index.augmenter import ORIGINAL_INDEX
from mvretrieval.index.vector_index import VectorIndex
from mvretrieval.ingest.imported_objects import is_imported_path
from mvretrieval.ingest.scan import is_gone
from mvretrieval.session.session import Session
from mvretrieval.store.augmented import search_vectors, search_vectors_since
from mvretrieval.store.batches import original_vectors
from mvretrieval.store.store import Store
from mvretrieval.store.uploads import missing_uploads, unused_uploads, upload_of

_BATCH = 4096
_UNIT_TOLERANCE = 1e-3
_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        code: stable name of the kind.
        message: what it is, and the next step.
        is_damage: something is lost or wrong; otherwise it is worth knowing.
        paths: files and folders to delete, by which it is repaired.
    """

    code: str
    message: str
    is_damage: bool
    paths: tuple[Path, ...] = ()


def check_collection(session: Session) -> list[Finding]:
    """Check everything that a collection stores. Reads all of it, and changes nothing."""
    with session.store.snapshot():
        problems = session.store.db.integrity_problems()
        if problems:  # what follows would only repeat it
            return [Finding("database_damaged", f"{text}; restore a backup", True) for text in problems]
        vectors = list(_vectors(session))
        indexes = [] if vectors else _indexes(session)  # they are compared with the vectors
        return [*vectors, *indexes, *_uploads(session), *_meshes(session)]


def repair(findings: list[Finding]) -> list[Finding]:
    """Delete derived and unused files. Returns the findings that are repaired by it."""
    repaired = [finding for finding in findings if finding.paths]
    for path in {path for finding in repaired for path in finding.paths}:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return repaired


def _vectors(session: Session) -> Iterator[Finding]:
    """Objects without a vector of the right length and norm."""
    store, dim, bad = session.store, session.dim, []
    row_ids = store.select(None)
    for start in range(0, len(row_ids), _BATCH):
        some = row_ids[start : start + _BATCH]
        found = dict.fromkeys(some.tolist(), False)
        for row_id, blob in store.db.all(
            f"SELECT row_id, vector FROM vectors WHERE row_id IN ({','.join('?' * len(some))})", some.tolist()
        ):
            vector = np.frombuffer(blob, np.float32) if len(blob) == 4 * dim else np.empty(0, np.float32)
            found[row_id] = bool(len(vector) and abs(float(np.linalg.norm(vector)) - 1) <= _UNIT_TOLERANCE)
        bad += [row_id for row_id, is_good in found.items() if not is_good]
    if bad:
        yield Finding(
            "bad_vectors",
            f"{_listed(session, bad)} without a valid vector: remove them ('mvr remove') and index their files again",
            True,
        )


def _indexes(session: Session) -> Iterator[Finding]:
    """Saved indexes that cannot be read, or whose vectors differ from those of the database."""
    store = session.store
    for folder, vectors in ((session.folder, search_vectors), (session.folder / ORIGINAL_INDEX, original_vectors)):
        files = tuple(sorted(folder.glob("index-*")))
        if not any(file.suffix == ".npz" for file in files):
            continue
        index = VectorIndex.load(folder, store.generation)
        if index is None:
            message = f"the saved index in {folder} cannot be read or is outdated: the next search builds it again"
            yield Finding("index_unreadable", message, False, files)
            continue
        slots = index.live_slots()
        slots = slots[np.isin(index.row_ids[slots], _unchanged_since(store, index.sequence))]
        n_different = 0
        for start in range(0, len(slots), _BATCH):
            some = slots[start : start + _BATCH]
            row_ids = index.row_ids[some]
            found, stored = vectors(store, row_ids.tolist())
            saved = index.rows.take(some[np.isin(row_ids, found)])
            n_different += int((~np.isclose(saved, stored, atol=1e-6).all(axis=1)).sum())
        if n_different:
            message = f"{n_different} vectors of the saved index in {folder} differ from those of the database"
            yield Finding("index_damaged", f"{message}: searches give wrong hits", True, files)


def _unchanged_since(store: Store, sequence: int) -> NDArray[np.int64]:
    """Row ids (n,) of the objects whose searched vector is as it was at `sequence`."""
    changed = [row_ids for row_ids, _ in search_vectors_since(store, sequence)]
    return np.setdiff1d(store.select(None), np.concatenate([np.empty(0, np.int64), *changed]))


def _uploads(session: Session) -> Iterator[Finding]:
    """Uploads that are missing, and those that no object uses."""
    store, folder = session.store, session.folder
    lost = missing_uploads(store, folder)
    if lost:
        yield Finding(
            "upload_missing",
            f"the uploaded files of {_listed(session, lost)} are missing: they can be searched, but not rendered again; "
            "restore the folder 'uploads' from a backup",
            True,
        )
    unused = tuple(unused_uploads(store, folder, 0))
    if unused:
        message = (
            f"{len(unused)} uploads belong to no object, from a service that was killed or a database that was put back"
        )
        yield Finding("upload_unused", message, False, unused)


def _meshes(session: Session) -> Iterator[Finding]:
    """Indexed files that no longer exist."""
    store, gone = session.store, []
    row_ids = store.select(None).tolist()
    for start in range(0, len(row_ids), _BATCH):
        for row_id, record in store.records(row_ids[start : start + _BATCH]).items():
            if not is_imported_path(record.path) and upload_of(record.path) is None and is_gone(record.path):
                gone.append(row_id)
    if gone:
        message = f"the files of {_listed(session, gone)} no longer exist: 'mvr index --prune' removes such objects"
        yield Finding("file_missing", message, False)


def _listed(session: Session, row_ids: list[int]) -> str:
    ids = [record.id for record in session.store.records(row_ids[:_SHOWN]).values()]
    more = ", ..." if len(row_ids) > len(ids) else ""
    return f"{len(row_ids)} objects ({', '.join(ids)}{more})" if len(row_ids) > 1 else f"1 object ({ids[0]})"
