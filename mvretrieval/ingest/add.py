"""From files to objects: rendered, encoded, pooled, and what is written of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvrender.pool import Job, Rendered
from mvretrieval.ingest.sources import stat_of
from mvretrieval.store.records import NewObject

if TYPE_CHECKING:
    from mvretrieval.api import Collection


def add_file(
    collection: Collection,
    path: str | Path,
    id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    up: str | None = None,
    replace_id: bool = False,
) -> str:
    """See `Collection.add`."""
    collection.lock_for_writing()
    collection.check_encoder()
    path = Path(os.path.abspath(path))  # noqa: PTH100
    rendered = collection.pool().render(Job(path, path.parent, up))  # type: ignore[arg-type]
    (new,) = embed_rendered(collection, [rendered], [id or path.name])
    store = collection.store
    with store.transaction():
        row_id = store.row_id_of(new.id) if replace_id else None
        if row_id is not None:
            store.move(row_id, str(path), new.stat, new.root)
        known = store.by_path(str(path))
        stays = None if known is None else store.records([known[0]])[known[0]].id
        new = replace(new, id=stays or store.free_id(new.id))
        row_id = store.put(new, store.next_sequence())
        if metadata:
            store.set_metadata(row_id, metadata)
    return new.id


def embed_rendered(collection: Collection, rendered: Sequence[Rendered], ids: Sequence[str]) -> list[NewObject]:
    """See `Collection.new_objects`."""
    assert all(item.views is not None for item in rendered)
    images = np.stack([item.views.images for item in rendered if item.views is not None])
    masks = np.stack([item.views.mask for item in rendered if item.views is not None])
    b, s, v = images.shape[:3]
    describer = collection.describer
    raw = describer.encode(images.reshape(b * s, v, *images.shape[3:])).reshape(b, s, v, -1)
    # Rounded as they are stored, so that a later re-pooling gives the same vectors.
    raw = raw.astype(np.float16)
    vectors, _ = describer.pool(raw.astype(np.float32), masks)
    smoothed = collection.augmenter.of_new(vectors, [str(item.opened.job.path) for item in rendered])
    return [
        NewObject(
            id=object_id,
            path=str(item.opened.job.path),
            content_hash=item.opened.content_hash,
            stat=stat_of(item.opened.job, item.opened.references),
            facts={**item.opened.facts, "up": item.opened.up},
            notes=item.opened.notes,
            vector=vectors[i],
            view_vectors=raw[i],
            view_mask=masks[i],
            strip=item.strip,
            root=str(item.opened.job.root or item.opened.job.path.parent),
            smoothed=smoothed[i],
        )
        for i, (item, object_id) in enumerate(zip(rendered, ids, strict=True))
    ]
