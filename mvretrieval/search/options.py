"""Searching in more than one step: the question expanded by what it finds, the best answers matched view with view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mvretrieval.augmentation import ALPHA, average_neighbours
from mvretrieval.errors import QueryError
from mvretrieval.store.augmented import search_vectors

if TYPE_CHECKING:
    from mvretrieval.api import Collection
    from mvretrieval.search.query import Source


@dataclass(frozen=True)
class Refinement:
    """What is done beyond comparing one vector with each object's.

        things.search(Query(mesh="chair.glb"), refine=Refinement(expand=5, match_views=100))

    Attributes:
        expand: the question's vector is averaged with those of so many nearest objects, and asked again; 0 for not at all.
        expand_alpha: power of the cosine that weighs these objects.
        match_views: so many best objects are compared view with view and ranked anew (see `search.rerank`); 0 for none. All
            answers are matched, if there are more.
        match_weight: share of the views in their score; the rest is the object vector's.
    """

    expand: int = 0
    expand_alpha: float = ALPHA
    match_views: int = 0
    match_weight: float = 0.5

    def __post_init__(self) -> None:
        for what, row_id in (("expanding", self.expand), ("matching views", self.match_views)):
            if row_id < 0:
                raise QueryError(f"{what} takes a number of objects from 0, not {row_id}")
        if not (math.isfinite(self.expand_alpha) and self.expand_alpha >= 0):
            raise QueryError(f"the power of the similarity is a number from 0, not {self.expand_alpha:g}")
        if not 0 <= self.match_weight <= 1:
            raise QueryError(f"the share of the views in the score is between 0 and 1, not {self.match_weight:g}")


def expanded(collection: Collection, sources: Sequence[Source], refinement: Refinement) -> list[Source]:
    """Sources with their vectors averaged with what each of them finds by itself.

    Its neighbours are looked for in the whole collection: a filter says what may be an answer, not what is known about
    looks. Objects that are asked for by id are no neighbours, or they would count twice. Minus terms stay as they are: they
    name what is to be avoided, not all that is like it. In a smoothed collection the smoothed vectors are averaged.
    """
    if refinement.expand == 0:
        return list(sources)
    asked = {source.row_id for source in sources if source.row_id is not None}
    result = []
    for source in sources:
        if source.term.weight > 0:
            _, row_ids = collection.search_vector(source.vector, refinement.expand + len(asked))
            near = [int(row_id) for row_id in row_ids if row_id not in asked][: refinement.expand]
            if near:
                _, vectors = search_vectors(collection.store, near)
                source = replace(source, vector=average_neighbours(source.vector, vectors, refinement.expand_alpha))
        result.append(source)
    return result
