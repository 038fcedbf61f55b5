"""From folders of meshes or of views to objects in a collection: streaming, resumable, one bad file never stops it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mvrender.mesh import UpAxis
from mvrender.pool import Failed, Job, Opened, Rendered
from mvretrieval.errors import DescriberError, FilterError
from mvretrieval.ingest.index_report import IndexOptions, IndexReport
from mvretrieval.ingest.labels_csv import Labels, read_labels
from mvretrieval.ingest.scan import absolute, is_gone
from mvretrieval.ingest.sources import MeshFolders, Source, failure_stat_of, is_unchanged, stat_of, still_failing
from mvretrieval.ingest.view_images import ViewImages, ViewJob
from mvretrieval.ingest.view_manifest import ViewManifest, read_view_manifest
from mvretrieval.store.augmented import augmented_vector
from mvretrieval.store.records import NewObject

if TYPE_CHECKING:
    from mvretrieval.api import Collection

__all__ = ["IndexOptions", "IndexReport", "index_folders", "index_views"]

_SETTLE_EVERY = 256

# Failures that may be mended without the file itself changing; others are not tried again until it does.
_WORTH_RETRYING = {
    "renderer_crash",
    "missing_file",
    "missing_view",
    "no_permission",
    "needs_extra",
    "missing_reference",
    "outside_reference",
    "bad_name",
}


def index_folders(collection: Collection, folders: list[Path], options: IndexOptions | None = None) -> IndexReport:
    """Add every mesh in `folders` to `collection`; skip what is there and unchanged.

    Raises:
        CollectionError: another process writes, or the disk is full; what was reported as added is safe.
        LabelsError: the labels cannot be used.
    """
    options = options or IndexOptions()
    labels = _prepare(collection, options)
    return _Run(collection, MeshFolders(collection, folders, options.limits), options, labels).report_of_all()


def index_views(
    collection: Collection, views: ViewManifest | Path, options: IndexOptions | None = None, in_rig_order: bool = False
) -> IndexReport:
    """Add every object whose pictures a CSV names; skip what is there and unchanged.

    Raises:
        CollectionError: another process writes, or the disk is full; what was reported as added is safe.
        DescriberError: the collection looks at objects in several styles.
        LabelsError: the labels cannot be used.
        ViewsError: the CSV cannot be used, or does not say where the collection's cameras stand.
    """
    options = replace(options or IndexOptions(), up=None)  # which is the meshes' matter
    views = read_view_manifest(views) if isinstance(views, Path) else views
    source = ViewImages(collection, views, in_rig_order)
    labels = _prepare(collection, options)
    if labels is not None and options.labels is not None:
        labels = _labels_of_views(labels, views, options.labels.parent)
    return _Run(collection, source, options, labels).report_of_all()


def _prepare(collection: Collection, options: IndexOptions) -> Labels | None:
    """Take the right to write, and read what has to be in order before anything is looked at."""
    collection.lock_for_writing()
    labels = read_labels(options.labels) if options.labels else None
    collection.check_encoder()
    return labels


def _labels_of_views(labels: Labels, views: ViewManifest, folder: Path) -> Labels:
    """Labels by the paths of the objects, where a row may name an object's folder, its id or its first picture.

    Views of meshes lie elsewhere than these, and labels of meshes beside them: an id counts from the `folder` of the labels too.
    """
    rows = dict(labels.rows)
    for given in views.objects:
        by_id = [str(absolute(place / given.id)) for place in (views.path.parent, folder)]
        names = (given.path, by_id[0], given.pictures[0], by_id[1])
        named = [rows.pop(name) for name in names if name in rows]
        if named:
            rows[given.path] = named[0]
    return Labels(rows, {}, labels.columns)


class _Run:
    def __init__(self, collection: Collection, source: Source, options: IndexOptions, labels: Labels | None) -> None:
        self.collection = collection
        self.store = collection.store
        self.source = source
        self.options = options
        self.labels = labels
        self.report = IndexReport()
        self.total = 0
        self.done = 0
        self._in_flight: set[str] = set()
        self._lock = threading.Lock()
        self._found_failures: list[tuple[Job, str, str]] = []
        self._still_failing: set[str] = set()
        self._adopted: set[str] = set()
        self._batch: list[Rendered] = []
        self._known_content: list[Opened] = []
        describer = collection.describer
        per_object = describer.n_styles * describer.rig.n_views
        self._batch_size = max(1, getattr(describer.encoder, "batch_size", 48) // per_object)

    def report_of_all(self) -> IndexReport:
        """Do everything and tell what was done."""
        started = time.monotonic()
        self._adopted = self.source.rebind_paths()
        self.work()
        self.finish()
        self.report.seconds = time.monotonic() - started
        return self.report

    # -- the loop -----------------------------------------------------------------------------------------------------

    def work(self) -> None:
        self.report.found = self.total = sum(1 for _ in self.source.found())
        jobs = self._jobs()
        while True:
            for result in self.source.run(jobs, self._wanted):
                self._take(result)
            self._flush()
            later, self._known_content = self._known_content, []
            if not later:
                break
            # The first of several identical files failed, perhaps by running out of time: the next one is tried.
            self._in_flight.clear()
            jobs = iter([opened.job for opened in later])

    def _jobs(self) -> Iterator[Job]:
        """Files that need work. May run in threads of the source, one at a time."""
        for found, problem in self.source.found():
            if problem is not None:
                with self._lock:
                    self._found_failures.append((found, *problem))
                continue
            path = str(found.path)
            up = self._up(path)
            known = self.store.by_path(path)
            if known is not None and is_unchanged(found, known[2]) and up in (None, known[3]):
                with self._lock:
                    self.report.unchanged += 1
                    self._step()
                continue
            failure = self.store.failure(path)
            if failure is not None and not self.options.retry and failure[0] not in _WORTH_RETRYING:
                if still_failing(found, failure[1]):
                    with self._lock:
                        self.report.failed[failure[0]] += 1
                        self._still_failing.add(path)
                        self._step()
                    continue
            yield replace(found, up=up)

    def _up(self, path: str) -> UpAxis | None:
        stated = self.labels.up.get(path) if self.labels else None
        return stated or self.options.up  # type: ignore[return-value]

    def _wanted(self, opened: Opened) -> bool:
        """Whether a file's views are needed: not if its content is known, or on its way."""
        with self._lock:
            if opened.content_hash in self._in_flight:
                return False
            if self.store.by_content(opened.content_hash):
                return False
            self._in_flight.add(opened.content_hash)
            return True

    def _take(self, result: Rendered | Failed) -> None:
        if isinstance(result, Failed):
            self._fail(result.job, result.code, result.message)
            return
        for note in result.opened.notes:
            self.report.notes.append((str(result.opened.job.path), note))
        if result.views is None:
            self._known_content.append(result.opened)
            if len(self._known_content) % _SETTLE_EVERY == 0:
                self._settle_known()
            return
        self._batch.append(result)
        if len(self._batch) >= self._batch_size:
            self._flush()

    # -- writing ------------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Encode and write what has been rendered, in one transaction."""
        with self._lock:
            found_failures, self._found_failures = self._found_failures, []
        for found, code, message in found_failures:
            self._fail(found, code, message)
        batch, self._batch = self._batch, []
        if batch:
            self._write(batch)
        self._settle_known()

    def _write(self, batch: list[Rendered]) -> None:
        new = self.collection.new_objects(batch, ["" for _ in batch])
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
            item = replace(item, id=self.store.free_id(_id_of(opened.job)))
        row_id = self.store.put(item, sequence)
        self._label(row_id, item.path)
        if is_new:
            self.report.added += 1
        else:
            self.report.replaced += 1

    def _settle_known(self) -> None:
        """Files whose content is known are touched, moved or copied; those whose content is still on its way stay."""
        known, self._known_content = self._known_content, []
        for opened in known:
            holders = self.store.by_content(opened.content_hash)
            if holders:
                self._settle(opened, holders)
                self._step()
            else:
                self._known_content.append(opened)

    def _settle(self, opened: Opened, holders: list[tuple[int, str]]) -> None:
        path = str(opened.job.path)
        stat = stat_of(opened.job, opened.references)
        own = self.store.by_path(path)
        with self.store.transaction():
            if own is not None and own[1] == opened.content_hash:
                self.store.set_stat(own[0], stat)
                if path in self._adopted:
                    self.report.moved += 1
                else:
                    self.report.unchanged += 1
                return
            lost = next((row_id for row_id, place in holders if is_gone(place)), None)
            if own is None and lost is not None:
                self.store.move(lost, path, stat, str(opened.job.root or opened.job.path.parent))
                self._label(lost, path)
                self.report.moved += 1
                return
            row_id = holders[0][0]
            views, mask = self.collection.views(row_id)
            twin = NewObject(
                id="",
                path=path,
                content_hash=opened.content_hash,
                stat=stat,
                facts={**opened.facts, "up": opened.up},
                notes=opened.notes,
                vector=self.store.vector_of(row_id),
                view_vectors=views.astype("float16"),
                view_mask=mask,
                strip=self.store.strip_of(row_id) or b"",
                root=str(opened.job.root or opened.job.path.parent),
                smoothed=augmented_vector(self.store, row_id),
            )
            self._put(twin, opened, self.store.next_sequence())
            self.report.identical += own is None

    def _fail(self, job: Job, code: str, message: str) -> None:
        path = str(job.path)
        if isinstance(job, ViewJob):  # whose folder need not be called like the object
            message = f"object '{job.id}': {message}"
        with self.store.transaction():
            known = self.store.by_path(path)
            self.store.put_failure(path, code, message, failure_stat_of(job))
            if known is not None:
                message += "; the object keeps its earlier views"
        self._still_failing.add(path)
        self.report.failed[code] += 1
        self.report.failures.append((path, code, message))
        self._step()

    def _label(self, row_id: int, path: str) -> None:
        if self.labels is not None and path in self.labels.rows:
            self.report.labelled += self.store.set_metadata(row_id, self.labels.rows[path])

    def _step(self, count: int = 1) -> None:
        self.done += count
        if self.options.progress is not None:
            self.options.progress(self.done, self.total)

    # -- the end ------------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Labels of objects that were there before, files that are gone, statistics, smoothing, index."""
        self._label_all()
        self._look_for_gone()
        self._fit()
        self.report.smoothed = self.collection.augmenter.refresh()
        self.collection.save_index()

    def _label_all(self) -> None:
        if self.labels is None:
            return
        with self.store.transaction():
            for path in self.labels.rows:
                known = self.store.by_path(path)
                if known is None:
                    self.report.unmatched_labels += 1
                else:
                    self._label(known[0], path)

    def _look_for_gone(self) -> None:
        mended = [path for path in self.source.earlier_failures() if path not in self._still_failing]
        gone, removable = self.source.lost()
        self.report.gone = len(gone)
        with self.store.transaction():
            self.store.drop_failures(mended)
            if self.options.prune and removable:
                self.report.removed = self.store.delete(sorted(removable), self.store.next_sequence())

    def _fit(self) -> None:
        describer = self.collection.describer
        if not describer.config.wants_whitening or describer.whitening is not None:
            return
        if self.store.count() == 0:
            return
        try:
            fitted = self.collection.fit_whitening(self.options.fit_where)
        except (DescriberError, FilterError) as error:
            self.report.whitening = f"not fitted: {error}"
        else:
            self.report.whitening = f"fitted on {fitted.n_views} views"


def _id_of(job: Job) -> str:
    if isinstance(job, ViewJob):
        return job.id
    root = job.root or job.path.parent
    return job.path.relative_to(root).as_posix() if job.path.is_relative_to(root) else job.path.name
