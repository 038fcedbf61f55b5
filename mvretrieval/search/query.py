"""Queries: a mesh, images of one object, text, known objects, or a weighted mixture with negative terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvrender.mesh import UpAxis
from mvretrieval.errors import QueryError, did_you_mean
from mvretrieval.images import Background

Kind = Literal["mesh", "images", "text", "id", "vector"]
# Types of a term's value, and their description.
_VALUES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "mesh": ((str, PathLike), "the path of a mesh"),
    "images": ((list, tuple), "a list of image paths"),
    "text": ((str,), "a text"),
    "id": ((str,), "the id of an object"),
    "vector": ((object,), "an object vector"),
}


@dataclass(frozen=True)
class Term:
    """One term of a query.

    Attributes:
        kind: what `value` is.
        value: path of a mesh, paths of images of one object, text, id of an object, or an object vector.
        weight: in a mixture; negative for "not like this".
    """

    kind: Kind
    value: Any
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in _VALUES:
            near = did_you_mean(str(self.kind), _VALUES)
            raise QueryError(
                f"unknown kind of term '{self.kind}': {near}choose one of {', '.join(_VALUES)}",
                code="unknown_term_kind",
            )
        types, description = _VALUES[self.kind]
        if not isinstance(self.value, types):
            raise QueryError(
                f"the value of a term of kind '{self.kind}' is {description}, not {type(self.value).__name__}",
                code="bad_term_value",
            )

    @property
    def label(self) -> str:
        """Short name for people."""
        if self.kind == "images":
            return ", ".join(Path(path).name for path in self.value)
        return (
            Path(self.value).name if self.kind == "mesh" else str(self.value) if self.kind != "vector" else "a vector"
        )


@dataclass(frozen=True)
class Query:
    """What to search for.

        Query(mesh="chair.glb")
        Query(images=["front.jpg", "side.jpg"], text="wooden")
        Query(terms=[Term("mesh", "a.glb", 1.0), Term("text", "with armrests", -0.5)])

    Attributes:
        mesh: path of a mesh file.
        images: one image, or several of the same object from unknown directions.
        text: what the object is or looks like.
        id: an object of the collection.
        vector: an object vector (D,) of the collection's describer, of any length.
        minus_text: what the object should not look like.
        terms: further terms, with weights.
        up: up axis of mesh files; each format's convention by default.
        background: treatment of image backgrounds (see `images`).
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

    def __post_init__(self) -> None:
        # A generator could be read once only, and a query is read more than once.
        object.__setattr__(self, "terms", tuple(self.terms))
        if self.images is not None and not isinstance(self.images, str | Path):
            object.__setattr__(self, "images", tuple(self.images))

    def all_terms(self) -> list[Term]:
        """Every term with its weight.

        Raises:
            QueryError: there is none, a text is empty, a weight is 0 or not finite, or all weights are negative.
        """
        terms = []
        if self.mesh is not None:
            terms.append(Term("mesh", self.mesh))
        if self.images is not None:
            images = [self.images] if isinstance(self.images, str | Path) else list(self.images)
            if images:
                terms.append(Term("images", images))
        for kind, value in (("text", self.text), ("id", self.id), ("vector", self.vector)):
            if value is not None:
                terms.append(Term(kind, value))  # type: ignore[arg-type]
        if self.minus_text is not None:
            terms.append(Term("text", self.minus_text, -0.5))
        terms += self.terms
        _check_terms(terms)
        return terms


def _check_terms(terms: list[Term]) -> None:
    if not terms:
        raise QueryError("the query is empty: give a mesh, an image, a text or the id of an object", code="empty_query")
    for term in terms:
        if term.kind == "text" and not str(term.value).strip():
            raise QueryError("the text of the query is empty: say what to search for", code="empty_text")
        if not np.isfinite(term.weight) or term.weight == 0:
            raise QueryError(
                f"the weight of {term.label} is {term.weight:g}: it must be a finite number other than 0",
                code="bad_term_weight",
            )
    if all(term.weight < 0 for term in terms):
        raise QueryError(
            "the query has only negative terms: also say what the object should look like", code="only_negative_terms"
        )
