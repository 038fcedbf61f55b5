"""A search as named stages: encode query -> expand -> retrieve -> rerank -> explain -> calibrate.

Each stage is a function from a session and a state to the next state. All callers use `search`, which starts over if the collection
was re-embedded between encoding the query and reading the index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mvretrieval.confidence.calibration import QUERY_MODALITY
from mvretrieval.confidence.estimator import (
    ConfidenceEstimator,
    confidence_estimator,
    filter_by_confidence,
    no_match_message,
)
from mvretrieval.errors import QueryError
from mvretrieval.search.combine import combined_vector, term_weights
from mvretrieval.search.encode import EncodedTerm, encode_query
from mvretrieval.search.expand import expand_terms
from mvretrieval.search.explain import explain
from mvretrieval.search.hits import Hit, SearchResult
from mvretrieval.search.options import SearchOptions
from mvretrieval.search.query import Query
from mvretrieval.search.rerank import Ranking, check_rerankable, rerank_by_views
from mvretrieval.session.session import Session
from mvretrieval.store.augmented import search_vectors


@dataclass(frozen=True)
class SearchState:
    """What the stages pass on.

    Attributes:
        options: of the search.
        encoded: the encoded query, as it was given.
        terms: the same after query expansion.
        weights: (T,) weight of each term's cosine in the score.
        ranking: objects, best first.
        estimator: of confidence; None where the collection is not calibrated for such a query.
        cohort_mean: mean cosine of the nearest objects, for the estimator.
        hits: best first.
    """

    options: SearchOptions
    encoded: Sequence[EncodedTerm]
    terms: Sequence[EncodedTerm]
    estimator: ConfidenceEstimator | None = None
    weights: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    ranking: Ranking = field(default_factory=lambda: Ranking(np.empty(0), np.empty(0, np.int64)))
    cohort_mean: float = 0.0
    hits: Sequence[Hit] = ()


def search(session: Session, query: Query, options: SearchOptions | None = None) -> SearchResult:
    """Search for a query (see `Collection.search`)."""
    options = options or SearchOptions()
    while True:
        generation = session.store.generation
        terms = encode_query(session, query)
        with session.reading():
            # Otherwise the collection was re-embedded meanwhile, and the encoded query belongs to another vector space.
            if session.store.generation == generation:
                return search_encoded(session, terms, options)


def search_encoded(session: Session, terms: Sequence[EncodedTerm], options: SearchOptions) -> SearchResult:
    """Search for an encoded query; an object whose id is a term is not among the hits.

    Raises:
        QueryError: a minimum confidence is given, and the collection has no confidence for this query; or re-ranking is
            wanted, and the query has no views.
    """
    if options.rerank.rerank_views:
        check_rerankable(terms)
    with session.reading():
        estimator, reason = _estimator(session, terms)
        if options.min_confidence is not None and estimator is None:
            raise QueryError(f"hits have no confidence: {reason}", code="no_confidence")
        state = SearchState(options, terms, terms, estimator)
        for stage in STAGES:
            state = stage(session, state)
    hits = list(state.hits)
    if options.min_confidence is None:
        return SearchResult(terms, hits)
    kept = filter_by_confidence(hits, options.min_confidence)
    return SearchResult(terms, kept, no_match_message(hits, options.where) if hits and not kept else "")


def _estimator(session: Session, terms: Sequence[EncodedTerm]) -> tuple[ConfidenceEstimator | None, str]:
    modality = QUERY_MODALITY[terms[0].term.kind] if len(terms) == 1 else None
    return confidence_estimator(session, modality, terms[0].vector, terms[0].row_id)


def _expand(session: Session, state: SearchState) -> SearchState:
    return replace(state, terms=expand_terms(session, state.terms, state.options.rerank))


def _retrieve(session: Session, state: SearchState) -> SearchState:
    """Rank objects by the combined vector."""
    options, estimator = state.options, state.estimator
    own = [term.row_id for term in state.terms if term.row_id is not None]
    n = max(options.k, options.rerank.rerank_views)
    # The cohort mean is read off this search if it covers all objects and the query was not expanded.
    cohort = 0
    if estimator is not None and estimator.needs_cohort and options.where is None and options.rerank.expand == 0:
        cohort = estimator.cohort_size
    weights, offset = term_weights(session, state.terms)
    vector = combined_vector(state.terms, weights)
    scores, row_ids = session.search_vector(vector, max(n, cohort) + len(own), options.where, options.index)
    others = np.flatnonzero(~np.isin(row_ids, own)) if own else np.arange(len(row_ids))
    cohort_mean = 0.0
    if estimator is not None:
        cohort_mean = estimator.cohort_mean(scores[others]) if cohort else estimator.search_cohort_mean(session)
    others = others[:n]
    ranking = Ranking(scores[others].astype(np.float64) + offset, row_ids[others])
    return replace(state, weights=weights, ranking=ranking, cohort_mean=cohort_mean)


def _rerank(session: Session, state: SearchState) -> SearchState:
    options = state.options.rerank
    if not options.rerank_views:
        return state
    ranking = rerank_by_views(session, state.terms, state.weights, state.ranking, options.rerank_weight)
    return replace(state, ranking=ranking)


def _explain(session: Session, state: SearchState) -> SearchState:
    """The first k objects as hits."""
    ranking, terms = state.ranking, state.terms
    row_ids = ranking.row_ids[: state.options.k].tolist()
    if not row_ids:
        return state
    records = session.store.records(row_ids)
    explanations = explain(session, row_ids, terms, ranking.matches is not None)
    parts = np.empty((len(row_ids), 0), np.float32)
    if len(terms) > 1:
        vectors = search_vectors(session.store, row_ids)[1]
        parts = np.stack([vectors @ term.vector for term in terms], axis=1)
    hits = [
        Hit(
            rank=i + 1,
            id=records[row_id].id,
            path=records[row_id].path,
            score=float(ranking.scores[i]),
            best_view=explanations[i].best_view,
            view_weights=explanations[i].view_weights,
            metadata=records[row_id].metadata,
            facts=records[row_id].facts,
            parts=tuple(parts[i].tolist()),
            matches=() if ranking.matches is None else _without_nan(ranking.matches[i]),
        )
        for i, row_id in enumerate(row_ids)
    ]
    return replace(state, hits=hits)


def _calibrate(session: Session, state: SearchState) -> SearchState:
    """Add confidences."""
    if state.estimator is None or not state.hits:
        return state
    row_ids = state.ranking.row_ids[: len(state.hits)].tolist()
    confidences = state.estimator.confidences(session, row_ids, state.cohort_mean)
    hits = [replace(hit, confidence=confidence) for hit, confidence in zip(state.hits, confidences, strict=True)]
    return replace(state, hits=hits)


STAGES: tuple[Callable[[Session, SearchState], SearchState], ...] = (_expand, _retrieve, _rerank, _explain, _calibrate)
"""After encoding the query, in order."""


def _without_nan(values: NDArray[np.float64]) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(value) else float(value) for value in values)
