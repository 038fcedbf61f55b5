"""The collection that a service serves, and what its requests share."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from http import HTTPStatus
from pathlib import Path

from PIL import Image

from mvrender.errors import MvrenderError
from mvrender.formats import FORMATS
from mvretrieval import __version__
from mvretrieval.api import Collection
from mvretrieval.confidence.calibration import calibration_of, is_outdated
from mvretrieval.errors import MvrError
from mvretrieval.search.encode import EncodedTerm
from mvretrieval.search.hits import Hit
from mvretrieval.search.options import RerankOptions, SearchOptions
from mvretrieval.search.pipeline import search
from mvretrieval.search.query import Query, Term
from mvretrieval.search.thumbnails import data_url
from mvretrieval.service.guard import FairLimiter
from mvretrieval.service.jobs import Jobs
from mvretrieval.service.models import (
    CollectionModel,
    HitModel,
    IdTerm,
    ImagesTerm,
    MeshTerm,
    ObjectModel,
    SearchAnswer,
    SearchRequest,
    SourceModel,
    TermModel,
    TextTerm,
    VectorTerm,
)
from mvretrieval.service.problems import ProblemError
from mvretrieval.service.settings import ServiceSettings
from mvretrieval.service.uploads import check_picture
from mvretrieval.session.render_pools import THUMBNAIL_SIZE
from mvretrieval.store.filters import parse_where
from mvretrieval.store.records import ObjectRecord

_MOST_SHOWN = 64
_log = logging.getLogger("mvretrieval.service")
_WORDS_HINT = (
    "this collection's encoder sees and does not read. For words, describe it anew with a CLIP encoder: "
    "mvr reindex {folder} --encoder open_clip:ViT-B-32/laion2b_s34b_b79k"
)


class SearchService:
    """One collection, open for the whole life of a service."""

    def __init__(self, collection: Collection, settings: ServiceSettings) -> None:
        """Serve a collection.

        Args:
            collection: open; for writing, if anybody may write.
            settings: what is allowed.
        """
        self.collection = collection
        self.settings = settings
        workers = collection.pool().n_workers if collection.describer.rig.is_known else 1
        self.limiter = FairLimiter(2 * workers, settings.max_waiting, settings.queue_timeout_s)
        self.writers = FairLimiter(1, settings.max_waiting, settings.queue_timeout_s)
        self.writing = threading.Lock()  # a job holds it for long; others are refused meanwhile
        self.jobs = Jobs(collection, self.writing)
        self.why_not_ready = "the encoder and the index are being opened: try again soon"
        self._opened = threading.Event()

    @property
    def is_ready(self) -> bool:
        """Questions are answered at once."""
        return not self.why_not_ready

    def get_ready(self) -> None:
        """Open the encoder, start the workers and load the index, so that the first question does not wait for them."""
        collection = self.collection
        try:
            if collection.describer.rig.is_known:
                collection.pool().warm_up()
            collection.check_encoder()
            collection.session.index.get()
            self.why_not_ready = ""
        except (MvrError, MvrenderError) as error:
            # Known objects can be shown and asked for all the same; whoever asks with a mesh is told this too.
            shown = "nothing can be looked at: the server's log tells why"
            self.why_not_ready = str(error) if self.settings.show_paths else shown
            _log.error("%s", error)
        except Exception:
            self.why_not_ready = "something went wrong here; the server's log tells what"
            _log.exception("getting ready")
        finally:
            self._opened.set()

    @contextmanager
    def written(self) -> Iterator[None]:
        """Inside, nobody else writes.

        Raises:
            ProblemError: a folder is being indexed, or it took too long.
        """
        if self.jobs.is_busy:
            raise ProblemError(
                HTTPStatus.CONFLICT,
                "indexing",
                "a folder is being indexed: try again when that job is done, or stop it",
                10,
            )
        with self.writers.turn(), self.writing:
            yield

    def check_filter(self, where: str | None) -> None:
        """Refuse a filter that asks where files lie, if nobody may know.

        Raises:
            FilterError: it does, or it cannot be understood.
        """
        if where and not self.settings.show_paths:
            parse_where(where, self._columns())

    def _columns(self) -> dict[str, str]:
        """What a filter may name."""
        store = self.collection.session.store
        known = store.columns()
        if not self.settings.show_paths and "path" not in store.metadata_columns():
            known.pop("path", None)
        return known

    def _check_files(self, terms: Sequence[TermModel], files: Mapping[str, Path]) -> None:
        """Refuse a question that would keep everybody else waiting."""
        named = [name for term in terms for name in _names_of(term)]
        meshes = sum(isinstance(term, MeshTerm) for term in terms)
        if len(named) != len(set(named)) or meshes > self.settings.max_meshes:
            raise ProblemError(
                422, "bad_query", f"a question names each file once, and at most {self.settings.max_meshes} meshes"
            )
        pictures = [_file(name, files) for term in terms if isinstance(term, ImagesTerm) for name in term.images]
        if sum(check_picture(path, self.settings) for path in pictures) > self.settings.max_picture_pixels:
            most = self.settings.max_picture_pixels // 1_000_000
            raise ProblemError(
                413, "too_many_pixels", f"more than {most} million pixels in one question: make them fewer"
            )

    def about(self) -> CollectionModel:
        """What is served."""
        collection, settings = self.collection, self.settings
        describer = collection.describer
        reads_words = describer.reads_words
        calibration = calibration_of(collection.store)
        return CollectionModel(
            name=collection.folder.resolve().name,
            objects=len(collection),
            failures=len(collection.store.failures()),
            encoder=describer.config.encoder.partition("@")[0],
            reads_words=reads_words,
            words_hint=None if reads_words else _WORDS_HINT.format(folder=collection.folder.name),
            calibrated=None
            if calibration is None or is_outdated(collection.store, calibration)
            else calibration.summary,
            n_views=describer.rig.n_views,
            styles=list(describer.config.styles),
            dim=collection.dim,
            columns=sorted(self._columns()),
            formats=sorted(FORMATS),
            folders=sorted(settings.folders),
            writable=settings.token is not None,
            version=__version__,
        )

    def search(self, request: SearchRequest, files: Mapping[str, Path]) -> SearchAnswer:
        """Answer a question.

        Raises:
            ProblemError: a file that is named did not come, or more is asked for than allowed.
            MvrError: see `Collection.search`.
        """
        started = time.perf_counter()
        if request.k > self.settings.max_hits:
            raise ProblemError(422, "bad_query", f"k is {request.k}, and at most {self.settings.max_hits} here")
        self._check_files(request.terms, files)
        self.check_filter(request.where)
        query = Query(
            terms=[self._term(term, files) for term in request.terms], up=request.up, background=request.background
        )
        rerank = RerankOptions(
            expand=request.expand, rerank_views=request.match_views, rerank_weight=request.match_weight
        )
        options = SearchOptions(request.k, request.where, rerank, request.min_confidence)
        looks = any(not isinstance(term, IdTerm | VectorTerm) for term in request.terms)
        with self.limiter.turn() if looks else nullcontext():
            if looks:  # one thread opens the encoder, the others wait for it
                self._opened.wait(self.settings.queue_timeout_s)
            found = search(self.collection.session, query, options)
        return SearchAnswer(
            hits=[self._hit(hit) for hit in found.hits],
            nothing=found.no_match,
            question=[_shown(source) for source in found.terms] if request.show_question else [],
            seconds=round(time.perf_counter() - started, 4),
        )

    def object(self, record: ObjectRecord) -> ObjectModel:
        """An object, for an answer."""
        path = record.path if self.settings.show_paths else None
        return ObjectModel(
            id=record.id, metadata=record.metadata, facts=record.facts, notes=list(record.notes), path=path
        )

    def _hit(self, hit: Hit) -> HitModel:
        plain = hit.to_json()
        if not self.settings.show_paths:
            del plain["path"]
        return HitModel.model_validate(plain)

    def _term(self, term: TermModel, files: Mapping[str, Path]) -> Term:
        match term:
            case MeshTerm():
                return Term("mesh", _file(term.mesh, files), term.weight)
            case ImagesTerm():
                return Term("images", [_file(name, files) for name in term.images], term.weight)
            case TextTerm():
                return Term("text", term.text, term.weight)
            case IdTerm():
                return Term("id", term.id, term.weight)
            case VectorTerm():
                return Term("vector", term.vector, term.weight)


def _names_of(term: TermModel) -> list[str]:
    return [term.mesh] if isinstance(term, MeshTerm) else term.images if isinstance(term, ImagesTerm) else []


def _shown(source: EncodedTerm) -> SourceModel:
    term = source.term
    pictures = [] if source.images is None else [Image.fromarray(picture) for picture in source.images[:_MOST_SHOWN]]
    for picture in pictures:
        picture.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    views = [data_url(picture) for picture in pictures]
    return SourceModel(label=term.label, kind=term.kind, weight=term.weight, views=views)


def _file(name: str, files: Mapping[str, Path]) -> Path:
    if name not in files:
        came = ", ".join(f"'{other}'" for other in files) or "no files"
        raise ProblemError(422, "bad_query", f"the question names a file '{name}', and there came {came}")
    return files[name]
