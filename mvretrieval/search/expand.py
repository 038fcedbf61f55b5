"""Alpha query expansion: each term's vector averaged with those of the objects it finds (see `augmentation`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mvretrieval.augmentation import average_neighbours
from mvretrieval.search.encode import EncodedTerm
from mvretrieval.search.options import RerankOptions
from mvretrieval.session.session import Session
from mvretrieval.store.augmented import search_vectors


def expand_terms(session: Session, terms: Sequence[EncodedTerm], options: RerankOptions) -> list[EncodedTerm]:
    """Expand every positive term by itself.

    Neighbours come from the whole collection: a filter restricts the hits, not what is known about appearance. Objects that are
    query terms themselves are left out, or they would count twice. Negative terms stay as they are: they name what to
    avoid, not everything similar to it.
    """
    if options.expand == 0:
        return list(terms)
    own = {term.row_id for term in terms if term.row_id is not None}
    expanded = []
    for term in terms:
        if term.term.weight > 0:
            _, row_ids = session.search_vector(term.vector, options.expand + len(own))
            nearest = [int(row_id) for row_id in row_ids if row_id not in own][: options.expand]
            if nearest:
                _, vectors = search_vectors(session.store, nearest)
                term = replace(term, vector=average_neighbours(term.vector, vectors, options.expand_alpha))
        expanded.append(term)
    return expanded
