"""View with view: how well the views of a question find their like among an object's, and the reverse.

An object vector says what an object looks like on the whole. Matching asks for each view of one whether the other has a
view like it, as light field descriptors do over all turns of their camera rigs (Chen et al. 2003), here over any pairs:

    match(q, o) = mean over styles of ( mean_i max_j  q_i . o_j  +  mean_j max_i  q_i . o_j ) / 2

Views are compared centred and whitened where the collection is, each through the adapter's linear layer where there is
one, and with unit norm. View weights do not count: a view that tells little finds little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvretrieval.describe import IMAGE_STYLES
from mvretrieval.errors import QueryError, ShapeError
from mvretrieval.store.augmented import search_vectors
from mvretrieval.store.batches import view_vectors

if TYPE_CHECKING:
    from mvretrieval.api import Collection
    from mvretrieval.describe import Describer
    from mvretrieval.search.query import Source

_WITH_VIEWS = ("mesh", "id", "images")


@dataclass(frozen=True)
class Ranked:
    """Objects, best first.

    Attributes:
        scores: (n,), falling.
        row_ids: (n,) of the objects.
        matches: (n, T) match with each source, NaN for those that are not matched; None before matching.
    """

    scores: NDArray[np.float64]
    row_ids: NDArray[np.int64]
    matches: NDArray[np.float64] | None = None


def view_match(
    query_views: NDArray[np.float32],
    query_mask: NDArray[np.bool_],
    gallery_views: NDArray[np.float32],
    gallery_masks: NDArray[np.bool_],
    one_way: bool = False,
) -> NDArray[np.float32]:
    """Match of one question with N objects.

    Args:
        query_views: (S, n, D), unit norm.
        query_mask: (n,), False where there is no view.
        gallery_views: (N, S, V, D), unit norm.
        gallery_masks: (N, V).
        one_way: only how well the question's views are found, not the object's: for pictures, which do not show what an
            object looks like from elsewhere.

    Returns:
        (N,) in -1..1. Order of the views and what masked ones hold make no difference.

    Raises:
        ShapeError: shapes disagree, or the question or an object has no view.
    """
    if query_views.shape[:2] != (gallery_views.shape[1], len(query_mask)) or gallery_masks.shape != (
        gallery_views.shape[0],
        gallery_views.shape[2],
    ):
        raise ShapeError(
            f"views are (S, n, D) with a mask (n,), and (N, S, V, D) with masks (N, V), not {query_views.shape}, "
            f"{query_mask.shape}, {gallery_views.shape}, {gallery_masks.shape}"
        )
    if not query_mask.any() or not gallery_masks.any(axis=1).all():
        raise ShapeError("nothing can be matched without a view: every mask needs at least one True")
    n_objects, n_styles, n_views, dim = gallery_views.shape
    n_asked = int(query_mask.sum())
    total = np.zeros(n_objects, np.float32)
    for s in range(n_styles):
        with np.errstate(invalid="ignore"):  # a masked view may hold anything
            similarity = query_views[s, query_mask] @ gallery_views[:, s].reshape(-1, dim).T
        similarity = np.where(gallery_masks, similarity.reshape(n_asked, n_objects, n_views), -np.inf)
        match = similarity.max(axis=2).mean(axis=0)
        if not one_way:
            back = np.where(gallery_masks, similarity.max(axis=0), 0).sum(axis=1) / gallery_masks.sum(axis=1)
            match = (match + back) / 2
        total += match
    return np.asarray(total / n_styles, np.float32)


def check_matchable(sources: Sequence[Source]) -> None:
    """Refuse a question without views to match.

    Raises:
        QueryError: with the next step.
    """
    if not any(_is_matched(source) for source in sources):
        raise QueryError(
            "views can be matched where a mesh, a picture or an object's id says what is looked for; words and bare "
            "vectors have none: ask without matching views, or add one of these"
        )


def rerank(
    collection: Collection,
    sources: Sequence[Source],
    factors: NDArray[np.float64],
    ranked: Ranked,
    weight: float,
) -> Ranked:
    """Rank objects anew, by object vectors and views.

    In the score, the cosine of each plus term that has views is replaced by

        (1 - weight) * cosine + weight * match

    Both are cosines of the same space, so that nothing has to be standardised for one question; in a mixture the sum is
    standardised like the cosine alone would be. Words, bare vectors and minus terms count by their cosine.

    Args:
        collection: of the objects.
        sources: of the question.
        factors: (T,) what a cosine of each source weighs in the score.
        ranked: the objects by their vectors; those that are gone are left out.
        weight: share of the views.
    """
    describer = collection.describer
    row_ids, raw, masks = view_vectors(collection.store, ranked.row_ids.tolist(), describer.n_styles)
    matches = np.full((len(row_ids), len(sources)), np.nan)
    if len(row_ids) == 0:
        return Ranked(ranked.scores[:0], row_ids, matches)
    scores = ranked.scores[np.isin(ranked.row_ids, row_ids)]
    views = describer.matched_views(raw)
    vectors = search_vectors(collection.store, row_ids.tolist())[1]
    for t, source in enumerate(sources):
        if _is_matched(source):
            matches[:, t] = _match(describer, source, views, masks)
            # A picture's vector meets only the styles that look like pictures, and these are part of an object's length.
            share = (len(styles_of(describer, source)) / describer.n_styles) ** 0.5
            scores = scores + weight * factors[t] * (share * matches[:, t] - vectors @ source.vector)
    order = np.lexsort((row_ids, -scores))
    return Ranked(scores[order], row_ids[order], matches[order])


def styles_of(describer: Describer, source: Source) -> list[int]:
    """Styles in which a source is compared: a picture or words only with those that look like pictures, if there are any."""
    every = list(range(describer.n_styles))
    like_pictures = [s for s in every if describer.config.styles[s] in IMAGE_STYLES]
    return like_pictures if like_pictures and source.term.kind in ("images", "text") else every


def prepared_views(describer: Describer, source: Source) -> NDArray[np.float32]:
    """(S, n, K) views of a source as they are matched."""
    own = np.broadcast_to(source.views, (describer.n_styles, *source.views.shape[1:]))
    return np.asarray(describer.matched_views(np.ascontiguousarray(own[None]))[0], np.float32)


def _match(
    describer: Describer, source: Source, views: NDArray[np.float32], masks: NDArray[np.bool_]
) -> NDArray[np.float32]:
    styles = styles_of(describer, source)
    own = prepared_views(describer, source)
    if len(styles) < describer.n_styles:
        own, views = own[styles], views[:, styles]
    return view_match(own, np.ones(own.shape[1], bool), views, masks, one_way=source.term.kind == "images")


def _is_matched(source: Source) -> bool:
    return source.term.weight > 0 and source.term.kind in _WITH_VIEWS
