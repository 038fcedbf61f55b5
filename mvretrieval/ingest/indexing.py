"""The indexing run: from mesh folders or view images to stored objects. Streaming, resumable; a bad file never stops it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mvrender.jobs import Failed, Opened, Rendered
from mvrender.mesh import UpAxis
from mvretrieval.errors import DescriberError, FilterError
from mvretrieval.ingest.add import new_objects
from mvretrieval.ingest.classify import Action, FileState, classify
from mvretrieval.ingest.index_report import PASSED_OVER, IndexOptions, IndexReport
from mvretrieval.ingest.jobs import IngestJob, job_of
from mvretrieval.ingest.labels_csv import Labels, read_labels
from mvretrieval.ingest.repool import fit_whitening
from mvretrieval.ingest.scan import absolute, is_gone
from mvretrieval.ingest.sources import MeshFolders, Source
from mvretrieval.ingest.view_images import ViewImages
from mvretrieval.ingest.view_manifest import ViewManifest, read_view_manifest
from mvretrieval.session.session import Session
from mvretrieval.store.augmented import augmented_vector
from mvretrieval.store.records import NewObject

_HANDLE_KNOWN_EVERY = 256


def index_folders(session: Session, folders: list[Path], options: IndexOptions | None = None) -> IndexReport:
    """Add every mesh in `folders`; skip those that are stored and unchanged (see `Collection.add_folder`)."""
    options = options or IndexOptions()
    labels = _start(session, options)
    return _Run(session, MeshFolders(session, folders, options.limits), options, labels).run()


def index_views(
    session: Session, views: ViewManifest | Path, options: IndexOptions | None = None, in_rig_order: bool = False
) -> IndexReport:
    """Add every object of a view manifest; skip those that are stored and unchanged (see `Collection.add_views`)."""
    options = replace(options or IndexOptions(), up=None)  # for meshes only
    manifest = read_view_manifest(views) if isinstance(views, Path) else views
    source = ViewImages(session, manifest, in_rig_order)
    labels = _start(session, options)
    if labels is not None and options.labels is not None:
        labels = _labels_by_object(labels, manifest, options.labels.parent)
    return _Run(session, source, options, labels).run()


def _start(session: Session, options: IndexOptions) -> Labels | None:
    """Take the writer lock and check the inputs before any file is opened."""
    session.lock_for_writing()
    labels = read_labels(options.labels) if options.labels else None
    session.check_encoder()
    return labels


def _labels_by_object(labels: Labels, manifest: ViewManifest, folder: Path) -> Labels:
    """Labels by the paths of the objects; a row may name an object's folder, its id or its first image.

    Ids are relative to the manifest's folder or to `folder`, that of the labels: those may be the labels of the rendered meshes.
    """
    rows = dict(labels.rows)
    for one in manifest.objects:
        by_id = [str(absolute(place / one.id)) for place in (manifest.path.parent, folder)]
        names = (one.path, by_id[0], one.images[0], by_id[1])
        named = [rows.pop(name) for name in names if name in rows]
        if named:
            rows[one.path] = named[0]
    return Labels(rows, {}, labels.columns)


class _Run:
    """One indexing run. `_jobs` and `_needs_views` may run in threads of the source, everything else in the caller's."""

    def __init__(self, session: Session, source: Source, options: IndexOptions, labels: Labels | None) -> None:
        self.session = session
        self.store = session.store
        self.source = source
        self.options = options
        self.labels = labels
        self.report = IndexReport()
        self.total = 0
        self.done = 0
        self._lock = threading.Lock()
        self._in_flight: set[str] = set()
        self._scan_failures: list[tuple[IngestJob, str, str]] = []
        self._still_failing: set[str] = set()
        self._rebound: set[str] = set()
        self._batch: list[Rendered] = []
        self._known_content: list[Opened] = []
        describer = session.describer
        self._batch_size = max(1, describer.encoder.batch_size // (describer.n_styles * describer.rig.n_views))

    def run(self) -> IndexReport:
        """Index everything and report."""
        started = time.monotonic()
        self._rebound = self.source.rebind_paths()
        self._index_files()
        self._finish()
        self.report.seconds = time.monotonic() - started
        return self.report

    # -- the loop -------------------------------------------------------------------------------------------------

    def _index_files(self) -> None:
        self.report.found = self.total = sum(1 for _ in self.source.find())
        self.report.passed_over = self.source.passed_over.copy()
        with self.store.transaction():
            self.store.set_meta(PASSED_OVER, json.dumps(self.report.passed_over))
        jobs = self._jobs()
        while True:
            for result in self.source.run(jobs, self._needs_views):
                self._take(result)
            self._flush()
            later, self._known_content = self._known_content, []
            if not later:
                break
            # The first of several identical files failed, for example by a time-out: try the next one.
            self._in_flight.clear()
            jobs = iter([job_of(opened) for opened in later])

    def _jobs(self) -> Iterator[IngestJob]:
        """Files that have to be opened."""
        for found, problem in self.source.find():
            if problem is not None:
                with self._lock:
                    self._scan_failures.append((found, *problem))
                continue
            path = str(found.path)
            up = self._up(path)
            known = self.store.by_path(path)
            stat_matches = known is not None and found.is_unchanged(known[2])
            up_matches = known is None or up in (None, known[3])
            # Most files of a repeated run are unchanged: they need no second query.
            failure = None if stat_matches and up_matches else self.store.failure(path)
            state = FileState(
                stored=known is not None,
                stat_matches=stat_matches,
                up_matches=up_matches,
                failure_code=failure[0] if failure else None,
                failure_unchanged=failure is not None and found.still_fails(failure[1]),
            )
            match classify(state, self.options.retry):
                case Action.SKIP_UNCHANGED:
                    with self._lock:
                        self.report.unchanged += 1
                        self._step()
                case Action.SKIP_FAILED:
                    assert failure is not None
                    with self._lock:
                        self.report.failed[failure[0]] += 1
                        self._still_failing.add(path)
                        self._step()
                case _:
                    yield replace(found, up=up)

    def _up(self, path: str) -> UpAxis | None:
        return (self.labels.up.get(path) if self.labels else None) or self.options.up

    def _needs_views(self, opened: Opened) -> bool:
        """Whether a file has to be rendered: not if its content is stored already, or being rendered."""
        with self._lock:
            action = classify(self._state_of(opened, look_for_moves=False))
            if action is Action.RENDER:
                self._in_flight.add(opened.content_hash)
            return action is Action.RENDER

    def _state_of(self, opened: Opened, look_for_moves: bool = True) -> FileState:
        """State of an opened file.

        Args:
            opened: the file.
            look_for_moves: for a new path, check whether the holders' files are gone; rendering does not depend on it.
        """
        known = self.store.by_path(str(opened.job.path))
        holders = self.store.by_content(opened.content_hash)
        return FileState(
            stored=known is not None,
            stored_hash=known[1] if known else None,
            content_hash=opened.content_hash,
            holders_gone=tuple(look_for_moves and known is None and is_gone(path) for _, path in holders),
            in_flight=opened.content_hash in self._in_flight,
        )

    def _take(self, result: Rendered | Failed) -> None:
        if isinstance(result, Failed):
            assert isinstance(result.job, IngestJob)
            self._fail(result.job, result.code, result.message)
            return
        for note in result.opened.notes:
            self.report.notes.append((str(result.opened.job.path), note))
        if result.views is None:
            self._known_content.append(result.opened)
            if len(self._known_content) % _HANDLE_KNOWN_EVERY == 0:
                self._handle_known_content()
            return
        self._batch.append(result)
        if len(self._batch) >= self._batch_size:
            self._flush()

    # -- writing --------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Embed and write the rendered files in one transaction."""
        with self._lock:
            failures, self._scan_failures = self._scan_failures, []
        for found, code, message in failures:
            self._fail(found, code, message)
        batch, self._batch = self._batch, []
        if batch:
            self._write(batch)
        self._handle_known_content()

    def _write(self, batch: list[Rendered]) -> None:
        new = new_objects(self.session, batch, ["" for _ in batch])
        with self.store.transaction():
            sequence = self.store.next_sequence()
            for item, rendered in zip(new, batch, strict=True):
                self._put(item, rendered.opened, sequence)
        with self._lock:
            for rendered in batch:
                self._in_flight.discard(rendered.opened.content_hash)
        self._step(len(batch))

    def _put(self, item: NewObject, opened: Opened, sequence: int) -> None:
        is_new = self.store.by_path(item.path) is None
        if is_new:
            item = replace(item, id=self.store.free_id(job_of(opened).object_id))
        row_id = self.store.put(item, sequence)
        self._label(row_id, item.path)
        if is_new:
            self.report.added += 1
        else:
            self.report.replaced += 1

    def _handle_known_content(self) -> None:
        """Touch, move or copy objects whose content is stored; keep those whose content is still being rendered."""
        known, self._known_content = self._known_content, []
        for opened in known:
            action = classify(self._state_of(opened))
            if action in (Action.TOUCH, Action.MOVE, Action.COPY):
                with self.store.transaction():
                    self._reuse(action, opened)
                self._step()
            else:
                self._known_content.append(opened)

    def _reuse(self, action: Action, opened: Opened) -> None:
        path, job = str(opened.job.path), job_of(opened)
        stat = job.stat(opened.references)
        holders = self.store.by_content(opened.content_hash)
        if action is Action.TOUCH:
            known = self.store.by_path(path)
            assert known is not None
            self.store.set_stat(known[0], stat)
            if path in self._rebound:
                self.report.moved += 1
            else:
                self.report.unchanged += 1
        elif action is Action.MOVE:
            row_id = next(row_id for row_id, place in holders if is_gone(place))
            self.store.move(row_id, path, stat, job.root_folder)
            self._label(row_id, path)
            self.report.moved += 1
        else:
            is_new = self.store.by_path(path) is None
            self._put(self._copy_of(holders[0][0], opened), opened, self.store.next_sequence())
            self.report.identical += is_new

    def _copy_of(self, row_id: int, opened: Opened) -> NewObject:
        """The object of an opened file, with the vectors of an object with the same content."""
        job = job_of(opened)
        views, mask = self.session.views(row_id)
        return NewObject(
            id="",
            path=str(job.path),
            content_hash=opened.content_hash,
            stat=job.stat(opened.references),
            facts={**opened.facts, "up": opened.up},
            notes=opened.notes,
            vector=self.store.vector_of(row_id),
            view_vectors=views.astype("float16"),
            view_mask=mask,
            strip=self.store.strip_of(row_id) or b"",
            root=job.root_folder,
            augmented=augmented_vector(self.store, row_id),
        )

    def _fail(self, job: IngestJob, code: str, message: str) -> None:
        path, message = str(job.path), job.failure_message(message)
        with self.store.transaction():
            known = self.store.by_path(path)
            self.store.put_failure(path, code, message, job.failure_stat())
            if known is not None:
                message += "; the object keeps its earlier views"
        self._still_failing.add(path)
        self.report.failed[code] += 1
        self.report.failures.append((path, code, message))
        self._step()

    def _label(self, row_id: int, path: str) -> None:
        if self.labels is not None and path in self.labels.rows:
            self.report.labeled += self.store.set_metadata(row_id, self.labels.rows[path])

    def _step(self, count: int = 1) -> None:
        self.done += count
        if self.options.progress is not None:
            self.options.progress(self.done, self.total)

    # -- the end --------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Labels of objects that were stored before, missing files, whitening, augmentation, index."""
        self._label_all()
        self._look_for_missing()
        self._fit_whitening()
        self.report.augmented = self.session.augmenter.refresh()
        self.session.save_index()

    def _label_all(self) -> None:
        if self.labels is None:
            return
        with self.store.transaction():
            for path in self.labels.rows:
                known = self.store.by_path(path)
                if known is None:
                    self.report.unmatched_labels += 1
                    self.report.unmatched_label = self.report.unmatched_label or path
                else:
                    self._label(known[0], path)

    def _look_for_missing(self) -> None:
        fixed = [path for path in self.source.earlier_failures() if path not in self._still_failing]
        gone, removable = self.source.missing()
        self.report.gone = len(gone)
        with self.store.transaction():
            self.store.drop_failures(fixed)
            if self.options.prune and removable:
                self.report.removed = self.store.delete(sorted(removable), self.store.next_sequence())

    def _fit_whitening(self) -> None:
        describer = self.session.describer
        if not describer.config.wants_whitening or describer.whitening is not None or not self.store.count():
            return
        try:
            fitted = fit_whitening(self.session, self.options.fit_where)
        except (DescriberError, FilterError) as error:
            self.report.whitening = f"not fitted: {error}"
        else:
            self.report.whitening = f"fitted on {fitted.n_views} views"
