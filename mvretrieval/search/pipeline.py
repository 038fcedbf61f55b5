"""Answers: from a question that has been looked at to hits, best first, each with its reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.confidence.estimator import (
    check_threshold,
    confidence_estimator,
    filter_by_confidence,
    no_match_message,
)
from mvretrieval.errors import FilterError, QueryError
from mvretrieval.search.explain import explain
from mvretrieval.search.options import Refinement, expanded
from mvretrieval.search.query import Query, Source, resolve
from mvretrieval.search.rerank import Ranked, check_matchable, rerank
from mvretrieval.store.augmented import search_vectors

if TYPE_CHECKING:
    from mvretrieval.api import Collection

# Means and deviations over more objects than this are taken from an even sample.
_STATISTICS_SAMPLE = 65_536


@dataclass(frozen=True)
class Hit:
    """One answer.

    Attributes:
        rank: from 1.
        id: of the object.
        path: of its file.
        score: cosine with the question; for a mixture the weighted sum of standardised cosines (see `standardise`). Where views
            were matched, their match has a share in it (see `search.rerank`).
        best_view: the gallery view that matches best: `view` (index), `style`, `azimuth_deg`, `elevation_deg`, `similarity`,
            and `query_view` where the question has views of its own.
        view_weights: (S, V) share of each view in the object's vector; rows sum to 1.
        metadata: labels.
        facts: format, faces, vertices, textured, up.
        parts: cosine of each source of a mixture.
        matches: match of the views with each source, if it was asked for; None for a source that is not matched.
        confidence: probability that it is of the question's kind, by its cosine alone; None where the collection is not calibrated
            for such a question (see `confidence`).
    """

    rank: int
    id: str
    path: str
    score: float
    best_view: dict[str, Any]
    view_weights: NDArray[np.float32]
    metadata: dict[str, Any]
    facts: dict[str, Any]
    parts: tuple[float, ...] = ()
    matches: tuple[float | None, ...] = ()
    confidence: float | None = None

    def to_json(self) -> dict[str, Any]:
        """With plain numbers; `matches` only where views were matched, `confidence` only where there is one."""
        plain = {
            "rank": self.rank,
            "id": self.id,
            "path": self.path,
            "score": round(self.score, 6),
            "best_view": self.best_view,
            "view_weights": np.round(self.view_weights.astype(float), 5).tolist(),
            "metadata": self.metadata,
            "facts": self.facts,
            "parts": [round(part, 6) for part in self.parts],
        }
        if self.matches:
            plain["matches"] = [None if match is None else round(match, 6) for match in self.matches]
        if self.confidence is not None:
            plain["confidence"] = round(self.confidence, 4)
        return plain


@dataclass(frozen=True)
class Answer:
    """A question and what it found.

    Attributes:
        sources: what the question looked like.
        hits: best first.
        nothing: what to say where no hit was sure enough, though some were found.
    """

    sources: Sequence[Source]
    hits: list[Hit]
    nothing: str = ""


def standardise(collection: Collection, sources: Sequence[Source]) -> tuple[NDArray[np.float64], float]:
    """Factors (T,) and an offset, so that `offset + sum of factor * cosine` over the sources is an object's score.

    A lone source's score is its cosine. In a mixture each source's cosine is standardised by its mean and deviation over
    the collection, since words and pictures live at different heights and spreads; the weighted sum of those is linear
    in the object's vector again, so that any index can answer it.
    """
    if len(sources) == 1:
        return np.sign([sources[0].term.weight]), 0.0
    sample = collection.sample(_STATISTICS_SAMPLE)
    factors, offset = [], 0.0
    for source in sources:
        cosines = (sample @ source.vector).astype(np.float64)
        mean = float(cosines.mean()) if len(cosines) else 0.0
        deviation = float(cosines.std()) if len(cosines) else 0.0
        if deviation < 1e-5:  # every object is alike to this source: rounding must not decide
            deviation = 1.0
        factors.append(source.term.weight / deviation)
        offset -= source.term.weight * mean / deviation
    return np.array(factors), offset


def search(
    collection: Collection,
    query: Query,
    k: int = 10,
    where: str | None = None,
    refine: Refinement | None = None,
    min_confidence: float | None = None,
) -> list[Hit]:
    """See `Collection.search`."""
    return answer(collection, query, k, where, refine, min_confidence).hits


def answer(
    collection: Collection,
    query: Query,
    k: int = 10,
    where: str | None = None,
    refine: Refinement | None = None,
    min_confidence: float | None = None,
) -> Answer:
    """As `Collection.search`, with what the question looked like."""
    if not isinstance(k, int | np.integer) or k < 1:
        raise QueryError(f"k is a whole number of hits from 1, not {k!r}")
    if where is not None and not isinstance(where, str):
        raise FilterError(f"a filter is text such as \"label = 'chair'\", not {where!r}")
    check_threshold(min_confidence)
    while True:
        epoch = collection.store.get_meta("epoch")
        sources = resolve(collection, query)
        with collection.reading():
            # Otherwise the collection was described anew meanwhile, and the question means nothing to it.
            if collection.store.get_meta("epoch") == epoch:
                return answer_sources(collection, sources, k, where, refine, min_confidence)


def answer_sources(
    collection: Collection,
    sources: Sequence[Source],
    k: int = 10,
    where: str | None = None,
    refine: Refinement | None = None,
    min_confidence: float | None = None,
) -> Answer:
    """The same for a question that has been looked at.

    Raises:
        QueryError: a least confidence is asked for, and hits carry none: why, with the next step.
    """
    if min_confidence is None:
        return Answer(sources, search_sources(collection, sources, k, where, refine))
    judge, reason = confidence_estimator(collection, sources)
    if judge is None:
        raise QueryError(f"no confidence to go by: {reason}")
    found = search_sources(collection, sources, k, where, refine)
    hits = filter_by_confidence(found, min_confidence)
    return Answer(sources, hits, no_match_message(found, where) if found and not hits else "")


def search_sources(
    collection: Collection,
    sources: Sequence[Source],
    k: int = 10,
    where: str | None = None,
    refine: Refinement | None = None,
) -> list[Hit]:
    """Answers to a question that has been looked at; the object of an id is not its own answer."""
    refine = refine or Refinement()
    if refine.match_views:
        check_matchable(sources)
    asked = [source.row_id for source in sources if source.row_id is not None]
    n = max(k, refine.match_views)
    with collection.reading():
        judge, _ = confidence_estimator(collection, sources)
        sources = expanded(collection, sources, refine)
        # The question's height is read off its own search where that goes over all objects.
        reach = judge.reach if judge is not None and judge.curve.share and where is None and refine.expand == 0 else 0
        factors, offset = standardise(collection, sources)
        vector = np.sum([np.float32(f) * source.vector for f, source in zip(factors, sources, strict=True)], axis=0)
        scores, row_ids = collection.search_vector(vector, max(n, reach) + len(asked), where)
        others = np.flatnonzero(~np.isin(row_ids, asked)) if asked else np.arange(len(row_ids))
        height = 0.0
        if judge is not None:
            height = judge.height(scores[others]) if reach else judge.ask_height(collection)
        others = others[:n]
        ranked = Ranked(scores[others].astype(np.float64) + offset, row_ids[others])
        if refine.match_views:
            ranked = rerank(collection, sources, factors, ranked, refine.match_weight)
        hits = _hits(collection, sources, ranked, k)
        if judge is None or not hits:
            return hits
        sure = judge.confidences(collection, ranked.row_ids[:k].tolist(), height)
        return [replace(hit, confidence=confidence) for hit, confidence in zip(hits, sure, strict=True)]


def _hits(collection: Collection, sources: Sequence[Source], ranked: Ranked, k: int) -> list[Hit]:
    """The first k of them, explained."""
    row_ids = ranked.row_ids[:k].tolist()
    records = collection.store.records(row_ids)
    if not row_ids:
        return []
    reasons = explain(collection, row_ids, sources, ranked.matches is not None)
    parts = np.empty((len(row_ids), 0), np.float32)
    if len(sources) > 1:
        vectors = search_vectors(collection.store, row_ids)[1]
        parts = np.stack([vectors @ source.vector for source in sources], axis=1)
    return [
        Hit(
            rank=i + 1,
            id=records[row_id].id,
            path=records[row_id].path,
            score=float(ranked.scores[i]),
            best_view=reasons[i].best_view,
            view_weights=reasons[i].view_weights,
            metadata=records[row_id].metadata,
            facts=records[row_id].facts,
            parts=tuple(parts[i].tolist()),
            matches=() if ranked.matches is None else _known(ranked.matches[i]),
        )
        for i, row_id in enumerate(row_ids)
    ]


def _known(values: NDArray[np.float64]) -> tuple[float | None, ...]:
    return tuple(None if np.isnan(value) else float(value) for value in values)
