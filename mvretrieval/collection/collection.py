"""A collection of objects: the store and the index together, and who may write."""

from __future__ import annotations

import fcntl
import os
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mvrender.pool import Job, Rendered, RenderPool, RenderSpec
from mvrender.renderer import choose
from mvretrieval.collection.catch_up import caught_up
from mvretrieval.collection.scan import stat_text
from mvretrieval.collection.smoothed import Smoothing, searched_since
from mvretrieval.collection.smoother import Smoother
from mvretrieval.collection.store import FILE, PART, NewObject, ObjectRecord, Store
from mvretrieval.collection.vectors import IndexKind, VectorIndex
from mvretrieval.describe import Describer, DescriberConfig, check_same
from mvretrieval.errors import CollectionError, DescriberError, did_you_mean
from mvretrieval.statistics import Statistics, StatisticsFit

if TYPE_CHECKING:
    from mvretrieval.adapters.adapter import Adapter
    from mvretrieval.collection.indexing import IndexOptions, IndexReport
    from mvretrieval.encoders.device import PrecisionChoice
    from mvretrieval.search.answers import Hit
    from mvretrieval.search.query import Query
    from mvretrieval.search.refinement import Refinement

THUMBNAIL_SIZE = 112
LOCK = "writer.lock"


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
        self.smoother = Smoother(self)
        self._index: VectorIndex | None = None
        # Held while searching too: catching up moves the vectors under a search in another thread.
        self._index_lock = threading.RLock()
        self._writer: IO[bytes] | None = None
        self._pools: dict[tuple[str, ...], RenderPool] = {}
        self._pools_lock = threading.Lock()
        self._describer: Describer | None = None
        self._describer_epoch = -1

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
            index: kind of index (see `collection.vectors`).
            adapter: learnt weights (see `adapters.adapter`); `config` then names neither whitening nor pooling.

        Raises:
            AdapterError: the adapter was trained on other views.
            CollectionError: there is one already, or the folder cannot be written.
            EncoderError: the encoder is unknown, or its weights cannot be had.
        """
        folder = Path(folder)
        _check_free(folder)
        config = config or DescriberConfig()
        options = options or OpenOptions()
        # Before anything is written: an encoder without weights should leave no half-made folder behind.
        describer = Describer(config, None, options.device, options.precision, options.backend)  # type: ignore[arg-type]
        describer.encoder  # noqa: B018
        if config.adapter and (adapter is None or adapter.fingerprint != config.adapter):
            raise DescriberError(f"the configuration names adapter {config.adapter}: give that adapter too")
        if adapter is not None:
            if config.wants_statistics or config.pooling != "mean":
                raise DescriberError("an adapter brings its own whitening and pooling: name one or the other")
            describer = describer.with_adapter(adapter)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CollectionError(f"{folder} cannot be made: {error.strerror}") from error
        writer = _lock(folder)
        try:
            meta = {"index": index, "epoch": 1, "change": 0, **_meta_of(describer), **_view_meta_of(describer)}
            collection = cls(folder, Store.create(folder, meta), options)
        except BaseException:
            writer.close()
            raise
        collection._writer, collection._describer, collection._describer_epoch = writer, describer, 1
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
        except CollectionError:
            collection.close()
            raise
        return collection

    def lock_for_writing(self) -> None:
        """Take the right to write.

        Raises:
            CollectionError: another process has it.
        """
        if self._writer is None:
            self._writer = _lock(self.folder)

    def close(self) -> None:
        """Save the index if this process wrote, and let go of everything."""
        try:
            if self._writer is not None:
                self.save_index()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self.store.close()

    def __enter__(self) -> Collection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:  # what went wrong matters more than the index, which is rebuilt when next opened
            self._let_go()

    def __len__(self) -> int:
        return self.store.count()

    # -- describing ---------------------------------------------------------------------------------------------------

    @property
    def describer(self) -> Describer:
        """How this collection's objects are described; read again when another process has changed it."""
        epoch = int(self.store.get_meta("epoch", 0))
        if self._describer is None or self._describer_epoch != epoch:
            config = DescriberConfig.from_json(self.store.get_meta("describer"))
            fitted = _fitted_of(self.store)
            options = self.options
            fresh = Describer(config, fitted, options.device, options.precision, options.backend)  # type: ignore[arg-type]
            if self._describer is not None and self._describer.config.encoder == config.encoder:
                fresh = self._describer.with_fitted(fitted)
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

    def notices(self) -> list[str]:
        """How this machine describes objects otherwise than the one that made the collection, for people to know."""
        here = {"precision": self.describer.encoder.precision, "backend": choose(self.describer.backend)[0]}
        return [
            f"the collection was made with {name} {made}, this uses {here[name]}: vectors differ within the tested tolerance"
            for name in here
            if (made := self.store.get_meta(name)) != here[name]
        ]

    def relocate_encoder(self, encoder_id: str) -> None:
        """Use `encoder_id` from now on here, if it has the same weights (a checkpoint file that moved).

        Raises:
            DescriberError: it is another encoder.
        """
        current = self.describer
        if encoder_id != current.config.encoder:
            other = Describer(
                DescriberConfig.from_json(current.config.to_json()),
                current.fitted,
                current.device,
                current.precision,
                current.backend,
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
        with self._pools_lock:
            if key in self._pools:
                return self._pools[key]
            spec = RenderSpec(
                rig=self.describer.rig,
                styles=config.styles,
                size=config.size,
                backend=backend,
                strip_size=THUMBNAIL_SIZE,
            )
            self._pools[key] = RenderPool(spec, workers)
            return self._pools[key]

    # -- writing ------------------------------------------------------------------------------------------------------

    def add_folder(self, *folders: str | Path, options: IndexOptions | None = None) -> IndexReport:
        """Add every mesh in folders; what is there and unchanged is skipped (see `collection.indexing`)."""
        from mvretrieval.collection.indexing import index_folders

        return index_folders(self, [Path(folder) for folder in folders], options)

    def add(
        self,
        path: str | Path,
        id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        up: str | None = None,
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
        (new,) = self.new_objects([rendered], [id or path.name])
        with self.store.transaction():
            known = self.store.by_path(str(path))
            stays = None if known is None else self.store.records([known[0]])[known[0]].id
            new = replace(new, id=stays or self.store.free_id(new.id))
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

    def smooth(self, k: int, alpha: float | None = None) -> None:
        """Average each object's vector with its k nearest neighbours' from now on (see `collection.smoothed`); 0 for none.

        Done at once, from the vectors that are there; these stay. Indexing keeps it right.

        Args:
            k: neighbours.
            alpha: power of the cosine that weighs them; 3 by default.

        Raises:
            DescriberError: k or alpha is negative.
        """
        self.lock_for_writing()
        self.smoother.set(Smoothing.of(k, alpha))

    def new_objects(self, rendered: Sequence[Rendered], ids: Sequence[str]) -> list[NewObject]:
        """Encode and pool rendered files. Not in a transaction: the index may have to catch up with what is there."""
        assert all(item.views is not None for item in rendered)
        images = np.stack([item.views.images for item in rendered if item.views is not None])
        masks = np.stack([item.views.mask for item in rendered if item.views is not None])
        b, s, v = images.shape[:3]
        raw = self.describer.encode(images.reshape(b * s, v, *images.shape[3:])).reshape(b, s, v, -1)
        # Rounded as they are stored, so that a later re-pooling gives the same vectors.
        raw = raw.astype(np.float16)
        vectors, _ = self.describer.pool(raw.astype(np.float32), masks)
        smoothed = self.smoother.of_new(vectors, [str(item.opened.job.path) for item in rendered])
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
                root=str(item.opened.job.root or item.opened.job.path.parent),
                smoothed=smoothed[i],
            )
            for i, (item, object_id) in enumerate(zip(rendered, ids, strict=True))
        ]

    def fit_statistics(self, where: str | None = None, describer: Describer | None = None) -> Statistics:
        """Fit the centring or whitening that the describer asks for on the collection's views, and pool all anew.

        Args:
            where: objects to learn from; all by default.
            describer: what asks for it, over the same views; the collection's own by default.

        Raises:
            DescriberError: too few views for so many dimensions, or none.
        """
        numbers = self.store.select(where)
        fit: StatisticsFit | None = None
        for start in range(0, len(numbers), 256):
            some = [self.views(int(number)) for number in numbers[start : start + 256]]
            if fit is None:
                fit = StatisticsFit(len(some[0][0]), some[0][0].shape[-1])
            fit.add(np.concatenate([views[:, mask] for views, mask in some], axis=1))
        if fit is None:
            there = f" where {where}" if where else ""
            raise DescriberError(f"there is nothing to learn statistics from in {self.folder}{there}")
        describer = describer or self.describer
        statistics = fit.result(describer.config.whiten or None)
        self.repool(describer.with_fitted(statistics))
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
            self.smoother.renew()
            self.write_describer(describer)

    def write_describer(self, describer: Describer) -> None:
        """Remember how objects are described, in a transaction of the caller's."""
        meta = _meta_of(describer)
        if self.store.get_meta("view_fingerprint") is None:
            meta |= _view_meta_of(describer)
        for key, value in meta.items():
            self.store.set_meta(key, value)

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
                f"no object '{object_id}' in {self.folder}: {did_you_mean(object_id, self.store.some_ids())}"
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
        # A snapshot: a describer that another process swaps in between would mix vectors of two meanings.
        with self.reading():
            since = partial(searched_since, self.store)
            self._index = caught_up(self._index, self.store, self.folder, since, lambda: self.dim)
            return self._index

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What is searched and read inside is one state of index and store, whatever is written meanwhile."""
        with self._index_lock, self.store.snapshot():
            yield

    @contextmanager
    def handing_over_index(self) -> Iterator[None]:
        """Nobody searches inside; the index is loaded or built anew afterwards, since what it holds has another use."""
        with self._index_lock:
            try:
                yield
            finally:
                self._index = None

    @property
    def dim(self) -> int:
        """Length D of an object vector."""
        statistics = self.describer.statistics
        return self.describer.n_styles * (int(self.store.get_meta("view_dim")) if statistics is None else statistics.dim)

    def save_index(self) -> None:
        """Write the index beside the store, so that opening needs no rebuild."""
        index = self.index()
        try:
            index.save(self.folder)
            self.smoother.save()
        except (OSError, RuntimeError) as error:  # faiss knows no other error
            warnings.warn(
                f"the index of {self.folder} was not saved ({error}); it is rebuilt when next opened", stacklevel=2
            )

    def search(
        self, query: Query, k: int = 10, where: str | None = None, refine: Refinement | None = None
    ) -> list[Hit]:
        """Objects that answer a query, best first.

        Args:
            query: mesh, pictures, words, ids, or a mixture of them (see `search.query`).
            k: how many at most.
            where: filter, applied before the search (see `collection.where`).
            refine: whether the question is expanded and the best answers are matched view by view (see `search.refinement`).

        Raises:
            QueryError: there is nothing in the query, or a part of it cannot be read.
            FilterError: the filter cannot be understood.
        """
        from mvretrieval.search.answers import search

        return search(self, query, k, where, refine)

    def search_vector(
        self, vector: NDArray[np.float32], k: int = 10, where: str | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines, falling, and numbers of the objects nearest to an object vector (D,)."""
        allowed = self.store.select(where) if where else None
        with self._index_lock:
            return self.index().search(vector[None], k, allowed)[0]

    def sample(self, limit: int) -> NDArray[np.float32]:
        """(n, D) object vectors of at most `limit` objects."""
        with self._index_lock:
            return self.index().sample(limit)


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
        raise CollectionError(
            f"{folder} lost its {FILE}; what is left ({', '.join(names[:3])}) was derived from it. "
            f"Delete the folder and run 'mvr index {folder} FOLDER' again"
        )
    if names:
        raise CollectionError(f"{folder} is no collection and not empty ({', '.join(names[:3])}): name a new folder")


def _lock(folder: Path) -> IO[bytes]:
    """The right to write, until the file is closed or the process ends."""
    try:
        file = (folder / LOCK).open("a+b")
    except OSError as error:
        raise CollectionError(f"{folder} cannot be written ({error.strerror}): check its owner and mode") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read(20).decode(errors="replace").strip() or "unknown"
        file.close()
        raise CollectionError(
            f"another program is writing to {folder} (process {holder}): wait until it is done; searching works meanwhile"
        ) from None
    try:
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
    except OSError:  # a full disk: the lock holds without a name on it
        pass
    return file


def _meta_of(describer: Describer) -> dict[str, Any]:
    fitted, adapter = describer.fitted, describer.adapter
    return {
        "describer": describer.config.to_json(),
        "statistics": fitted.to_bytes() if fitted is not None and adapter is None else None,
        "adapter": adapter.to_bytes() if adapter is not None else None,
    }


def _fitted_of(store: Store) -> Statistics | Adapter | None:
    """What `_meta_of` wrote."""
    adapter, statistics = store.get_meta("adapter"), store.get_meta("statistics")
    if adapter:
        from mvretrieval.adapters.adapter import Adapter

        return Adapter.from_bytes(adapter)
    return Statistics.from_bytes(statistics) if statistics else None


def _view_meta_of(describer: Describer) -> dict[str, Any]:
    """What raw view vectors depend on, and what they were made with."""
    encoder = describer.encoder
    return {
        "view_fingerprint": describer.view_fingerprint,
        "precision": encoder.precision,
        "backend": choose(describer.backend)[0],
        "view_dim": encoder.dim,
    }
