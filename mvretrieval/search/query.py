"""Questions: a mesh, pictures of one object, words, known objects, or a weighted mixture with minus terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvrender.errors import MeshError
from mvrender.mesh import UpAxis
from mvrender.pool import Job
from mvretrieval.errors import QueryError, did_you_mean
from mvretrieval.images import Background, load_image

if TYPE_CHECKING:
    from mvretrieval.api import Collection

Kind = Literal["mesh", "images", "text", "id", "vector"]
# What a source's value may be, and that in words.
_VALUES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "mesh": ((str, PathLike), "the path of a mesh"),
    "images": ((list, tuple), "a list of paths of pictures"),
    "text": ((str,), "words"),
    "id": ((str,), "the id of an object"),
    "vector": ((object,), "an object vector"),
}


@dataclass(frozen=True)
class Term:
    """One source of a question.

    Attributes:
        kind: what `value` is.
        value: path of a mesh, paths of pictures of one object, words, an object's id, or an object vector.
        weight: share in a mixture; negative for "not like this".
    """

    kind: Kind
    value: Any
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what no question can be asked with."""
        if self.kind not in _VALUES:
            near = did_you_mean(str(self.kind), _VALUES)
            raise QueryError(f"no kind of source is called '{self.kind}': {near}there are {', '.join(_VALUES)}")
        needs_views, said = _VALUES[self.kind]
        if not isinstance(self.value, needs_views):
            raise QueryError(f"a source of kind '{self.kind}' is {said}, not {type(self.value).__name__}")

    @property
    def label(self) -> str:
        """For people."""
        if self.kind == "images":
            return ", ".join(Path(path).name for path in self.value)
        return (
            Path(self.value).name if self.kind == "mesh" else str(self.value) if self.kind != "vector" else "a vector"
        )


@dataclass(frozen=True)
class Query:
    """A question.

        Query(mesh="chair.glb")
        Query(images=["front.jpg", "side.jpg"], text="wooden")
        Query(terms=[Term("mesh", "a.glb", 1.0), Term("text", "with armrests", -0.5)])

    Attributes:
        mesh: path of a mesh file.
        images: one picture or several of the same object, from unknown directions.
        text: words.
        id: an object of the collection.
        vector: an object vector (D,) from elsewhere, as the collection's describer makes them; its length does not matter.
        minus_text: words for what it should not be like.
        terms: any further sources, with weights.
        up: axis that is up in mesh files; each format's convention by default.
        background: what is done to the background of pictures (see `images`).
    """

    mesh: str | Path | None = None
    images: str | Path | Iterable[str | Path] | None = None
    text: str | None = None
    id: str | None = None
    vector: NDArray[np.float32] | None = None
    minus_text: str | None = None
    terms: Iterable[Term] = ()
    up: UpAxis | None = None
    background: Background = "auto"

    def all_terms(self) -> list[Term]:
        """Every source with its weight.

        Raises:
            QueryError: there is none.
        """
        terms = []
        if self.mesh is not None:
            terms.append(Term("mesh", self.mesh))
        if self.images is not None:
            pictures = [self.images] if isinstance(self.images, str | Path) else list(self.images)
            if pictures:
                terms.append(Term("images", pictures))
        if self.text is not None:
            terms.append(Term("text", self.text))
        if self.id is not None:
            terms.append(Term("id", self.id))
        if self.vector is not None:
            terms.append(Term("vector", self.vector))
        if self.minus_text is not None:
            terms.append(Term("text", self.minus_text, -0.5))
        terms += self.terms
        if not terms:
            raise QueryError("an empty question: give a mesh, a picture, words or an object's id")
        for term in terms:
            if term.kind == "text" and not str(term.value).strip():
                raise QueryError("the words are empty: say what to look for")
            if not np.isfinite(term.weight) or term.weight == 0:
                raise QueryError(f"the weight of {term.label} is {term.weight:g}: it has to be a number other than 0")
        if all(term.weight < 0 for term in terms):
            raise QueryError("only minus terms: also say what the object should be like")
        return terms


@dataclass(frozen=True)
class Source:
    """A term that has been looked at.

    Attributes:
        term: see there.
        vector: (D,) object vector.
        views: (S or 1, n, D') raw view vectors of the question, to find the view that matches; empty for a bare vector.
        pictures: what was looked at, (n, H, W, 3), for the page.
        row_id: of the object, for an id.
        view_numbers: which of that object's views `views` are.
    """

    term: Term
    vector: NDArray[np.float32]
    views: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0, 0), np.float32))
    pictures: NDArray[np.uint8] | None = None
    row_id: int | None = None
    view_numbers: NDArray[np.int64] | None = None


def resolve(collection: Collection, query: Query) -> list[Source]:
    """Look at every source of a question.

    Raises:
        QueryError: a part of it cannot be read.
        EncoderError: words for an encoder that reads none.
    """
    terms = query.all_terms()
    if any(term.kind in ("mesh", "images", "text") for term in terms):
        if any(term.kind == "mesh" for term in terms):
            collection.pool().warm_up(1)  # while the encoder is opened
        collection.check_encoder()
    return [_source(collection, query, term) for term in terms]


def _unit(value: object, dim: int) -> NDArray[np.float32]:
    """A vector from elsewhere (D,), brought to unit length."""
    try:
        vector = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise QueryError(
            f"the vector is none ({error}): give {dim} numbers, as this collection's describer makes them"
        ) from error
    if vector.shape != (dim,):
        raise QueryError(f"the vector has shape {vector.shape}, this collection's have ({dim},)")
    length = float(np.linalg.norm(vector))
    if not 0 < length < np.inf:
        raise QueryError("the vector has no direction: it is zero, or holds numbers that are not finite")
    return (vector / length).astype(np.float32)


def _source(collection: Collection, query: Query, term: Term) -> Source:
    if term.kind == "id":
        row_id = collection.row_id_of(term.value)
        views, mask = collection.views(row_id)
        vector = collection.store.vector_of(row_id)
        return Source(term, vector, views[:, mask], row_id=row_id, view_numbers=np.flatnonzero(mask))
    if term.kind == "vector":
        return Source(term, _unit(term.value, collection.dim))
    describer = collection.describer
    if term.kind == "text":
        vector = describer.embed_text(term.value)
        if not describer.encoder.has_text:  # an adapter's own words: no view can be compared with them
            return Source(term, vector)
        return Source(term, vector, describer.encoder.encode_text([term.value])[None])
    if term.kind == "images":
        size = describer.encoder.image_size
        pictures = np.stack([load_image(Path(path), size, query.background) for path in term.value])
        return Source(term, describer.embed_images(pictures), describer.encoder.encode_views(pictures)[None], pictures)
    path = Path(term.value).absolute()
    try:
        rendered = collection.pool().render(Job(path, path.parent, query.up))
    except MeshError as error:
        raise QueryError(f"cannot ask with {term.label}: {error.message} ({error.code})") from error
    assert rendered.views is not None
    raw = describer.encode(rendered.views.images).astype(np.float16).astype(np.float32)
    vector, _ = describer.pool(raw[None], rendered.views.mask[None])
    return Source(term, vector[0], raw[:, rendered.views.mask], rendered.views.images[0][rendered.views.mask])
