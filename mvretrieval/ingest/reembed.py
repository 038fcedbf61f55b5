"""Describing a collection anew: from its stored views where they still hold, from its files where they do not.

New views are gathered in a collection of their own beside the old one, so that a kill loses nothing and the next run
goes on; in the end one transaction replaces the old views. Readers see the old description or the new one, never both.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mvrender.pool import Failed, Job, Rendered, always
from mvretrieval.api import Collection
from mvretrieval.describe import Describer, DescriberConfig
from mvretrieval.errors import CollectionError, DescriberError
from mvretrieval.ingest.sources import is_unchanged
from mvretrieval.ingest.view_images import FORMAT, ViewImageReader, ViewJob
from mvretrieval.store.schema import FILE
from mvretrieval.store.store import Store

if TYPE_CHECKING:
    from mvretrieval.weighting.adapter import Adapter

STAGING = "reindex"


def reembed(
    collection: Collection,
    config: DescriberConfig,
    fit_where: str | None = None,
    drop_missing: bool = False,
    progress: Callable[[int, int], None] | None = None,
    adapter: Adapter | None = None,
) -> list[tuple[str, str, str]]:
    """Describe every object as `config` says.

    Args:
        collection: open for writing.
        config: the new description.
        fit_where: objects that centring or whitening is fitted on; all by default.
        drop_missing: remove objects whose files can no longer be described; otherwise they stop the change.
        progress: called with (done, total).
        adapter: that `config` names; the collection's own by default.

    Returns:
        (id, code, message) of the objects that could not be described, which are removed.

    Raises:
        CollectionError: some objects could not be described and `drop_missing` is off. Nothing has changed then.
        DescriberError: other cameras or styles are asked for, and some objects came as pictures.
    """
    collection.lock_for_writing()
    if config.adapter and adapter is None:
        adapter = collection.describer.adapter
    if same_views(collection, config):
        _repool(collection, config, fit_where, adapter)
        return []
    _check_pictures(collection, config)
    staging = _open_staging(collection, config, adapter)
    try:
        failed = _fill(collection, staging, progress)
        if failed and not drop_missing:
            shown = "; ".join(f"{object_id}: {message}" for object_id, _, message in failed[:3])
            raise CollectionError(
                f"{len(failed)} objects cannot be described anew ({shown}). Nothing was changed; bring their files back and "
                "run this again, which goes on where it stopped, or give --drop-missing to remove them"
            )
        if config.wants_whitening:
            _copy_labels(collection, staging)
            staging.fit_whitening(fit_where)
        _swap(collection, staging)
    finally:
        staging.close()
    shutil.rmtree(collection.folder / STAGING)
    return failed


def same_views(collection: Collection, config: DescriberConfig) -> bool:
    """Whether the stored views are what `config` asks for: the same cameras, styles and encoder, weights and all."""
    old = collection.describer
    kept = {name: getattr(old.config, name) for name in ("pooling", "center", "whiten", "adapter")}
    others = replace(config, **kept)
    return others == old.config and collection.store.get_meta("view_fingerprint") == old.view_fingerprint


def _repool(collection: Collection, config: DescriberConfig, fit_where: str | None, adapter: Adapter | None) -> None:
    """Only pooling, statistics or the adapter differ: the stored views are enough."""
    if config.adapter:
        assert adapter is not None
        collection.repool(collection.describer.with_adapter(adapter))
        return
    described = collection.describer.with_fitted(None).with_config(
        pooling=config.pooling, center=config.center, whiten=config.whiten, adapter=""
    )
    if config.wants_whitening:
        collection.fit_whitening(fit_where, described)
    else:
        collection.repool(described)


def _check_pictures(collection: Collection, config: DescriberConfig) -> None:
    """Pictures show an object from where they were taken, and as they were."""
    old = collection.describer.config
    asked = [
        f"{name} {getattr(config, name)}" for name in ("rig", "styles") if getattr(config, name) != getattr(old, name)
    ]
    count = collection.store.count_of_format(FORMAT) if asked else 0
    if count:
        raise DescriberError(
            f"{count} objects of {collection.folder} came as pictures, of which no other views can be made ({', '.join(asked)} "
            "asked for). Leave --rig and --styles out: --encoder, --size, --whiten, --pooling and --adapter work from the "
            "pictures; or index the meshes into a new collection"
        )


def _open_staging(collection: Collection, config: DescriberConfig, adapter: Adapter | None) -> Collection:
    folder = collection.folder / STAGING
    if (folder / FILE).exists():
        staging = Collection.open(folder, collection.options, write=True)
        made_with = staging.store.get_meta("view_fingerprint")
        if staging.describer.config == config and made_with == staging.describer.view_fingerprint:
            return staging
        staging.close()
    if folder.exists():
        shutil.rmtree(folder)
    return Collection.create(folder, replace(config, adapter=""), collection.options, adapter=adapter)


def _fill(
    collection: Collection, staging: Collection, progress: Callable[[int, int], None] | None
) -> list[tuple[str, str, str]]:
    """Describe the old collection's objects in the new one, under the same ids."""
    row_ids = [int(n) for n in collection.store.select(None)]
    _drop_outdated(collection, staging)
    failed: list[tuple[str, str, str]] = []
    ids: dict[str, str] = {}
    done = 0

    def jobs(of_pictures: bool) -> Iterator[Job]:
        nonlocal done
        for row_id in row_ids:
            record = collection.store.records([row_id])[row_id]
            if (record.facts["format"] == FORMAT) != of_pictures:
                continue
            ids[record.path] = record.id
            root = collection.store.root_of(row_id)
            if of_pictures:
                job: Job = ViewJob.of_record(record, root, collection.store.stat_of(row_id))
            else:
                job = Job(Path(record.path), Path(root) if root else None, record.facts["up"])
            known = staging.store.by_path(record.path)
            if known is not None and is_unchanged(job, known[2]):
                done += 1
                continue
            yield job

    def looked_at() -> Iterator[Rendered | Failed]:
        given = collection.store.count_of_format(FORMAT)
        if given < len(row_ids):
            yield from staging.pool().run(jobs(of_pictures=False))
        if given:
            described = staging.describer
            reader = ViewImageReader(described.rig, described.config.size, staging.options.workers)
            yield from reader.run(jobs(of_pictures=True), always)

    batch: list[Rendered] = []

    def flush() -> None:
        new = staging.new_objects(batch, [ids[str(item.opened.job.path)] for item in batch]) if batch else []
        with staging.store.transaction():
            sequence = staging.store.next_sequence()
            for item in new:
                staging.store.put(item, sequence)
        batch.clear()

    for result in looked_at():
        done += 1
        if isinstance(result, Failed):
            object_id = ids[str(result.job.path)]
            failed.append((object_id, result.code, result.message))
            staging.remove(object_id)
        else:
            batch.append(result)
            if len(batch) >= 4:
                flush()
        if progress is not None:
            progress(done, len(row_ids))
    flush()
    return failed


def _drop_outdated(collection: Collection, staging: Collection) -> None:
    """Forget what was described before a stop, of objects that have moved, were turned or are gone since."""
    row_ids = [int(n) for n in staging.store.select(None)]
    outdated = []
    for record in staging.store.records(row_ids).values():
        now = collection.store.by_path(record.path)
        if now is None or now[3] != record.facts["up"] or collection.store.row_id_of(record.id) != now[0]:
            outdated.append(record.id)
    if outdated:
        staging.remove(*outdated)


def _copy_labels(collection: Collection, staging: Collection) -> None:
    """A filter that says what statistics are fitted on may name labels."""
    row_ids = [int(n) for n in collection.store.select(None)]
    with staging.store.transaction():
        for record in collection.store.records(row_ids).values():
            row_id = staging.store.row_id_of(record.id)
            if row_id is not None and record.metadata:
                staging.store.set_metadata(row_id, record.metadata)


def _swap(collection: Collection, staging: Collection) -> None:
    """Put the new views, vectors and description in the place of the old ones, in one transaction."""
    store: Store = collection.store
    described: Describer = staging.describer
    with store.transaction():
        row_ids = [int(n) for n in store.select(None)]
        sequence = store.next_sequence()
        for start in range(0, len(row_ids), 500):
            for record in store.records(row_ids[start : start + 500]).values():
                new_number = staging.store.row_id_of(record.id)
                if new_number is None:
                    store.delete([record.id], sequence)
                    continue
                views, _ = staging.views(new_number)
                store.put(staging.store.whole(new_number, views.shape), sequence)
        store.bump_all(sequence)
        store.set_meta("epoch", int(store.get_meta("epoch")) + 1)
        collection.augmenter.renew()
        store.set_meta("view_fingerprint", None)
        collection.write_describer(described)
