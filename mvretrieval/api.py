"""A collection of objects: the store and the index together, and who may write.

What is done stands in rooms of its own: `making` a new one, `adding` and `indexing` (files become objects), `description` (the
describer, and what the store keeps of it), `repooling` (vectors anew from stored views), `augmenter`, `current_index`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mvrender.mesh import Limits
from mvrender.pool import Rendered, RenderPool
from mvretrieval.describe import Describer, DescriberConfig
from mvretrieval.errors import CollectionError, UnknownObjectError, did_you_mean
from mvretrieval.index.augmenter import ORIGINALS, Augmenter
from mvretrieval.index.current import CurrentIndex
from mvretrieval.index.vector_index import IndexKind, VectorIndex
from mvretrieval.ingest import add as adding
from mvretrieval.ingest import repool as repooling
from mvretrieval.session.create import make_collection
from mvretrieval.session.render_pools import RenderPools
from mvretrieval.session.stored_describer import Description, OpenOptions, open_describer
from mvretrieval.store.augmented import AugmentationConfig
from mvretrieval.store.records import NewObject, ObjectRecord
from mvretrieval.store.store import Store
from mvretrieval.store.writer_lock import WriterLock
from mvretrieval.weighting.whitening import Whitening

if TYPE_CHECKING:
    from mvretrieval.confidence.calibration import Calibration
    from mvretrieval.ingest.indexing import IndexOptions, IndexReport
    from mvretrieval.ingest.view_manifest import ViewManifest
    from mvretrieval.search.options import Refinement
    from mvretrieval.search.pipeline import Hit
    from mvretrieval.search.query import Query
    from mvretrieval.weighting.adapter import Adapter

__all__ = ["Collection", "OpenOptions"]


class Collection:
    """Objects that can be asked for.

        with Collection.create("things/") as things:
            things.add_folder("meshes/")
            for hit in things.search(Query(mesh="chair.glb")):
                print(hit.rank, hit.id, hit.score)

    Many processes may read at once; one may write. A reader notices what the writer adds.
    """

    def __init__(self, folder: Path, store: Store, options: OpenOptions, pools: RenderPools | None = None) -> None:
        """Use `Collection.create` or `Collection.open`."""
        self.folder = folder
        self.store = store
        self.options = options
        self.augmenter = Augmenter(self)
        self._description = Description(folder, store, options)
        self._index = CurrentIndex(folder, store, lambda: self.dim)
        self._pools = pools or RenderPools()
        self._writer = WriterLock(folder)

    # -- opening ------------------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        folder: str | Path,
        config: DescriberConfig | None = None,
        options: OpenOptions | None = None,
        index: IndexKind = "auto",
        adapter: Adapter | None = None,
    ) -> Collection:
        """Make an empty collection, open for writing.

        Args:
            folder: made if it is not there; must not hold a collection.
            config: how objects are described.
            options: how this machine runs it.
            index: kind of index (see `index.vector_index`).
            adapter: learnt weights (see `weighting.adapter`); `config` then names neither whitening nor pooling.

        Raises:
            AdapterError: the adapter was trained on other views.
            CollectionError: there is one already, or the folder cannot be written.
            EncoderError: the encoder is unknown, or its weights cannot be had.
        """
        folder, config, options = Path(folder), config or DescriberConfig(), options or OpenOptions()
        with ExitStack() as on_failure:
            pools = RenderPools()
            on_failure.callback(pools.close)
            if options.start_workers:
                pools.get(open_describer(config, None, options), options.workers, options.limits).warm_up()
            store, writer, describer = make_collection(folder, config, options, index, adapter)
            on_failure.pop_all()
        collection = cls(folder, store, options, pools)
        collection._writer = writer
        collection._description.use(describer)
        return collection

    @classmethod
    def open(cls, folder: str | Path, options: OpenOptions | None = None, write: bool = False) -> Collection:
        """Open a collection.

        Args:
            folder: of the collection.
            options: how this machine runs it.
            write: take the right to write; one process has it at a time.

        Raises:
            CollectionError: it is missing, damaged, of another version, or another process writes to it.
        """
        folder = Path(folder)
        collection = cls(folder, Store.open(folder), options or OpenOptions())
        try:
            if collection.store.get_meta("describer") is None:
                raise CollectionError(f"{folder} does not say how its objects are described: delete it and index again")
            if write:
                collection.lock_for_writing()
            if collection.options.start_workers:
                collection.pool().warm_up()
        except BaseException:
            collection._release()
            raise
        return collection

    def lock_for_writing(self) -> None:
        """Take the right to write.

        Raises:
            CollectionError: another process has it.
        """
        if not self._writer.held:
            self._writer.take()
            sequence, generation = int(self.store.get_meta("change", 0)), int(self.store.get_meta("epoch", 0))
            for folder in (self.folder, self.folder / ORIGINALS):
                VectorIndex.discard_newer(folder, sequence, generation)

    def close(self) -> None:
        """Save the index if this process wrote, and let go of everything."""
        try:
            if self._writer.held:
                self.save_index()
        finally:
            self._release()

    def _release(self) -> None:
        self._pools.close()
        self._writer.release()
        self._index.close()
        self.augmenter.close()
        self.store.close()

    def __enter__(self) -> Collection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:  # what went wrong matters more than the index, which is rebuilt when next opened
            self._release()

    def __len__(self) -> int:
        return self.store.count()

    # -- describing ---------------------------------------------------------------------------------------------------

    @property
    def describer(self) -> Describer:
        """How this collection's objects are described; read again when another process has changed it."""
        return self._description.describer

    def check_encoder(self) -> None:
        """Make sure that the encoder which is open here is the one the collection was built with.

        Raises:
            DescriberError: its weights or preprocessing are others.
        """
        self._description.check_encoder()

    def notices(self) -> list[str]:
        """How this machine describes objects otherwise than the one that made the collection, for people to know."""
        return self._description.notices()

    def relocate_encoder(self, encoder_id: str) -> None:
        """Use `encoder_id` from now on here, if it has the same weights (a checkpoint file that moved).

        Raises:
            DescriberError: it is another encoder.
        """
        self._description.relocate_encoder(encoder_id)

    def pool(self, workers: int | None = None, limits: Limits | None = None) -> RenderPool:
        """Render workers for this collection's views, as its options say by default; kept until `close`."""
        return self._pools.get(self.describer, workers or self.options.workers, limits or self.options.limits)

    # -- writing ------------------------------------------------------------------------------------------------------

    def add_folder(self, *folders: str | Path, options: IndexOptions | None = None) -> IndexReport:
        """Add every mesh in folders; what is there and unchanged is skipped (see `ingest.indexing`)."""
        from mvretrieval.ingest.indexing import index_folders

        return index_folders(self, [Path(folder) for folder in folders], options)

    def add_views(
        self, views: str | Path | ViewManifest, options: IndexOptions | None = None, in_rig_order: bool = False
    ) -> IndexReport:
        """Add every object whose pictures a CSV names; what is there and unchanged is skipped (see `ingest.view_images`).

        Args:
            views: the CSV, or what `views_csv.read_view_manifest` made of it; `views_csv.rig_of` names the rig of a new collection.
            options: labels and the like; what is about meshes is left aside.
            in_rig_order: where the CSV has no directions, each object's pictures are the rig's views in order.
        """
        from mvretrieval.ingest.indexing import index_views

        return index_views(self, Path(views) if isinstance(views, str) else views, options, in_rig_order)

    def add(
        self,
        path: str | Path,
        id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        up: str | None = None,
        replace: bool = False,
    ) -> str:
        """Add one mesh, or replace the object of that file. Findable at once.

        Args:
            path: of the mesh.
            id: of a new object; its file name by default.
            metadata: labels.
            up: axis that is up in the file; the format's convention by default.
            replace: where another file's object is called `id`, it gets this file, and keeps its id and its other labels.

        Returns:
            The object's id.

        Raises:
            MeshError: the file cannot be described.
            CollectionError: another process writes.
        """
        return adding.add_file(self, path, id, metadata, up, replace)

    def set_metadata(self, object_id: str, values: Mapping[str, Any]) -> None:
        """Set labels of an object; None takes one away.

        Raises:
            LabelsError: a value is neither text nor a number.
            UnknownObjectError: there is no such object.
        """
        self.lock_for_writing()
        with self.store.transaction():
            self.store.set_metadata(self.row_id_of(object_id), values)

    def remove(self, *ids: str) -> int:
        """Remove objects. They are gone from searches at once.

        Returns:
            How many there were.
        """
        self.lock_for_writing()
        with self.store.transaction():
            return self.store.delete(ids, self.store.next_sequence())

    def smooth(self, k: int, alpha: float | None = None) -> None:
        """Average each object's vector with its k nearest neighbours' from now on (see `store.augmented`); 0 for none.

        Done at once, from the vectors that are there; these stay. Indexing keeps it right.

        Args:
            k: neighbours.
            alpha: power of the cosine that weighs them; 3 by default.

        Raises:
            DescriberError: k or alpha is negative.
        """
        self.lock_for_writing()
        self.augmenter.set(AugmentationConfig.of(k, alpha))

    def calibrate(self, by: str | None = None, where: str | None = None, seed: int = 0) -> Calibration:
        """Learn how sure a cosine makes, so that hits carry a confidence from now on (see `confidence.calibrate`).

        Args:
            by: label that says what is of the same kind; without one, the same object is meant.
            where: objects to learn from; all by default.
            seed: of what is drawn.

        Raises:
            CalibrationError: too few objects, labels or classes, or scikit-learn is missing.
            FilterError: there is no such label, or the filter cannot be understood.
        """
        from mvretrieval.confidence.calibrate import calibrate

        return calibrate(self, by, where, seed)

    def new_objects(self, rendered: Sequence[Rendered], ids: Sequence[str]) -> list[NewObject]:
        """Encode and pool rendered files. Not in a transaction: the index may have to catch up with what is there."""
        return adding.embed_rendered(self, rendered, ids)

    def fit_whitening(self, where: str | None = None, describer: Describer | None = None) -> Whitening:
        """Fit the centring or whitening that the describer asks for on the collection's views, and pool all anew.

        Args:
            where: objects to learn from; all by default.
            describer: what asks for it, over the same views; the collection's own by default.

        Raises:
            DescriberError: too few views for so many dimensions, or none.
        """
        return repooling.fit_whitening(self, where, describer)

    def repool(self, describer: Describer) -> None:
        """Compute every object vector anew from the stored views, in one transaction.

        Args:
            describer: its views must be the ones that are stored.
        """
        repooling.repool(self, describer)

    def write_describer(self, describer: Describer) -> None:
        """Remember how objects are described, in a transaction of the caller's."""
        self._description.write(describer)

    # -- reading ------------------------------------------------------------------------------------------------------

    def views(self, row_id: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Raw view vectors (S, V, D) and mask (V,) of an object."""
        flat, mask = self.store.views_of(row_id)
        return flat.reshape(self.describer.n_styles, len(mask), -1), mask

    def row_id_of(self, object_id: str) -> int:
        """Number of the object called `object_id`.

        Raises:
            UnknownObjectError: there is none.
        """
        row_id = self.store.row_id_of(object_id)
        if row_id is None:
            raise UnknownObjectError(
                f"no object '{object_id}' in {self.folder}: {did_you_mean(object_id, self.store.some_ids())}"
                "an id is the path relative to the indexed folder"
            )
        return row_id

    def get(self, object_id: str) -> ObjectRecord:
        """The object called `object_id`.

        Raises:
            UnknownObjectError: there is none.
        """
        with self.store.snapshot():  # nobody removes it in between
            row_id = self.row_id_of(object_id)
            return self.store.records([row_id])[row_id]

    def index(self) -> VectorIndex:
        """The search index, brought up to what the store holds now."""
        return self._index.get()

    def reading(self) -> AbstractContextManager[None]:
        """What is searched and read inside is one state of index and store, whatever is written meanwhile."""
        return self._index.reading()

    def exclusive_index(self) -> AbstractContextManager[None]:
        """Nobody searches inside; the index is loaded or built anew afterwards, since what it holds has another use."""
        return self._index.exclusive()

    @property
    def dim(self) -> int:
        """Length D of an object vector."""
        return self._description.dim

    def save_index(self) -> None:
        """Write the index beside the store, so that opening needs no rebuild."""
        try:
            self._index.save()
            self.augmenter.save()
        except (OSError, RuntimeError) as error:  # faiss knows no other error
            warnings.warn(
                f"the index of {self.folder} was not saved ({error}); it is rebuilt when next opened", stacklevel=2
            )

    def search(
        self,
        query: Query,
        k: int = 10,
        where: str | None = None,
        refine: Refinement | None = None,
        min_confidence: float | None = None,
    ) -> list[Hit]:
        """Objects that answer a query, best first.

        Args:
            query: mesh, pictures, words, ids, or a mixture of them (see `search.query`).
            k: how many at most.
            where: filter, applied before the search (see `store.filters`).
            refine: whether the question is expanded and the best answers are matched view by view (see `search.options`).
            min_confidence: leave out hits that are less sure to be of the question's kind; the collection has to be calibrated.
                Nothing left says that nothing in it looks like the question.

        Raises:
            QueryError: there is nothing in the query, a part of it cannot be read, or its hits carry no confidence to be cut by.
            FilterError: the filter cannot be understood.
        """
        from mvretrieval.search.pipeline import search

        return search(self, query, k, where, refine, min_confidence)

    def search_vector(
        self, vector: NDArray[np.float32], k: int = 10, where: str | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines, falling, and numbers of the objects nearest to an object vector (D,)."""
        allowed = self.store.select(where) if where else None
        return self._index.search(vector, k, allowed)

    def sample(self, limit: int) -> NDArray[np.float32]:
        """(n, D) object vectors of at most `limit` objects."""
        return self._index.sample(limit)
