"""Re-ranking of the best objects by late interaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import QueryError
from mvretrieval.search.encode import EncodedTerm
from mvretrieval.search.late_interaction import compared_styles, has_late_interaction, match_term
from mvretrieval.session.session import Session
from mvretrieval.store.augmented import search_vectors
from mvretrieval.store.batches import view_vectors


@dataclass(frozen=True)
class Ranking:
    """Objects, best first.

    Attributes:
        scores: (n,), falling.
        row_ids: (n,) of the objects.
        matches: (n, T) late interaction with each term, NaN for terms without; None before re-ranking.
    """

    scores: NDArray[np.float64]
    row_ids: NDArray[np.int64]
    matches: NDArray[np.float64] | None = None


def check_rerankable(terms: Sequence[EncodedTerm]) -> None:
    """Refuse a query without views.

    Raises:
        QueryError: with the next step.
    """
    if not any(has_late_interaction(term) for term in terms):
        raise QueryError(
            "late interaction needs a mesh, an image or the id of an object in the query; texts and vectors have no views: search "
            "without re-ranking, or add such a term",
            code="no_views_to_rerank",
        )


def rerank_by_views(
    session: Session,
    terms: Sequence[EncodedTerm],
    weights: NDArray[np.float64],
    ranking: Ranking,
    share: float,
) -> Ranking:
    """Re-rank objects by object vectors and views.

    In the score, the cosine of each positive term with views is replaced by

        (1 - share) * cosine + share * match

    Both are cosines of the same space, so that one term needs no scaling; in a mixture the sum is scaled as the cosine alone
    would be. Text, vectors and negative terms count by their cosine.

    Args:
        session: of the collection.
        terms: of the query.
        weights: (T,) weight of each term's cosine in the score.
        ranking: the objects by their vectors; those that were removed meanwhile are left out.
        share: of the views.
    """
    describer = session.describer
    row_ids, raw, masks = view_vectors(session.store, ranking.row_ids.tolist(), describer.n_styles)
    matches = np.full((len(row_ids), len(terms)), np.nan)
    if len(row_ids) == 0:
        return Ranking(ranking.scores[:0], row_ids, matches)
    scores = ranking.scores[np.isin(ranking.row_ids, row_ids)]
    views = describer.adapted_views(raw)
    vectors = search_vectors(session.store, row_ids.tolist())[1]
    for t, term in enumerate(terms):
        if has_late_interaction(term):
            matches[:, t] = match_term(describer, term, views, masks)
            # An image's vector has only the styles that resemble images, which are part of an object vector's norm.
            norm = (len(compared_styles(describer, term)) / describer.n_styles) ** 0.5
            scores = scores + share * weights[t] * (norm * matches[:, t] - vectors @ term.vector)
    order = np.lexsort((row_ids, -scores))
    return Ranking(scores[order], row_ids[order], matches[order])
