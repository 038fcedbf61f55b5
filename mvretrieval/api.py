"""`Collection`: the Python API of one collection of 3D objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mvrender.mesh import UpAxis
from mvretrieval.describe import Describer, DescriberConfig
from mvretrieval.encoders.encoder import ViewEncoder
from mvretrieval.encoders.registry import object_id
from mvretrieval.index.kinds import IndexKind
from mvretrieval.ingest.add import add_file
from mvretrieval.ingest.edit import remove_objects, set_metadata
from mvretrieval.ingest.index_report import IndexOptions, IndexReport
from mvretrieval.ingest.indexing import index_folders, index_views
from mvretrieval.ingest.outdated import reembed_outdated
from mvretrieval.ingest.reembed import Failure, reembed
from mvretrieval.search.hits import Hit
from mvretrieval.search.options import RerankOptions, SearchOptions
from mvretrieval.search.pipeline import search
from mvretrieval.search.query import Query
from mvretrieval.session.open_or_create import open_or_create
from mvretrieval.session.options import OpenOptions
from mvretrieval.session.session import Session
from mvretrieval.store.augmented import AugmentationConfig
from mvretrieval.store.records import ObjectRecord

if TYPE_CHECKING:
    from mvretrieval.confidence.calibration import Calibration
    from mvretrieval.ingest.view_manifest import ViewManifest
    from mvretrieval.weighting.adapter import Adapter  # loads torch, which a search by id does without

__all__ = ["Collection", "OpenOptions"]


class Collection:
    """A folder of searchable 3D objects.

        with Collection.create("things/") as things:
            things.add_folder("meshes/")
            for hit in things.search(Query(mesh="chair.glb")):
                print(hit.rank, hit.id, hit.score)

    Many processes may read a collection while one writes. A reader sees what the writer adds.

    Attributes:
        session: state of the open collection, for functions that need more than these methods.
    """

    def __init__(self, session: Session) -> None:
        """Use `Collection.create` or `Collection.open`."""
        self.session = session

    # -- opening and closing --------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        folder: str | Path,
        config: DescriberConfig | None = None,
        options: OpenOptions | None = None,
        index: IndexKind = "auto",
        adapter: Adapter | None = None,
        encoder: ViewEncoder | None = None,
        exist_ok: bool = False,
    ) -> Collection:
        """Make an empty collection and open it for writing.

        Args:
            folder: made if it does not exist; must not hold a collection.
            config: how objects are embedded.
            options: how this machine runs it.
            index: kind of index, such as "hnsw" or a FAISS factory string (see `index.kinds`).
            adapter: learned weighting (see `weighting.adapter`); `config` then names neither whitening nor pooling.
            encoder: an open encoder instead of the one that `config` names. `open` needs it too, unless its id opens it again.
            exist_ok: open the collection of the folder, if there is one with this configuration; a script can then be run again.

        Raises:
            AdapterError: the adapter was trained on other views.
            CollectionError: the folder holds a collection already, or cannot be written.
            DescriberError: with `exist_ok`, the collection has another configuration.
            EncoderError: the encoder is unknown, its weights cannot be loaded, or a given encoder breaks its contract.
        """
        if encoder is not None:
            config = replace(config or DescriberConfig(size=encoder.image_size), encoder=object_id(encoder))
            options = replace(options or OpenOptions(), encoder=encoder)
        make = open_or_create if exist_ok else Session.create
        return cls(make(Path(folder), config or DescriberConfig(), options, index, adapter))

    @classmethod
    def open(
        cls,
        folder: str | Path,
        options: OpenOptions | None = None,
        write: bool = False,
        encoder: ViewEncoder | None = None,
    ) -> Collection:
        """Open a collection. One of an earlier format version is migrated first (see `store.migrations`).

        Args:
            folder: of the collection.
            options: how this machine runs it.
            write: take the writer lock now; one process has it at a time. Otherwise the first change takes it.
            encoder: the open encoder that the collection was made with, instead of opening one.

        Raises:
            CollectionError: it is missing, damaged, of a later version, or another process is writing.
            DescriberError: `encoder` is another one.
        """
        if encoder is not None:
            options = replace(options or OpenOptions(), encoder=encoder)
        session = Session.open(Path(folder), options, write)
        if encoder is not None:
            try:
                session.check_given_encoder()
            except BaseException:
                session.release()
                raise
        return cls(session)

    def close(self) -> None:
        """Save the index if this process wrote, and release all resources."""
        self.session.close()

    def __enter__(self) -> Collection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.__exit__(kind, error, trace)

    # -- writing --------------------------------------------------------------------------------------------------

    def add_folder(self, *folders: str | Path, options: IndexOptions | None = None) -> IndexReport:
        """Add every mesh in folders; files that are stored and unchanged are skipped. Resumes after an interruption.

        Args:
            folders: folders, or single files.
            options: labels, up axis, limits and the like.

        Raises:
            CollectionError: another process is writing, or the disk is full; objects that were reported as added are safe.
            LabelsError: the labels cannot be used.
        """
        return index_folders(self.session, [Path(folder) for folder in folders], options)

    def add_views(
        self, views: str | Path | ViewManifest, options: IndexOptions | None = None, in_rig_order: bool = False
    ) -> IndexReport:
        """Add every object of a view manifest, a CSV that names view images; unchanged ones are skipped.

        Args:
            views: the CSV, or the result of `view_manifest.read_view_manifest`.
            options: labels and the like; options about meshes are ignored.
            in_rig_order: where the CSV has no directions, each object's images are the rig's views in order.

        Raises:
            CollectionError: another process is writing, or the disk is full; objects that were reported as added are safe.
            DescriberError: the collection has several styles.
            LabelsError: the labels cannot be used.
            ViewsError: the CSV cannot be used, or lacks directions that the collection needs.
        """
        return index_views(self.session, Path(views) if isinstance(views, str) else views, options, in_rig_order)

    def add(
        self,
        path: str | Path,
        id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        up: UpAxis | None = None,
        replace: bool = False,
    ) -> str:
        """Add one mesh, or replace the object of that file. It can be found at once.

        Args:
            path: of the mesh.
            id: of a new object; by default the name of the file, with ~2 if it is taken.
            metadata: labels.
            up: up axis of the file; the format's convention by default.
            replace: if another file's object has this `id`, it gets this file, and keeps its id and its other labels. Otherwise the
                object is added.

        Returns:
            The object's id.

        Raises:
            MeshError: the file cannot be rendered.
            CollectionError: another process is writing, or `id` belongs to another object and `replace` is not set.
        """
        return add_file(self.session, path, id, metadata, up, replace)

    def set_metadata(self, object_id: str, values: Mapping[str, Any]) -> None:
        """Set labels of an object; None removes one.

        Raises:
            LabelsError: a value is neither text nor a number.
            UnknownObjectError: no object has this id.
        """
        set_metadata(self.session, object_id, values)

    def remove(self, *ids: str) -> int:
        """Remove objects. They can no longer be found at once; their files stay.

        Returns:
            How many objects there were.
        """
        return remove_objects(self.session, *ids)

    def augment(self, k: int, alpha: float | None = None, progress: Callable[[int, int], None] | None = None) -> None:
        """Turn database-side augmentation on or off: average each object vector with its k nearest neighbours.

        Computed from the stored vectors, which are kept. Indexing keeps it up to date.

        Args:
            k: number of neighbours; 0 turns it off.
            alpha: power of the cosine that weighs them; 3 by default.
            progress: called with (done, total).

        Raises:
            DescriberError: k or alpha is negative.
        """
        self.session.lock_for_writing()
        self.session.augmenter.set(AugmentationConfig.of(k, alpha), progress)

    def reembed(
        self,
        config: DescriberConfig,
        fit_where: str | None = None,
        drop_missing: bool = False,
        progress: Callable[[int, int], None] | None = None,
        adapter: Adapter | None = None,
    ) -> list[Failure]:
        """Embed every object as `config` says: from stored views if these are the same, else from the files.

        Args:
            config: the new configuration.
            fit_where: filter of the objects that centring or whitening is fitted on; all by default.
            drop_missing: remove objects whose files can no longer be rendered; otherwise they stop the change.
            progress: called with (done, total).
            adapter: that `config` names; the collection's own by default.

        Returns:
            (id, code, message) of the objects that could not be embedded, which are removed.

        Raises:
            CollectionError: some objects could not be embedded and `drop_missing` is off. Nothing has changed then.
            DescriberError: `config` has other cameras or styles, and some objects were indexed from view images.
        """
        return reembed(self.session, config, fit_where, drop_missing, progress, adapter)

    def reembed_outdated(self, progress: Callable[[int, int], None] | None = None) -> tuple[int, list[Failure]]:
        """Render and embed again the objects whose files would look different with the present readers.

        Args:
            progress: called with (done, total).

        Returns:
            Number of objects that were embedded, and (id, code, message) of those that could not be, which stay as they were.

        Raises:
            CollectionError: another process is writing.
            DescriberError: the encoder here is not the one that encoded the stored views.
        """
        return reembed_outdated(self.session, progress)

    def set_index_kind(self, kind: IndexKind) -> None:
        """Search with another kind of index from now on; it is built by the next search, or when the collection is closed.

        Args:
            kind: `auto`, `exact`, `hnsw`, `ivf` or a FAISS factory string (see `index.kinds`).

        Raises:
            CollectionError: FAISS cannot make such an index, or another process is writing.
        """
        self.session.set_index_kind(kind)

    def calibrate(self, by: str | None = None, where: str | None = None, seed: int = 0) -> Calibration:
        """Fit a confidence calibration, so that hits have a confidence from now on (see `confidence.calibrate`).

        Args:
            by: label of the classes; without one, confidence is the probability of being the same object.
            where: filter of the objects to fit on; all by default.
            seed: of the random draws.

        Raises:
            CalibrationError: too few objects, labels or classes, or scikit-learn is missing.
            FilterError: no such label, or the filter cannot be parsed.
        """
        from mvretrieval.confidence.calibrate import calibrate  # scikit-learn is an extra

        return calibrate(self.session, by, where, seed)

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        """Folder of the collection."""
        return self.session.folder

    @property
    def describer(self) -> Describer:
        """How objects are embedded."""
        return self.session.describer

    def __len__(self) -> int:
        return len(self.session)

    def ids(self, where: str | None = None) -> Iterator[str]:
        """Ids of all objects, or of those that a filter keeps, in the order in which they were added."""
        store = self.session.store
        row_ids = store.select(where).tolist()
        for start in range(0, len(row_ids), 500):
            some = row_ids[start : start + 500]
            records = store.records(some)
            yield from (records[row_id].id for row_id in some if row_id in records)

    def get(self, object_id: str) -> ObjectRecord:
        """One object: path, facts, notes and labels.

        Raises:
            UnknownObjectError: no object has this id.
        """
        with self.session.store.snapshot():  # so that it is not removed in between
            row_id = self.session.row_id_of(object_id)
            return self.session.store.records([row_id])[row_id]

    def failures(self) -> list[tuple[str, str, str]]:
        """(path, code, message) of the files that could not be indexed."""
        return self.session.store.failures()

    def search(
        self,
        query: Query,
        options: SearchOptions | None = None,
        *,
        k: int | None = None,
        where: str | None = None,
        rerank: RerankOptions | None = None,
        min_confidence: float | None = None,
    ) -> list[Hit]:
        """Search for a query.

            things.search(Query(mesh="chair.glb"), k=5, where="faces < 5000")

        Args:
            query: mesh, images, text, ids, or a mixture of them (see `search.query`).
            options: everything below in one record.
            k: number of hits at most; 10 by default.
            where: filter, applied before the search (see `store.filters`).
            rerank: query expansion and late interaction (see `search.options`).
            min_confidence: leave out hits with a lower confidence; an empty result then means that nothing matches.

        Returns:
            Hits, best first.

        Raises:
            QueryError: the query is empty, a term cannot be read, or hits have no confidence to filter by.
            FilterError: the filter cannot be parsed.
        """
        given = {"k": k, "where": where, "rerank": rerank, "min_confidence": min_confidence}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return search(self.session, query, replace(options or SearchOptions(), **changes)).hits
