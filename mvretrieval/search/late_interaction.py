"""Late interaction: the views of a query and of an object compared one by one (symmetric MaxSim).

An object vector says what an object looks like on the whole. Late interaction checks for each view of one whether the other has a
similar view, as light field descriptors do over all rotations of their camera rigs (Chen et al. 2003) and ColBERT does with
tokens (Khattab and Zaharia 2020), here over any pairs of views:

    match(q, o) = mean over styles of ( mean_i max_j  q_i . o_j  +  mean_j max_i  q_i . o_j ) / 2

Views are centred and whitened where the collection is, each passes through the adapter's linear layer where there is one, and has
unit norm. View weights are not used: an uninformative view has no good match anyway.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mvretrieval.describe import IMAGE_STYLES, Describer
from mvretrieval.errors import ShapeError
from mvretrieval.search.encode import EncodedTerm


def late_interaction(
    query_views: NDArray[np.float32],
    query_mask: NDArray[np.bool_],
    gallery_views: NDArray[np.float32],
    gallery_masks: NDArray[np.bool_],
    one_way: bool = False,
) -> NDArray[np.float32]:
    """Match of one query with N objects.

    Args:
        query_views: (S, n, D), unit norm.
        query_mask: (n,), False where there is no view.
        gallery_views: (N, S, V, D), unit norm.
        gallery_masks: (N, V).
        one_way: only from the query's views to the object's: for images, which do not show the other sides of an object.

    Returns:
        (N,) in -1..1. The order of the views and the values of masked ones make no difference.

    Raises:
        ShapeError: shapes disagree, or the query or an object has no view.
    """
    n_objects, n_styles, n_views, dim = gallery_views.shape
    if query_views.shape[:2] != (n_styles, len(query_mask)) or gallery_masks.shape != (n_objects, n_views):
        raise ShapeError(
            f"expected views (S, n, D) with a mask (n,), and (N, S, V, D) with masks (N, V), not {query_views.shape}, "
            f"{query_mask.shape}, {gallery_views.shape}, {gallery_masks.shape}"
        )
    if not query_mask.any() or not gallery_masks.any(axis=1).all():
        raise ShapeError("late interaction needs a view on both sides: every mask needs at least one True", "no_views")
    n_query = int(query_mask.sum())
    total = np.zeros(n_objects, np.float32)
    for s in range(n_styles):
        with np.errstate(invalid="ignore"):  # a masked view may hold anything
            similarity = query_views[s, query_mask] @ gallery_views[:, s].reshape(-1, dim).T
        similarity = np.where(gallery_masks, similarity.reshape(n_query, n_objects, n_views), -np.inf)
        match = similarity.max(axis=2).mean(axis=0)
        if not one_way:
            back = np.where(gallery_masks, similarity.max(axis=0), 0).sum(axis=1) / gallery_masks.sum(axis=1)
            match = (match + back) / 2
        total += match
    return np.asarray(total / n_styles, np.float32)


def has_late_interaction(term: EncodedTerm) -> bool:
    """Whether a term takes part: a positive one with views of an object."""
    return term.term.weight > 0 and term.term.kind in ("mesh", "id", "images")


def compared_styles(describer: Describer, term: EncodedTerm) -> list[int]:
    """Styles in which a term is compared: images and text only with styles that resemble images, if there are any."""
    every = list(range(describer.n_styles))
    like_images = [s for s in every if describer.config.styles[s] in IMAGE_STYLES]
    return like_images if like_images and term.term.kind in ("images", "text") else every


def prepared_views(describer: Describer, term: EncodedTerm) -> NDArray[np.float32]:
    """(S, n, K) views of a term, whitened and adapted."""
    own = np.broadcast_to(term.views, (describer.n_styles, *term.views.shape[1:]))
    return np.asarray(describer.adapted_views(np.ascontiguousarray(own[None]))[0], np.float32)


def match_term(
    describer: Describer, term: EncodedTerm, views: NDArray[np.float32], masks: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """(N,) match of a term with the prepared views (N, S, V, K) of objects."""
    styles = compared_styles(describer, term)
    own = prepared_views(describer, term)
    if len(styles) < describer.n_styles:
        own, views = own[styles], views[:, styles]
    return late_interaction(own, np.ones(own.shape[1], bool), views, masks, one_way=term.term.kind == "images")
