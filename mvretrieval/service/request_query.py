"""From a search request and its uploaded files to a `Query`, and the query's views for the response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from mvretrieval.errors import QueryError
from mvretrieval.search.encode import EncodedTerm
from mvretrieval.search.query import Query, Term
from mvretrieval.search.thumbnails import data_url
from mvretrieval.service.problems import ProblemError
from mvretrieval.service.schemas import (
    IdTerm,
    ImagesTerm,
    MeshTerm,
    QueryTermModel,
    SearchRequest,
    TermModel,
    TextTerm,
    VectorTerm,
)
from mvretrieval.service.settings import ServiceSettings
from mvretrieval.service.uploads import check_image
from mvretrieval.session.render_pools import THUMBNAIL_SIZE

_MAX_VIEWS = 64


def query_of(request: SearchRequest, files: Mapping[str, Path], settings: ServiceSettings) -> Query:
    """The query of a request.

    Args:
        request: its terms name the files.
        files: path of each uploaded file by its name.
        settings: limits.

    Raises:
        ProblemError: a file is missing or named twice, or there are too many meshes.
        QueryError: an image has an unknown format or too many pixels.
    """
    _check_files(request.terms, files, settings)
    terms = [_term_of(term, files) for term in request.terms]
    return Query(terms=terms, up=request.up, background=request.background)


def needs_encoder(request: SearchRequest) -> bool:
    """Whether the query has to be rendered or encoded."""
    return any(not isinstance(term, IdTerm | VectorTerm) for term in request.terms)


def query_term_model(encoded: EncodedTerm) -> QueryTermModel:
    """A term of the query, with thumbnails of its views."""
    images = [] if encoded.images is None else [Image.fromarray(view) for view in encoded.images[:_MAX_VIEWS]]
    for image in images:
        image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    views = [data_url(image) for image in images]
    term = encoded.term
    return QueryTermModel(label=term.label, kind=term.kind, weight=term.weight, views=views)


def _check_files(terms: Sequence[TermModel], files: Mapping[str, Path], settings: ServiceSettings) -> None:
    """Refuse a query that would take so long that other requests wait."""
    names = [name for term in terms for name in _names_of(term)]
    if len(names) != len(set(names)):
        raise ProblemError("duplicate_file", "the query names a file twice: name each file once")
    n_meshes = sum(isinstance(term, MeshTerm) for term in terms)
    if n_meshes > settings.max_meshes:
        raise ProblemError("too_many_meshes", f"the query has {n_meshes} meshes, at most {settings.max_meshes} allowed")
    images = [_path_of(name, files) for term in terms if isinstance(term, ImagesTerm) for name in term.images]
    if sum(check_image(path, settings) for path in images) > settings.max_image_pixels:
        raise QueryError(
            f"the images have more than {settings.max_image_pixels / 1e6:g} million pixels together: make them smaller",
            code="too_many_pixels",
        )


def _names_of(term: TermModel) -> list[str]:
    return [term.mesh] if isinstance(term, MeshTerm) else term.images if isinstance(term, ImagesTerm) else []


def _path_of(name: str, files: Mapping[str, Path]) -> Path:
    if name not in files:
        uploaded = ", ".join(f"'{other}'" for other in files) or "none"
        raise ProblemError(
            "missing_upload", f"the query names a file '{name}' that was not uploaded (uploaded: {uploaded})"
        )
    return files[name]


def _term_of(term: TermModel, files: Mapping[str, Path]) -> Term:
    match term:
        case MeshTerm():
            return Term("mesh", _path_of(term.mesh, files), term.weight)
        case ImagesTerm():
            return Term("images", [_path_of(name, files) for name in term.images], term.weight)
        case TextTerm():
            return Term("text", term.text, term.weight)
        case IdTerm():
            return Term("id", term.id, term.weight)
        case VectorTerm():
            return Term("vector", term.vector, term.weight)
