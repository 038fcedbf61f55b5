"""First stage of a search: every term of the query becomes vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvrender.errors import MeshError
from mvrender.image_formats import small_rgba
from mvrender.jobs import RenderJob
from mvretrieval.embed import embed
from mvretrieval.encoders.imported import NEXT_STEP
from mvretrieval.errors import QueryError
from mvretrieval.images import Decode, load_image
from mvretrieval.search.query import Query, Term
from mvretrieval.session.session import Session


@dataclass(frozen=True)
class EncodedTerm:
    """A term with its vectors.

    Attributes:
        term: see there.
        vector: (D,) object vector, unit norm.
        views: (S or 1, n, D') raw view vectors of the term, to find the best view of a hit; empty for a vector.
        images: the n images that were encoded, (n, H, W, 3), for display.
        row_id: of the object, for an id.
        view_indices: which of that object's views `views` are.
    """

    term: Term
    vector: NDArray[np.float32]
    views: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0, 0), np.float32))
    images: NDArray[np.uint8] | None = None
    row_id: int | None = None
    view_indices: NDArray[np.int64] | None = None


def encode_query(session: Session, query: Query) -> list[EncodedTerm]:
    """Render and encode every term of a query.

    Raises:
        QueryError: a term cannot be read, or the collection holds imported vectors, which have no encoder (`imported_vectors`).
        NoTextError: a text term for an encoder without a text tower.
    """
    if not isinstance(query, Query):
        raise QueryError(
            f"a query is a Query, such as Query(text='a chair') or Query(mesh='chair.glb'), not {type(query).__name__}",
            code="bad_query",
        )
    terms = query.all_terms()
    _check_has_encoder(session, terms)
    if any(term.kind in ("mesh", "images", "text") for term in terms):
        if any(term.kind == "mesh" for term in terms):
            session.render_pool().warm_up(1)  # while the encoder is opened
        session.check_encoder()
    return [_encode_term(session, query, term) for term in terms]


def _check_has_encoder(session: Session, terms: Sequence[Term]) -> None:
    """Refuse what only an encoder can turn into a vector, where there is none; an adapter may embed texts without one."""
    describer = session.describer
    if describer.config.has_encoder:
        return
    has_names = describer.adapter is not None and describer.adapter.text_embeddings is not None
    refused = {"mesh": "a mesh", "images": "an image"} | ({} if has_names else {"text": "a text"})
    for term in terms:
        if term.kind in refused:
            raise QueryError(
                f"{session.folder} holds vectors that were computed elsewhere and has no encoder for {refused[term.kind]}: "
                f"{NEXT_STEP}",
                code="imported_vectors",
            )


def _encode_term(session: Session, query: Query, term: Term) -> EncodedTerm:
    match term.kind:
        case "id":
            return _encode_id(session, term)
        case "vector":
            return EncodedTerm(term, _unit_vector(term.value, session.dim))
        case "text":
            return _encode_text(session, term)
        case "images":
            return _encode_images(session, query, term)
        case "mesh":
            return _encode_mesh(session, query, term)


def _encode_id(session: Session, term: Term) -> EncodedTerm:
    row_id = session.row_id_of(term.value)
    views, mask = session.views(row_id)
    vector = session.store.vector_of(row_id)
    return EncodedTerm(term, vector, views[:, mask], row_id=row_id, view_indices=np.flatnonzero(mask))


def _encode_text(session: Session, term: Term) -> EncodedTerm:
    describer = session.describer
    vector = describer.embed_text(term.value)
    if not describer.encoder.has_text:  # text embeddings of an adapter are comparable with object vectors only
        return EncodedTerm(term, vector)
    return EncodedTerm(term, vector, describer.encoder.encode_text([term.value])[None])


def _encode_images(session: Session, query: Query, term: Term) -> EncodedTerm:
    describer = session.describer
    side = describer.encoder.image_size
    decode: Decode = small_rgba
    if session.options.images_in_workers:
        decode = session.image_pool().decode_image
    try:
        images = np.stack([load_image(Path(path), side, query.background, decode) for path in term.value])
    except MeshError as error:
        code = error.code if error.code in ("timeout", "out_of_memory") else "unknown_image_format"
        raise QueryError(f"an image cannot be read: {error.message}", code=code) from error
    raw = describer.encode_images(images)
    return EncodedTerm(term, describer.image_vector(raw), raw[None], images)


def _encode_mesh(session: Session, query: Query, term: Term) -> EncodedTerm:
    path = Path(term.value).absolute()
    try:
        rendered = session.render_pool().render(RenderJob(path, path.parent, query.up))
    except MeshError as error:
        raise QueryError(
            f"the mesh {term.label} cannot be rendered: {error.message} ({error.code})", code=error.code
        ) from error
    assert rendered.views is not None
    embedded = embed(session.describer, [rendered.views])
    mask = rendered.views.mask
    raw = embedded.raw[0].astype(np.float32)
    return EncodedTerm(term, embedded.vectors[0], raw[:, mask], rendered.views.images[0][mask])


def _unit_vector(value: object, dim: int) -> NDArray[np.float32]:
    """A vector (D,) from the caller, scaled to unit norm."""
    try:
        vector = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise QueryError(f"the query vector cannot be read ({error}): give {dim} numbers", code="bad_vector") from error
    if vector.shape != (dim,):
        raise QueryError(
            f"the query vector has shape {vector.shape}, this collection's object vectors have ({dim},)",
            code="bad_vector_shape",
        )
    length = float(np.linalg.norm(vector))
    if not 0 < length < np.inf:
        raise QueryError("the query vector is zero or has elements that are not finite", code="bad_vector")
    return (vector / length).astype(np.float32)
