"""Objects that would look different with the present readers: finding them, and embedding them again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from mvrender.formats import FORMATS, reader_version
from mvrender.jobs import Failed, Rendered
from mvretrieval.ingest.add import new_objects
from mvretrieval.ingest.jobs import MeshJob
from mvretrieval.ingest.reembed import Failure
from mvretrieval.session.session import Session

_BATCH = 8


def outdated_row_ids(session: Session) -> list[int]:
    """Row ids of objects whose files were loaded with an older reader of their format."""
    current = {suffix[1:]: reader_version(suffix) for suffix in FORMATS}
    return session.store.row_ids_of_older_readers(current)


def outdated_by_format(session: Session) -> dict[str, int]:
    """Number of these objects by format, the most frequent first."""
    row_ids = outdated_row_ids(session)
    records = session.store.records(row_ids)
    return dict(Counter(records[row_id].facts["format"] for row_id in row_ids).most_common())


def reembed_outdated(session: Session, progress: Callable[[int, int], None] | None = None) -> tuple[int, list[Failure]]:
    """Render and embed the outdated objects again, a few at a time: a kill loses at most these.

    Returns:
        Number of objects that were embedded, and the failures: these objects stay as they were.
    """
    session.lock_for_writing()
    row_ids = outdated_row_ids(session)
    if not row_ids:
        return 0, []
    session.check_encoder()
    ids: dict[str, str] = {}
    failed: list[Failure] = []
    batch: list[Rendered] = []
    for done, result in enumerate(session.render_pool().run(_jobs(session, row_ids, ids)), start=1):
        if isinstance(result, Failed):
            failed.append((ids[str(result.job.path)], result.code, result.message))
        else:
            batch.append(result)
            if len(batch) == _BATCH:
                _store(session, batch, ids)
                batch = []
        if progress is not None:
            progress(done, len(row_ids))
    _store(session, batch, ids)
    session.augmenter.refresh()
    return len(row_ids) - len(failed), failed


def _jobs(session: Session, row_ids: list[int], ids: dict[str, str]) -> Iterator[MeshJob]:
    for row_id in row_ids:
        record = session.store.records([row_id])[row_id]
        root = session.store.root_of(row_id)
        ids[record.path] = record.id
        yield MeshJob(Path(record.path), Path(root) if root else None, record.facts["up"])


def _store(session: Session, batch: list[Rendered], ids: dict[str, str]) -> None:
    if not batch:
        return
    new = new_objects(session, batch, [ids[str(item.opened.job.path)] for item in batch])
    store = session.store
    with store.transaction():
        sequence = store.next_sequence()
        for item in new:
            store.put(item, sequence)
