"""A collection of objects: the store and the index together, and who may write."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mvrender.pool import Job, Rendered, RenderPool, RenderSpec
from mvrender.renderer import choose
from mvretrieval.collection.scan import stat_text
from mvretrieval.collection.store import NewObject, ObjectRecord, Store
from mvretrieval.collection.vectors import IndexKind, VectorIndex, resolve_kind
from mvretrieval.describe import Describer, DescriberConfig, check_same
from mvretrieval.errors import CollectionError, did_you_mean
from mvretrieval.statistics import Statistics, StatisticsFit

if TYPE_CHECKING:
    from mvretrieval.collection.indexing import IndexOptions, IndexReport
    from mvretrieval.encoders.device import PrecisionChoice
    from mvretrieval.search.query import Hit, Query

THUMBNAIL_SIZE = 112


@dataclass(frozen=True)
class OpenOptions:
    """How this machine runs a collection; nothing here changes what vectors mean.

    Attributes:
        device: where networks run.
        precision: of the encoder.
        backend: renderer by name.
        workers: render processes; one per core by default.
    """

    device: str = "auto"
    precision: PrecisionChoice = "auto"
    backend: str | None = None
    workers: int | None = None


class Collection:
    """Objects that can be asked for.

        with Collection.create("things/") as things:
            things.add_folder("meshes/")
            for hit in things.search(Query(mesh="chair.glb")):
                print(hit.rank, hit.id, hit.score)

    Many processes may read at once; one may write. A reader notices what the writer adds.
    """

    def __init__(self, folder: Path, store: Store, options: OpenOptions) -> None:
        """Use `Collection.create` or `Collection.open`."""
        self.folder = folder
        self.store = store
        self.options = options
        self._index: VectorIndex | None = None
        self._index_lock = threading.Lock()
        self._writer: IO[bytes] | None = None
        self._pools: dict[tuple[str, ...], RenderPool] = {}
        self._describer: Describer | None = None
        self._describer_epoch = -1

    # -- opening ------------------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls, folder: str | Path, config: DescriberConfig | None = None, options: OpenOptions | None = None, index: IndexKind = "auto"
    ) -> Collection:
        """Make an empty collection, open for writing.

        Args:
            folder: made if it is not there; must not hold a collection.
            config: how objects are described.
            options: how this machine runs it.
            index: kind of index (see `collection.vectors`).

        Raises:
            CollectionError: there is one already, or the folder cannot be written.
            EncoderError: the encoder is unknown, or its weights cannot be had.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CollectionError(f"{folder} is not empty: name a new folder, or open the collection that is there")
        config = config or DescriberConfig()
        options = options or OpenOptions()
        # Before anything is written: an encoder without weights should leave no half-made folder behind.
        describer = Describer(config, None, options.device, options.precision, options.backend)  # type: ignore[arg-type]
        describer.encoder  # noqa: B018
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CollectionError(f"{folder} cannot be made: {error.strerror}") from error
        store = Store.create(folder)
        collection = cls(folder, store, options)
        collection.lock_for_writing()
        with store.transaction():
            store.set_meta("index", index)
            store.set_meta("epoch", 1)
            store.set_meta("change", 0)
            collection.write_describer(describer)
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
        if collection.store.get_meta("describer") is None:
            raise CollectionError(f"{folder} was left half made: delete it and index again")
        if write:
            try:
                collection.lock_for_writing()
            except CollectionError:
                collection.close()
                raise
        return collection

    def lock_for_writing(self) -> None:
        """Take the right to write.

        Raises:
            CollectionError: another process has it.
        """
        if self._writer is not None:
            return
        path = self.folder / "writer.lock"
        try:
            file = path.open("a+b")
        except OSError as error:
            raise CollectionError(f"{self.folder} cannot be written ({error.strerror}): check its owner and mode") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read(20).decode(errors="replace").strip() or "unknown"
            file.close()
            raise CollectionError(
                f"another program is writing to {self.folder} (process {holder}): wait until it is done; searching works meanwhile"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        self._writer = file

    def close(self) -> None:
        """Save the index if this process wrote, and let go of everything."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        if self._writer is not None:
            try:
                self.save_index()
            finally:
                self._writer.close()
                self._writer = None
        self.store.close()

    def __enter__(self) -> Collection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return self.store.count()

    # -- describing ---------------------------------------------------------------------------------------------------

    @property
    def describer(self) -> Describer:
        """How this collection's objects are described; read again when another process has changed it."""
        epoch = int(self.store.get_meta("epoch", 0))
        if self._describer is None or self._describer_epoch != epoch:
            config = DescriberConfig.from_json(self.store.get_meta("describer"))
            stored = self.store.get_meta("statistics")
            statistics = Statistics.from_bytes(stored) if stored else None
            options = self.options
            fresh = Describer(config, statistics, options.device, options.precision, options.backend)  # type: ignore[arg-type]
            if self._describer is not None and self._describer.config.encoder == config.encoder:
                fresh = self._describer.with_statistics(statistics)
                fresh.config = config
            self._describer, self._describer_epoch = fresh, epoch
        return self._describer

    def check_encoder(self) -> None:
        """Make sure that the encoder which is open here is the one the collection was built with.

        Raises:
            DescriberError: its weights or preprocessing are others.
        """
        stored = self.store.get_meta("view_fingerprint")
        check_same(
            stored,
            self.describer.view_fingerprint,
            str(self.folder),
            f"Ask with the encoder it was built with, or describe it anew: mvr reindex {self.folder} "
            f"--encoder {self.describer.config.encoder}",
        )

    def relocate_encoder(self, encoder_id: str) -> None:
        """Use `encoder_id` from now on here, if it has the same weights (a checkpoint file that moved).

        Raises:
            DescriberError: it is another encoder.
        """
        current = self.describer
        if encoder_id != current.config.encoder:
            other = Describer(
                DescriberConfig.from_json(current.config.to_json()), current.statistics, current.device, current.precision, current.backend
            )
            other.config = other.with_config(encoder=encoder_id).config
            check_same(
                self.store.get_meta("view_fingerprint"),
                other.view_fingerprint,
                str(self.folder),
                f"Leave --encoder out, or describe the collection anew: mvr reindex {self.folder} --encoder {encoder_id}",
            )
            self._describer = other

    def pool(self, workers: int | None = None) -> RenderPool:
        """Render workers for this collection's views, kept until `close`."""
        backend, _ = choose(self.describer.backend)
        config = self.describer.config
        key = (backend, config.rig, *config.styles, str(config.size), str(workers))
        if key not in self._pools:
            spec = RenderSpec(
                rig=self.describer.rig, styles=config.styles, size=config.size, backend=backend, strip_size=THUMBNAIL_SIZE
            )
            self._pools[key] = RenderPool(spec, workers)
        return self._pools[key]

    # -- writing ------------------------------------------------------------------------------------------------------

    def add_folder(self, *folders: str | Path, options: IndexOptions | None = None) -> IndexReport:
        """Add every mesh in folders; what is there and unchanged is skipped (see `collection.indexing`)."""
        from mvretrieval.collection.indexing import index_folders

        return index_folders(self, [Path(folder) for folder in folders], options)

    def add(
        self, path: str | Path, id: str | None = None, metadata: Mapping[str, Any] | None = None, up: str | None = None  # noqa: A002
    ) -> str:
        """Add one mesh, or replace the object of that file. Findable at once.

        Args:
            path: of the mesh.
            id: of a new object; its file name by default.
            metadata: labels.
            up: axis that is up in the file; the format's convention by default.

        Returns:
            The object's id.

        Raises:
            MeshError: the file cannot be described.
            CollectionError: another process writes.
        """
        self.lock_for_writing()
        self.check_encoder()
        path = Path(os.path.abspath(path))  # noqa: PTH100
        rendered = self.pool(1).render(Job(path, path.parent, up))  # type: ignore[arg-type]
        known = self.store.by_path(str(path))
        with self.store.transaction():
            object_id = id or path.name if known is None else self.store.records([known[0]])[known[0]].id
            new = self.new_objects([rendered], [self.store.free_id(object_id) if known is None else object_id])[0]
            number = self.store.put(new, self.store.next_change())
            if metadata:
                self.store.set_metadata(number, metadata)
        return new.id

    def remove(self, *ids: str) -> int:
        """Remove objects. They are gone from searches at once.

        Returns:
            How many there were.
        """
        self.lock_for_writing()
        with self.store.transaction():
            return self.store.delete(ids, self.store.next_change())

    def new_objects(self, rendered: Sequence[Rendered], ids: Sequence[str]) -> list[NewObject]:
        """Encode and pool rendered files."""
        assert all(item.views is not None for item in rendered)
        images = np.stack([item.views.images for item in rendered if item.views is not None])
        masks = np.stack([item.views.mask for item in rendered if item.views is not None])
        b, s, v = images.shape[:3]
        raw = self.describer.encode(images.reshape(b * s, v, *images.shape[3:])).reshape(b, s, v, -1)
        # Rounded as they are stored, so that a later re-pooling gives the same vectors.
        raw = raw.astype(np.float16)
        vectors, _ = self.describer.pool(raw.astype(np.float32), masks)
        return [
            NewObject(
                id=object_id,
                path=str(item.opened.job.path),
                content_hash=item.opened.content_hash,
                stat=stat_text(item.opened.job.path, item.opened.references),
                facts={**item.opened.facts, "up": item.opened.up},
                notes=item.opened.notes,
                vector=vectors[i],
                view_vectors=raw[i],
                view_mask=masks[i],
                strip=item.strip,
            )
            for i, (item, object_id) in enumerate(zip(rendered, ids, strict=True))
        ]

    def fit_statistics(self, where: str | None = None, describer: Describer | None = None) -> Statistics:
        """Fit the centring or whitening that the describer asks for on the collection's views, and pool all anew.

        Args:
            where: objects to learn from; all by default.
            describer: what asks for it, over the same views; the collection's own by default.

        Raises:
            DescriberError: too few views for so many dimensions.
        """
        numbers = self.store.select(where)
        fit: StatisticsFit | None = None
        for number in numbers:
            views, mask = self.views(int(number))
            if fit is None:
                fit = StatisticsFit(len(views), views.shape[-1])
            fit.add(views[:, mask])
        if fit is None:
            raise CollectionError(f"there is nothing to learn statistics from in {self.folder}" + (f" where {where}" if where else ""))
        describer = describer or self.describer
        statistics = fit.result(describer.config.whiten or None)
        self.repool(describer.with_statistics(statistics))
        return statistics

    def repool(self, describer: Describer) -> None:
        """Compute every object vector anew from the stored views, in one transaction.

        Args:
            describer: its views must be the ones that are stored.
        """
        self.lock_for_writing()
        numbers = self.store.select(None)
        with self.store.transaction():
            for start in range(0, len(numbers), 256):
                some = [int(n) for n in numbers[start : start + 256]]
                views, masks = zip(*(self.views(n) for n in some), strict=True)
                vectors, _ = describer.pool(np.stack(views), np.stack(masks))
                for number, vector in zip(some, vectors, strict=True):
                    self.store.put_vector(number, vector)
            self.store.touch_all(self.store.next_change())
            self.store.set_meta("epoch", int(self.store.get_meta("epoch")) + 1)
            self.write_describer(describer)

    def write_describer(self, describer: Describer) -> None:
        """Remember how objects are described, in a transaction of the caller's."""
        self.store.set_meta("describer", describer.config.to_json())
        self.store.set_meta("statistics", describer.statistics.to_bytes() if describer.statistics else None)
        if self.store.get_meta("view_fingerprint") is None:
            self.store.set_meta("view_fingerprint", describer.view_fingerprint)
            self.store.set_meta("precision", describer.encoder.precision)
            self.store.set_meta("view_dim", describer.encoder.dim)

    # -- reading ------------------------------------------------------------------------------------------------------

    def views(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Raw view vectors (S, V, D) and mask (V,) of an object."""
        flat, mask = self.store.views_of(number)
        return flat.reshape(self.describer.n_styles, len(mask), -1), mask

    def number_of(self, object_id: str) -> int:
        """Number of the object called `object_id`.

        Raises:
            CollectionError: there is none.
        """
        number = self.store.number_of(object_id)
        if number is None:
            raise CollectionError(
                f"no object '{object_id}' in {self.folder}: {did_you_mean(object_id, self.store.similar_ids(object_id))}"
                "an id is the path relative to the indexed folder"
            )
        return number

    def get(self, object_id: str) -> ObjectRecord:
        """The object called `object_id`.

        Raises:
            CollectionError: there is none.
        """
        number = self.number_of(object_id)
        return self.store.records([number])[number]

    def index(self) -> VectorIndex:
        """The search index, brought up to what the store holds now."""
        with self._index_lock:
            store = self.store
            change, epoch = int(store.get_meta("change", 0)), int(store.get_meta("epoch", 0))
            if self._index is None or self._index.epoch != epoch:
                self._index = VectorIndex.load(self.folder, epoch)
            index = self._index
            if index is None or index.worn or index.change > change:
                index = self._build_index(change, epoch)
            elif index.change < change:
                index.drop(store.deleted_since(index.change))
                for numbers, vectors in store.vectors_since(index.change):
                    index.put(numbers, vectors)
                index.change = change
                kind: IndexKind = store.get_meta("index", "auto")
                if resolve_kind(kind, len(index)) != index.kind:
                    index = self._build_index(change, epoch)
            self._index = index
            return index

    def save_index(self) -> None:
        """Write the index beside the store, so that opening needs no rebuild."""
        self.index().save(self.folder)

    def search(self, query: Query, k: int = 10, where: str | None = None) -> list[Hit]:
        """Objects that answer a query, best first.

        Args:
            query: mesh, pictures, words, ids, or a mixture of them (see `search.query`).
            k: how many at most.
            where: filter, applied before the search (see `collection.where`).

        Raises:
            QueryError: there is nothing in the query, or a part of it cannot be read.
            FilterError: the filter cannot be understood.
        """
        from mvretrieval.search.query import search

        return search(self, query, k, where)

    def search_vector(
        self, vector: NDArray[np.float32], k: int = 10, where: str | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines, falling, and numbers of the objects nearest to an object vector (D,)."""
        allowed = self.store.select(where) if where else None
        return self.index().search(vector[None], k, allowed)[0]

    def _build_index(self, change: int, epoch: int) -> VectorIndex:
        dim = self.describer.n_styles * int(self.store.get_meta("view_dim"))
        if self.describer.statistics is not None:
            dim = self.describer.n_styles * self.describer.statistics.dim
        kind: IndexKind = self.store.get_meta("index", "auto")
        return VectorIndex.build(kind, dim, change, epoch, self.store.vectors_since(-1), self.store.count())
