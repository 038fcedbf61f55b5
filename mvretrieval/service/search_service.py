"""The collection that is served, and what the routes share: searching, turns, the writer lock."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

from mvrender.errors import MvrenderError
from mvrender.formats import FORMATS
from mvretrieval import __version__
from mvretrieval.api import Collection
from mvretrieval.confidence.calibration import calibration_of, is_outdated
from mvretrieval.errors import MvrError
from mvretrieval.index.kinds import IndexParameters
from mvretrieval.ingest.imported_objects import holds_imported
from mvretrieval.search.hits import Hit
from mvretrieval.search.options import RerankOptions, SearchOptions
from mvretrieval.search.pipeline import search
from mvretrieval.service.jobs import JobQueue
from mvretrieval.service.limits import FairLimiter, stopping
from mvretrieval.service.problems import ProblemError
from mvretrieval.service.request_query import needs_encoder, query_of, query_term_model
from mvretrieval.service.schemas import CollectionModel, HitModel, ObjectModel, SearchRequest, SearchResponse
from mvretrieval.service.settings import ServiceSettings
from mvretrieval.service.uploads import Incoming
from mvretrieval.store.filters import parse_where
from mvretrieval.store.records import ObjectRecord

_log = logging.getLogger("mvretrieval.service")
_TEXT_HINT = (
    "this collection's encoder has no text tower. To search with text, re-embed it with a CLIP encoder: "
    "mvr reindex {folder} --encoder open_clip:ViT-B-32/laion2b_s34b_b79k"
)
_NO_ENCODER_HINT = "this collection holds vectors that were computed elsewhere, and no encoder for text"


class SearchService:
    """One open collection during the life of a service.

    Attributes:
        collection: what is served.
        session: of the collection.
        settings: access and limits.
        limiter: turns of requests that render or encode.
        writers: turns of requests that change the collection.
        jobs: folders that are indexed in the background.
        not_ready_reason: empty once the encoder and the index are loaded.
    """

    def __init__(self, collection: Collection, settings: ServiceSettings) -> None:
        """Serve a collection; one open for writing, if `settings` has a token."""
        self.collection = collection
        self.session = collection.session
        self.settings = settings
        workers = self.session.render_pool().n_workers if collection.describer.rig.is_known else 1
        self.limiter = FairLimiter(2 * workers, settings.max_waiting, settings.queue_timeout_s)
        self.writers = FairLimiter(1, settings.max_waiting, settings.queue_timeout_s)
        self._write_lock = threading.Lock()  # held by a job as long as it runs; other changes are refused meanwhile
        self.jobs = JobQueue(collection, self._write_lock)
        self.not_ready_reason = "the encoder and the index are being loaded: try again in a moment"
        self._load_finished = threading.Event()
        self._is_stopping = False
        self._incoming: Incoming | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the encoder and the index are loaded."""
        return not self.not_ready_reason

    def open(self) -> None:
        """Make the folder for the files of requests, and delete what a killed service left there."""
        self._incoming = Incoming(self.collection.folder)

    @property
    def incoming(self) -> Incoming:
        """Folder for the files of requests, between `open` and `close`."""
        assert self._incoming is not None
        return self._incoming

    def load(self) -> None:
        """Load the encoder and the index and start the render workers, so that the first query need not wait."""
        session = self.session
        try:
            if session.describer.rig.is_known:
                session.render_pool().warm_up()
            session.check_encoder()
            session.index.warm_up()
            for notice in session.index.notices():
                _log.warning("%s", notice)
            self.not_ready_reason = ""
        except (MvrError, MvrenderError) as error:  # objects can still be listed and searched by id
            public = "queries cannot be rendered or encoded: see the log of the service"
            self.not_ready_reason = str(error) if self.settings.show_paths else public
            _log.error("%s", error)
        except Exception:
            self.not_ready_reason = "unexpected error: see the log of the service"
            _log.exception("while loading")
        finally:
            self._load_finished.set()

    def stop(self) -> None:
        """Refuse requests that wait for their turn, and stop jobs: the process is about to end."""
        self.limiter.close()
        self.writers.close()
        self._is_stopping = True
        self._load_finished.set()
        self.jobs.stop_all()

    def close(self) -> None:
        """End jobs, and delete the files of requests."""
        self.jobs.close()
        if self._incoming is not None:
            self._incoming.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Exclude other changes during the block.

        Raises:
            ProblemError: a folder is being indexed, or the wait took too long.
        """
        if self.jobs.is_busy:
            message = "a folder is being indexed: try again after that job, or stop it"
            raise ProblemError("indexing_in_progress", message, 10)
        with self.writers.turn(), self._write_lock:
            yield

    def check_filter(self, where: str | None) -> None:
        """Refuse a filter on file paths if the service hides them.

        Raises:
            FilterError: it cannot be parsed, or uses a column that is hidden or unknown.
        """
        if where and not self.settings.show_paths:
            parse_where(where, self._columns())

    def _columns(self) -> dict[str, str]:
        """Columns that a filter can use."""
        store = self.session.store
        columns = store.columns()
        if not self.settings.show_paths and "path" not in store.metadata_columns():
            columns.pop("path", None)
        return columns

    def search(self, request: SearchRequest, files: Mapping[str, Path]) -> SearchResponse:
        """Search for the query of a request.

        Args:
            request: query and options.
            files: path of each uploaded file by its name.

        Raises:
            ProblemError: a file is missing, or a limit is exceeded.
            MvrError: see `Collection.search`.
        """
        started = time.perf_counter()
        if request.k > self.settings.max_hits:
            raise ProblemError("too_many_hits", f"k is {request.k}, at most {self.settings.max_hits} allowed")
        query = query_of(request, files, self.settings)
        self.check_filter(request.where)
        rerank = RerankOptions(request.expand, request.expand_alpha, request.rerank_views, request.rerank_weight)
        index = IndexParameters(request.nprobe, request.ef_search)
        options = SearchOptions(request.k, request.where, rerank, request.min_confidence, index)
        encodes = needs_encoder(request)
        with self.limiter.turn() if encodes else nullcontext():
            if encodes:  # one thread loads the encoder, the others wait for it
                self._load_finished.wait(self.settings.queue_timeout_s)
                if self._is_stopping:
                    raise stopping()
            result = search(self.session, query, options)
        return SearchResponse(
            hits=[self._hit_model(hit) for hit in result.hits],
            no_match=result.no_match,
            query=[query_term_model(term) for term in result.terms] if request.include_query_views else [],
            seconds=round(time.perf_counter() - started, 4),
        )

    def _hit_model(self, hit: Hit) -> HitModel:
        fields = hit.to_json()
        if not self.settings.show_paths:
            del fields["path"]
        return HitModel.model_validate(fields)

    def object_model(self, record: ObjectRecord) -> ObjectModel:
        """An object as JSON."""
        return ObjectModel(
            id=record.id,
            metadata=record.metadata,
            facts=record.facts,
            notes=list(record.notes),
            content_hash=record.content_hash,
            path=record.path if self.settings.show_paths else None,
        )

    def info(self) -> CollectionModel:
        """The collection and what can be done with it."""
        store, describer, settings = self.session.store, self.session.describer, self.settings
        folder = self.session.folder
        has_text, has_encoder = describer.has_text, describer.config.has_encoder
        text_hint = _TEXT_HINT.format(folder=folder.name) if has_encoder else _NO_ENCODER_HINT
        calibration = calibration_of(store)
        is_calibrated = calibration is not None and not is_outdated(store, calibration)
        return CollectionModel(
            name=folder.resolve().name,
            objects=store.count(),
            failures=len(store.failures()),
            encoder=describer.config.encoder.partition("@")[0],
            has_text=has_text,
            text_hint=None if has_text else text_hint,
            has_encoder=has_encoder,
            has_images=not holds_imported(self.session),
            calibration=calibration.summary if calibration is not None and is_calibrated else None,
            n_views=describer.rig.n_views,
            styles=list(describer.config.styles),
            dim=self.session.dim,
            columns=sorted(self._columns()),
            formats=sorted(FORMATS),
            folders=sorted(settings.folders),
            writable=settings.token is not None,
            version=__version__,
        )
