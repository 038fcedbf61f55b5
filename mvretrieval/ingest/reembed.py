"""Re-embedding a collection: from stored views where they still fit, from the files where they do not.

New views are collected in a staging collection beside the old one, so that a kill loses nothing and the next run resumes. In the
end one transaction replaces the old views. Readers see the old vectors or the new ones, never a mixture.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mvrender.jobs import Failed, Rendered, always
from mvretrieval.describe import DescriberConfig
from mvretrieval.errors import CollectionError, DescriberError
from mvretrieval.ingest.add import new_objects
from mvretrieval.ingest.edit import remove_objects
from mvretrieval.ingest.imported_objects import check_not_imported
from mvretrieval.ingest.jobs import IngestJob, MeshJob
from mvretrieval.ingest.repool import fit_whitening, repool
from mvretrieval.ingest.view_images import FORMAT, ViewImageReader, ViewImagesJob
from mvretrieval.session.session import Session
from mvretrieval.store.schema import FILE

if TYPE_CHECKING:
    from mvretrieval.weighting.adapter import Adapter  # loads torch

STAGING = "reindex"
"""Folder, in the collection's, of the staging collection."""
_BATCH = 4

Progress = Callable[[int, int], None]
Failure = tuple[str, str, str]
"""Id, code and message of an object that could not be embedded."""


def reembed(
    session: Session,
    config: DescriberConfig,
    fit_where: str | None = None,
    drop_missing: bool = False,
    progress: Progress | None = None,
    adapter: Adapter | None = None,
) -> list[Failure]:
    """Embed every object as `config` says (see `Collection.reembed`)."""
    session.lock_for_writing()
    if config.adapter and adapter is None:
        adapter = session.describer.adapter
    if same_views(session, config):
        _repool(session, config, fit_where, adapter)
        return []
    _check_view_images(session, config)
    staging = _open_staging(session, config, adapter)
    try:
        failed = _Fill(session, staging, progress).run()
        if failed and not drop_missing:
            shown = "; ".join(f"{object_id}: {message}" for object_id, _, message in failed[:3])
            raise CollectionError(
                f"{len(failed)} objects cannot be re-embedded ({shown}). Nothing was changed. Restore their files and run "
                "this again, which resumes, or pass --drop-missing to remove them",
                code="objects_missing",
            )
        if config.wants_whitening:
            _copy_labels(session, staging)
            fit_whitening(staging, fit_where)
        _swap(session, staging)
    finally:
        staging.close()
    shutil.rmtree(session.folder / STAGING)
    return failed


def same_views(session: Session, config: DescriberConfig) -> bool:
    """Whether the stored views are those of `config`: same cameras, styles and encoder, including its weights."""
    old = session.describer
    pooled = {name: getattr(old.config, name) for name in ("pooling", "center", "whiten", "adapter")}
    return (
        replace(config, **pooled) == old.config and session.store.get_meta("view_fingerprint") == old.view_fingerprint
    )


def _repool(session: Session, config: DescriberConfig, fit_where: str | None, adapter: Adapter | None) -> None:
    """Only pooling, whitening or the adapter differ: the stored views are enough."""
    if config.adapter:
        assert adapter is not None
        repool(session, session.describer.with_adapter(adapter))
        return
    describer = session.describer.with_whitening(None).with_config(
        pooling=config.pooling, center=config.center, whiten=config.whiten, adapter=""
    )
    if config.wants_whitening:
        fit_whitening(session, fit_where, describer)
    else:
        repool(session, describer)


def _check_view_images(session: Session, config: DescriberConfig) -> None:
    """Refuse other cameras or styles for objects that have view images instead of a mesh, and everything for imported vectors."""
    check_not_imported(
        session,
        "they cannot be encoded or rendered again. --whiten, --center, --pooling, --adapter, --dba and --index work with them; "
        "import vectors of another encoder into a new collection",
    )
    old = session.describer.config
    wanted = [f"rig {config.rig}"] if config.rig != old.rig else []
    wanted += [f"styles {', '.join(config.styles)}"] if config.styles != old.styles else []
    count = session.store.count_of_format(FORMAT) if wanted else 0
    if count:
        raise DescriberError(
            f"{count} objects of {session.folder} were indexed from view images, which cannot be rendered with "
            f"{' and '.join(wanted)}. Leave --rig and --styles out: --encoder, --size, --whiten, --pooling and --adapter work "
            "with view images; or index the meshes into a new collection",
            code="views_cannot_be_rendered",
        )


def _open_staging(session: Session, config: DescriberConfig, adapter: Adapter | None) -> Session:
    folder = session.folder / STAGING
    if (folder / FILE).exists():
        staging = Session.open(folder, session.options, write=True)
        stored = staging.store.get_meta("view_fingerprint")
        if staging.describer.config == config and stored == staging.describer.view_fingerprint:
            return staging
        staging.close()
    if folder.exists():
        shutil.rmtree(folder)
    return Session.create(folder, replace(config, adapter=""), session.options, adapter=adapter)


class _Fill:
    """Embeds the objects of a collection into a staging collection, under the same ids."""

    def __init__(self, session: Session, staging: Session, progress: Progress | None) -> None:
        self._session = session
        self._staging = staging
        self._progress = progress
        self._row_ids = [int(row_id) for row_id in session.store.select(None)]
        self._ids: dict[str, str] = {}  # by path
        self._batch: list[Rendered] = []
        self._done = 0

    def run(self) -> list[Failure]:
        """Embed everything that staging lacks; returns the objects that failed."""
        _drop_outdated(self._session, self._staging)
        failed: list[Failure] = []
        for result in self._results():
            self._done += 1
            if isinstance(result, Failed):
                object_id = self._ids[str(result.job.path)]
                failed.append((object_id, result.code, result.message))
                remove_objects(self._staging, object_id)
            else:
                self._batch.append(result)
                if len(self._batch) >= _BATCH:
                    self._flush()
            if self._progress is not None:
                self._progress(self._done, len(self._row_ids))
        self._flush()
        return failed

    def _results(self) -> Iterator[Rendered | Failed]:
        staging = self._staging
        n_view_images = self._session.store.count_of_format(FORMAT)
        if n_view_images < len(self._row_ids):
            yield from staging.render_pool().run(self._jobs(from_images=False))
        if n_view_images:
            describer = staging.describer
            reader = ViewImageReader(describer.rig, describer.config.size, staging.options.workers)
            yield from reader.run(self._jobs(from_images=True), always)

    def _jobs(self, from_images: bool) -> Iterator[IngestJob]:
        store = self._session.store
        for row_id in self._row_ids:
            record = store.records([row_id])[row_id]
            if (record.facts["format"] == FORMAT) != from_images:
                continue
            self._ids[record.path] = record.id
            root = store.root_of(row_id)
            if from_images:
                job: IngestJob = ViewImagesJob.of_record(record, root, store.stat_of(row_id))
            else:
                job = MeshJob(Path(record.path), Path(root) if root else None, record.facts["up"])
            known = self._staging.store.by_path(record.path)
            if known is not None and job.is_unchanged(known[2]):
                self._done += 1
                continue
            yield job

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        if not batch:
            return
        new = new_objects(self._staging, batch, [self._ids[str(item.opened.job.path)] for item in batch])
        store = self._staging.store
        with store.transaction():
            sequence = store.next_sequence()
            for item in new:
                store.put(item, sequence)


def _drop_outdated(session: Session, staging: Session) -> None:
    """Remove objects from staging that have moved, were rotated or removed since an interrupted run."""
    row_ids = [int(row_id) for row_id in staging.store.select(None)]
    outdated = []
    for record in staging.store.records(row_ids).values():
        now = session.store.by_path(record.path)
        if now is None or now[3] != record.facts["up"] or session.store.row_id_of(record.id) != now[0]:
            outdated.append(record.id)
    if outdated:
        remove_objects(staging, *outdated)


def _copy_labels(session: Session, staging: Session) -> None:
    """Copy labels to staging, where the filter of the objects that whitening is fitted on may name them."""
    row_ids = [int(row_id) for row_id in session.store.select(None)]
    with staging.store.transaction():
        for record in session.store.records(row_ids).values():
            row_id = staging.store.row_id_of(record.id)
            if row_id is not None and record.metadata:
                staging.store.set_metadata(row_id, record.metadata)


def _swap(session: Session, staging: Session) -> None:
    """Replace views, vectors and describer by those of staging, in one transaction."""
    store = session.store
    with store.transaction():
        row_ids = [int(row_id) for row_id in store.select(None)]
        sequence = store.next_sequence()
        for start in range(0, len(row_ids), 500):
            for record in store.records(row_ids[start : start + 500]).values():
                staged = staging.store.row_id_of(record.id)
                if staged is None:
                    store.delete([record.id], sequence)
                    continue
                views, _ = staging.views(staged)
                store.put(staging.store.whole(staged, views.shape), sequence)
        store.bump_all(sequence)
        store.next_generation()
        session.augmenter.recompute()
        store.set_meta("view_fingerprint", None)
        session.write_describer(staging.describer)
