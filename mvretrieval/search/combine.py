"""Several terms as one vector: the weighted sum of z-scored cosines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mvretrieval.search.encode import EncodedTerm
from mvretrieval.session.session import Session

# Means and deviations over more objects than this are taken from an even sample.
_SAMPLE = 65_536
_SMALLEST_DEVIATION = 1e-5


def term_weights(session: Session, terms: Sequence[EncodedTerm]) -> tuple[NDArray[np.float64], float]:
    """Weights (T,) and an offset, so that `offset + sum of weight * cosine` over the terms is the score of an object.

    With one term the score is its cosine. With several, each term's cosine is z-scored by its mean and standard deviation over
    the collection, since cosines of text and of images have different means and spreads. The weighted sum is again linear in the
    object's vector, so that any index can compute it.
    """
    if len(terms) == 1:
        return np.sign([terms[0].term.weight]), 0.0
    sample = session.index.sample(_SAMPLE)
    weights, offset = [], 0.0
    for term in terms:
        cosines = (sample @ term.vector).astype(np.float64)
        mean = float(cosines.mean()) if len(cosines) else 0.0
        deviation = float(cosines.std()) if len(cosines) else 0.0
        if deviation < _SMALLEST_DEVIATION:  # all objects are equally similar to this term: rounding must not decide
            deviation = 1.0
        weights.append(term.term.weight / deviation)
        offset -= term.term.weight * mean / deviation
    return np.array(weights), offset


def combined_vector(terms: Sequence[EncodedTerm], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """(D,) sum of the terms' vectors with their weights."""
    return np.asarray(
        np.sum([np.float32(w) * term.vector for w, term in zip(weights, terms, strict=True)], axis=0), np.float32
    )
