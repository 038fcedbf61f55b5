"""What a search returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.confidence.curve import CONFIDENCE_DIGITS
from mvretrieval.search.encode import EncodedTerm


@dataclass(frozen=True)
class Hit:
    """One object that was found.

    Attributes:
        rank: from 1.
        id: of the object.
        path: of its file; `vector:` and the id for an imported vector, which has none.
        score: cosine with the query; with several terms the weighted sum of z-scored cosines (see `search.combine`). After late
            interaction, a weighted mean with it (see `search.rerank`).
        best_view: the view of the object that is most similar to the query: `view` (index), `style`, `azimuth_deg`,
            `elevation_deg`, `similarity`, and `query_view` where the query has views.
        view_weights: (S, V) weight of each view in the object's vector; rows sum to 1.
        metadata: labels.
        facts: format, faces, vertices, textured, up.
        parts: cosine with each term, where there are several.
        matches: late interaction with each term where hits were re-ranked; None for a term that is compared by its vector only.
        confidence: probability that the object belongs to the query's class, from its cosine alone; None without a calibration for
            such a query (see `confidence`).
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
        """With plain numbers; `matches` only after re-ranking, `confidence` only with a calibration."""
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
            plain["confidence"] = round(self.confidence, CONFIDENCE_DIGITS)
        return plain


@dataclass(frozen=True)
class SearchResult:
    """A query and its hits.

    Attributes:
        terms: the encoded query.
        hits: best first.
        no_match: message where hits were found but none reached the minimum confidence; empty otherwise.
    """

    terms: Sequence[EncodedTerm]
    hits: list[Hit]
    no_match: str = ""
