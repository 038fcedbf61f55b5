"""State of an open collection: the first argument of all operations (`ingest`, `confidence`, `search`, `evaluation`)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvrender.mesh import Limits
from mvrender.pool import RenderPool
from mvretrieval.describe import Describer, DescriberConfig
from mvretrieval.encoders.registry import object_id
from mvretrieval.errors import CollectionError, DescriberError, UnknownObjectError, did_you_mean
from mvretrieval.index.augmenter import ORIGINAL_INDEX, Augmenter
from mvretrieval.index.current import CurrentIndex
from mvretrieval.index.kinds import IndexKind, IndexParameters
from mvretrieval.index.vector_index import VectorIndex, check_kind
from mvretrieval.session.create import create_collection
from mvretrieval.session.options import OpenOptions
from mvretrieval.session.render_pools import RenderPools
from mvretrieval.session.stored_describer import StoredDescriber, open_describer
from mvretrieval.store.store import Store
from mvretrieval.store.uploads import relocate_uploads
from mvretrieval.store.writer_lock import WriterLock

if TYPE_CHECKING:
    from mvretrieval.weighting.adapter import Adapter  # loads torch, which a search by id does without


class Session:
    """An open collection: folder, store, describer, index, render pools and the writer lock.

    Attributes:
        folder: of the collection.
        store: the truth; everything else is derived from it.
        options: how this machine runs the collection.
        index: searches the vectors that the store holds now.
        augmenter: keeps database-side augmentation up to date.
    """

    def __init__(self, folder: Path, store: Store, options: OpenOptions) -> None:
        """Use `Session.create` or `Session.open`."""
        self.folder = folder
        self.store = store
        self.options = options
        self._describer = StoredDescriber(folder, store, options)
        self.index = CurrentIndex(folder, store, lambda: self.dim, options.device)
        self.augmenter = Augmenter(folder, store, self.index)
        self._pools = RenderPools()
        self._writer = WriterLock(folder)

    # -- opening and closing --------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        folder: Path,
        config: DescriberConfig,
        options: OpenOptions | None = None,
        index: IndexKind = "auto",
        adapter: Adapter | None = None,
    ) -> Session:
        """Make an empty collection and open it for writing (see `Collection.create`)."""
        options = options or OpenOptions()
        with ExitStack() as on_failure:
            pools = RenderPools()
            on_failure.callback(pools.close)
            if options.start_workers:
                pools.get(open_describer(config, options), options.workers, options.limits).warm_up()
            store, writer, describer = create_collection(folder, config, options, index, adapter)
            on_failure.pop_all()
        session = cls(folder, store, options)
        session._pools, session._writer = pools, writer
        session._describer.use(describer)
        return session

    @classmethod
    def open(cls, folder: Path, options: OpenOptions | None = None, write: bool = False) -> Session:
        """Open a collection (see `Collection.open`)."""
        session = cls(folder, Store.open(folder), options or OpenOptions())
        try:
            if session.store.get_meta("describer") is None:
                raise CollectionError(
                    f"{folder} has no describer in its store: delete the folder and index the meshes again",
                    code="collection_damaged",
                )
            if write:
                session.lock_for_writing()
            if session.options.start_workers:
                session.render_pool().warm_up()
        except BaseException:
            session.release()
            raise
        return session

    def lock_for_writing(self) -> None:
        """Become the one process that may write; does nothing if it is already.

        Raises:
            CollectionError: another process is writing, or the folder is read-only.
        """
        if not self._writer.held:
            self._writer.take()
            relocate_uploads(self.store, self.folder)
            for folder in (self.folder, self.folder / ORIGINAL_INDEX):
                VectorIndex.discard_newer(folder, self.store.sequence, self.store.generation)

    def close(self) -> None:
        """Save the index if this process wrote, and release all resources."""
        try:
            if self._writer.held:
                self.save_index()
        finally:
            self.release()

    def release(self) -> None:
        """Release all resources without saving the index, which is rebuilt when the collection is next opened."""
        self._pools.close()
        self._writer.release()
        self.index.close()
        self.augmenter.close()
        self.store.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.release()

    def __len__(self) -> int:
        return self.store.count()

    # -- describer ------------------------------------------------------------------------------------------------

    @property
    def describer(self) -> Describer:
        """How objects are embedded; read again after another process has changed it."""
        return self._describer.describer

    @property
    def dim(self) -> int:
        """Length D of an object vector."""
        return self._describer.dim

    def check_encoder(self) -> None:
        """See `StoredDescriber.check_encoder`."""
        self._describer.check_encoder()

    def check_given_encoder(self) -> None:
        """Check that the encoder object in the options is the collection's.

        Raises:
            DescriberError: it is another one.
        """
        given, stored = self.options.encoder, self.describer.config.encoder
        if given is not None and object_id(given) != stored:
            raise DescriberError(
                f"{self.folder} was embedded with '{stored}', and the given encoder is '{given.id}': give the collection's own "
                "encoder, or leave it out and re-embed the collection",
                code="other_encoder",
            )
        self.check_encoder()

    def notices(self) -> list[str]:
        """See `StoredDescriber.notices` and `CurrentIndex.notices`."""
        return [*self._describer.notices(), *self.index.notices()]

    def relocate_encoder(self, encoder_id: str) -> None:
        """See `StoredDescriber.relocate_encoder`."""
        self._describer.relocate_encoder(encoder_id)

    def write_describer(self, describer: Describer) -> None:
        """Store a describer, inside the caller's transaction."""
        self._describer.write(describer)

    def render_pool(self, limits: Limits | None = None) -> RenderPool:
        """Render workers for this collection's views, kept until `close`."""
        return self._pools.get(self.describer, self.options.workers, limits or self.options.limits)

    def image_pool(self) -> RenderPool:
        """Workers that decode the images of queries, kept until `close`."""
        return self._pools.for_images(self.describer, self.options.workers, self.options.limits)

    def set_index_kind(self, kind: IndexKind) -> None:
        """See `Collection.set_index_kind`."""
        check_kind(kind, self.dim)
        self.lock_for_writing()
        with self.index.exclusive(), self.store.transaction():
            self.store.set_meta("index", kind)

    # -- reading --------------------------------------------------------------------------------------------------

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Everything read or searched inside belongs to one state of store and index."""
        with self.index.reading():
            yield

    def row_id_of(self, object_id: str) -> int:
        """Row id of an object.

        Raises:
            UnknownObjectError: no object has this id.
        """
        row_id = self.store.row_id_of(object_id)
        if row_id is None:
            raise UnknownObjectError(
                f"no object '{object_id}' in {self.folder}: {did_you_mean(object_id, self.store.some_ids())}"
                "an id is the path relative to the indexed folder"
            )
        return row_id

    def views(self, row_id: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Raw view vectors (S, V, D) and mask (V,) of an object."""
        flat, mask = self.store.views_of(row_id)
        return flat.reshape(self.describer.n_styles, len(mask), -1), mask

    def search_vector(
        self,
        vector: NDArray[np.float32],
        k: int = 10,
        where: str | None = None,
        parameters: IndexParameters | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines in falling order and row ids of the k objects nearest to an object vector (D,)."""
        allowed = self.store.select(where) if where else None
        return self.index.search(vector, k, allowed, parameters)

    def save_index(self) -> None:
        """Write the index beside the store, so that opening needs no rebuild; a failure is only a warning."""
        try:
            self.index.save()
            self.augmenter.save()
        except (OSError, RuntimeError) as error:  # faiss raises RuntimeError for every failed write
            warnings.warn(
                f"the index of {self.folder} was not saved ({error}); it is rebuilt when the collection is next opened",
                stacklevel=2,
            )
