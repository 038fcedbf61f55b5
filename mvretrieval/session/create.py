"""Making a collection: a free folder, an encoder that opens, the right to write; then the store, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mvretrieval.describe import Describer, DescriberConfig
from mvretrieval.errors import CollectionError, DescriberError
from mvretrieval.index.vector_index import IndexKind
from mvretrieval.session.options import OpenOptions
from mvretrieval.session.stored_describer import new_meta, open_describer
from mvretrieval.store.schema import FILE, PART, database_lost
from mvretrieval.store.store import Store
from mvretrieval.store.writer_lock import LOCK, WriterLock

if TYPE_CHECKING:
    from mvretrieval.weighting.adapter import Adapter


def make_collection(
    folder: Path, config: DescriberConfig, options: OpenOptions, index: IndexKind, adapter: Adapter | None
) -> tuple[Store, WriterLock, Describer]:
    """See `Collection.create`.

    Returns:
        The empty store, the right to write, and the describer, its encoder opened.
    """
    _check_free(folder)
    # Before anything is written: an encoder without weights should leave no half-made folder behind.
    describer = _open_new(config, options, adapter)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CollectionError(f"{folder} cannot be made: {error.strerror}") from error
    writer = WriterLock(folder)
    writer.take()
    try:
        meta = {"index": index, "generation": 1, "sequence": 0, **new_meta(describer)}
        return Store.create(folder, meta), writer, describer
    except BaseException:
        writer.release()
        raise


def _check_free(folder: Path) -> None:
    """Refuse to make a collection where something is. What a killed process left of making one may stay."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CollectionError(f"{folder} is a file: name a folder")
    names = sorted(path.name for path in folder.iterdir() if path.name != LOCK and not path.name.startswith(PART))
    if FILE in names:
        raise CollectionError(f"{folder} has a collection already: open it, or name a new folder")
    if any(name.startswith("index-") for name in names):
        raise database_lost(folder, names)
    if names:
        raise CollectionError(f"{folder} is no collection and not empty ({', '.join(names[:3])}): name a new folder")


def _open_new(config: DescriberConfig, options: OpenOptions, adapter: Adapter | None) -> Describer:
    """The describer, its encoder opened."""
    describer = open_describer(config, options)
    describer.encoder  # noqa: B018
    if config.adapter and (adapter is None or adapter.fingerprint != config.adapter):
        raise DescriberError(f"the configuration names adapter {config.adapter}: give that adapter too")
    if adapter is None:
        return describer
    if config.wants_whitening or config.pooling != "mean":
        raise DescriberError("an adapter brings its own whitening and pooling: name one or the other")
    return describer.with_adapter(adapter)
