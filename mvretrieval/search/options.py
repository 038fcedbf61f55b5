"""How a query is answered: one frozen record that the library, the client, the command line and the service share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from mvretrieval.augmentation import ALPHA
from mvretrieval.errors import FilterError, QueryError
from mvretrieval.index.kinds import IndexParameters


@dataclass(frozen=True)
class RerankOptions:
    """What a search does beyond comparing one query vector with every object vector.

    Attributes:
        expand: alpha query expansion with this many nearest objects; 0 for none.
        expand_alpha: power of the cosine that weighs them.
        rerank_views: re-rank this many best hits by late interaction of views (see `search.late_interaction`), or all k if that is
            more; 0 for none.
        rerank_weight: share of late interaction in their score, the rest is the cosine's.
    """

    expand: int = 0
    expand_alpha: float = ALPHA
    rerank_views: int = 0
    rerank_weight: float = 0.5

    def __post_init__(self) -> None:
        for name, value in (("expand", self.expand), ("rerank_views", self.rerank_views)):
            if value < 0:
                raise QueryError(f"{name} is a number of objects of at least 0, not {value}", code="bad_rerank_options")
        if not (math.isfinite(self.expand_alpha) and self.expand_alpha >= 0):
            raise QueryError(
                f"expand_alpha is a finite number of at least 0, not {self.expand_alpha:g}", code="bad_rerank_options"
            )
        if not 0 <= self.rerank_weight <= 1:
            raise QueryError(f"rerank_weight is between 0 and 1, not {self.rerank_weight:g}", code="bad_rerank_options")


@dataclass(frozen=True)
class SearchOptions:
    """How one query is searched for.

        things.search(Query(mesh="chair.glb"), SearchOptions(k=20, where="faces < 5000"))

    Attributes:
        k: number of hits at most.
        where: filter, applied before the search (see `store.filters`).
        rerank: query expansion and late interaction.
        min_confidence: leave out hits with a lower confidence; the collection must be calibrated.
        index: how thoroughly an approximate index is searched.
    """

    k: int = 10
    where: str | None = None
    rerank: RerankOptions = field(default_factory=RerankOptions)
    min_confidence: float | None = None
    index: IndexParameters = field(default_factory=IndexParameters)

    def __post_init__(self) -> None:
        if not isinstance(self.k, int | np.integer) or self.k < 1:
            raise QueryError(f"k is a whole number of at least 1, not {self.k!r}", code="bad_k")
        if self.where is not None and not isinstance(self.where, str):
            raise FilterError(f"a filter is text such as \"label = 'chair'\", not {self.where!r}")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise QueryError(
                f"min_confidence is between 0 and 1, not {self.min_confidence:g}", code="bad_min_confidence"
            )
