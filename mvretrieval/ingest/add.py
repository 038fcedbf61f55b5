"""Adding one mesh file, and turning rendered files into objects to be stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvrender.jobs import Rendered
from mvrender.mesh import UpAxis
from mvretrieval.embed import embed
from mvretrieval.errors import CollectionError
from mvretrieval.ingest.jobs import MeshJob, job_of
from mvretrieval.ingest.scan import absolute
from mvretrieval.session.session import Session
from mvretrieval.store.records import NewObject


def add_file(
    session: Session,
    path: str | Path,
    id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    up: UpAxis | None = None,
    replace_id: bool = False,
) -> str:
    """Add or replace one object (see `Collection.add`)."""
    session.lock_for_writing()
    path = absolute(Path(path))
    _check_id(session, path, id, replace_id)
    session.check_encoder()
    rendered = session.render_pool().render(MeshJob(path, path.parent, up))
    (new,) = new_objects(session, [rendered], [id or path.name])
    store = session.store
    with store.transaction():
        row_id = store.row_id_of(new.id) if replace_id else None
        if row_id is not None:
            store.move(row_id, str(path), new.stat, new.root)
        known = store.by_path(str(path))
        own_id = None if known is None else store.records([known[0]])[known[0]].id
        new = replace(new, id=own_id or store.free_id(new.id))
        row_id = store.put(new, store.next_sequence())
        if metadata:
            store.set_metadata(row_id, metadata)
    return new.id


def _check_id(session: Session, path: Path, id: str | None, replace_id: bool) -> None:
    """Refuse an id or a file that belongs to another object, before the file is rendered."""
    store = session.store
    known = store.by_path(str(path))
    own_id = None if known is None else store.records([known[0]])[known[0]].id
    other_exists = store.row_id_of(id or path.name) is not None and (id or path.name) != own_id
    if id is not None and other_exists and not replace_id:
        raise CollectionError(
            f"an object '{id}' exists already: replace it with replace=True, or give another id", code="id_taken"
        )
    if replace_id and other_exists and own_id is not None:
        raise CollectionError(
            f"{path} is the file of object '{own_id}': remove that object first, or give another file",
            code="file_taken",
        )


def new_objects(session: Session, rendered: Sequence[Rendered], ids: Sequence[str]) -> list[NewObject]:
    """Embed rendered files. Not inside a transaction: the index may have to be updated from the store."""
    views = [item.views for item in rendered if item.views is not None]
    assert len(views) == len(rendered)
    embedded = embed(session.describer, views)
    augmented = session.augmenter.of_new(embedded.vectors, [str(item.opened.job.path) for item in rendered])
    return [
        NewObject(
            id=object_id,
            path=str(item.opened.job.path),
            content_hash=item.opened.content_hash,
            stat=job_of(item.opened).stat(item.opened.references),
            facts={**item.opened.facts, "up": item.opened.up},
            notes=item.opened.notes,
            vector=embedded.vectors[i],
            view_vectors=embedded.raw[i],
            view_mask=embedded.masks[i],
            strip=item.strip,
            root=job_of(item.opened).root_folder,
            augmented=augmented[i],
        )
        for i, (item, object_id) in enumerate(zip(rendered, ids, strict=True))
    ]
