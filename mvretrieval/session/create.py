"""Creation of a collection: check the folder, open the encoder, take the writer lock, create the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mvretrieval.describe import Describer, DescriberConfig
from mvretrieval.errors import CollectionError, DescriberError
from mvretrieval.index.kinds import IndexKind
from mvretrieval.index.vector_index import check_kind
from mvretrieval.session.options import OpenOptions
from mvretrieval.session.stored_describer import new_meta, open_describer
from mvretrieval.store.schema import FILE, PART, database_lost
from mvretrieval.store.store import Store
from mvretrieval.store.writer_lock import LOCK, WriterLock

if TYPE_CHECKING:
    from mvretrieval.weighting.adapter import Adapter


def create_collection(
    folder: Path, config: DescriberConfig, options: OpenOptions, index: IndexKind, adapter: Adapter | None
) -> tuple[Store, WriterLock, Describer]:
    """Create an empty collection (see `Collection.create`).

    Returns:
        The empty store, the writer lock, and the describer with its encoder opened.
    """
    _check_free(folder)
    # Before anything is written: a failure to load the encoder must not leave a folder behind.
    describer = _open_new(config, options, adapter)
    whitening = describer.whitening
    view_dim = whitening.dim if whitening else config.whiten or describer.encoder.dim
    check_kind(index, describer.n_styles * view_dim)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CollectionError(
            f"{folder} cannot be created ({error.strerror}): give another folder", code="folder_not_created"
        ) from error
    writer = WriterLock(folder)
    writer.take()
    try:
        meta = {"index": index, "generation": 1, "sequence": 0, **new_meta(describer)}
        return Store.create(folder, meta), writer, describer
    except BaseException:
        writer.release()
        raise


def _check_free(folder: Path) -> None:
    """Refuse a folder with other content. Files left by a killed creation are allowed."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CollectionError(f"{folder} is a file: give a folder", code="not_a_folder")
    names = sorted(path.name for path in folder.iterdir() if path.name != LOCK and not path.name.startswith(PART))
    if FILE in names:
        raise CollectionError(
            f"{folder} already holds a collection: open it, or give a new folder", code="collection_exists"
        )
    if any(name.startswith("index-") for name in names):
        raise database_lost(folder, names)
    if names:
        raise CollectionError(
            f"{folder} is not a collection and not empty ({', '.join(names[:3])}): give a new folder",
            code="folder_not_empty",
        )


def _open_new(config: DescriberConfig, options: OpenOptions, adapter: Adapter | None) -> Describer:
    """The describer, with its encoder opened."""
    describer = open_describer(config, options)
    describer.encoder  # noqa: B018
    if config.adapter and (adapter is None or adapter.fingerprint != config.adapter):
        raise DescriberError(
            f"the configuration names adapter {config.adapter}: give that adapter too", code="needs_adapter"
        )
    if adapter is None:
        return describer
    if config.wants_whitening or config.pooling != "mean":
        raise DescriberError(
            "an adapter has its own whitening and pooling: give an adapter, or whitening and pooling",
            code="adapter_and_pooling",
        )
    return describer.with_adapter(adapter)
