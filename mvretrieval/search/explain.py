"""Why an object was found: the view that matches best, and the weight of each view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvrender.cameras import Rig, parse_rig
from mvretrieval.describe import Describer
from mvretrieval.errors import CollectionError
from mvretrieval.normalize import l2_normalize
from mvretrieval.search.encode import EncodedTerm
from mvretrieval.search.late_interaction import compared_styles, prepared_views
from mvretrieval.session.session import Session
from mvretrieval.store.batches import view_vectors

_ROUNDING = 1e-6  # of a sum of products of float32 unit vectors


def view_label(best_view: Mapping[str, Any], rig: Rig) -> str:
    """Direction of a view for people, or its number where the directions are unknown.

    Args:
        best_view: of a hit.
        rig: of the collection; the elevation is named if its cameras have several.
    """
    if "azimuth_deg" not in best_view:
        return f"view {best_view['view'] + 1}"
    azimuth = f"{best_view['azimuth_deg']:g}°"
    if np.ptp(rig.elevations_deg) < 1:
        return azimuth
    elevation = best_view["elevation_deg"]
    return f"{azimuth}, {abs(elevation):g}° {'up' if elevation >= 0 else 'down'}"


@dataclass(frozen=True)
class Explanation:
    """Why one object was found: see `hits.Hit`."""

    best_view: dict[str, Any]
    view_weights: NDArray[np.float32]  # (S, V)


def explain(
    session: Session, row_ids: Sequence[int], terms: Sequence[EncodedTerm], reranked: bool = False
) -> list[Explanation]:
    """Best views and view weights of at least one object, in the order of `row_ids`.

    The score of a view is the weighted sum over the terms of its best similarity with any of the term's views: in the raw space of
    the encoder, or after re-ranking in the space of late interaction. Views of a mesh are compared within each style, images
    and text with styles that resemble images. A query without views (a vector) is compared with views as if each were an object.

    Raises:
        CollectionError: an object has no views.
    """
    describer = session.describer
    found, views, masks = view_vectors(session.store, row_ids, describer.n_styles)
    if len(found) < len(row_ids):
        (without, *_) = set(row_ids) - set(found.tolist())
        raise CollectionError(f"object {without} has no stored views: index its file again", code="no_stored_views")
    scores, query_views = _score_views(describer, views, terms, reranked)
    scores = np.where(masks[:, None], scores, -np.inf)
    best = _first_best(scores.reshape(len(scores), -1))
    weights = describer.view_weights(views, masks)
    names = _view_names(describer.config.rig, describer.config.styles, views.shape[2])
    return [
        Explanation(_best_view(names[i], float(scores[n].flat[i]), int(query_views[n].flat[i])), weights[n])
        for n, i in enumerate(best.tolist())
    ]


def _score_views(
    describer: Describer, views: NDArray[np.float32], terms: Sequence[EncodedTerm], reranked: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Score of each view (B, S, V), and the query view that it is most similar to, -1 where the query has none."""
    n_styles = describer.n_styles
    without_views = all(term.views.size == 0 for term in terms)
    prepared = describer.adapted_views(views) if reranked or without_views else views
    scores = np.zeros(views.shape[:3], np.float32)
    query_views = np.full(views.shape[:3], -1)
    named = False
    for term in terms:
        if without_views:
            similarity = _similarity(prepared, l2_normalize(term.vector.reshape(n_styles, 1, -1)))
        elif term.views.size == 0:
            continue
        elif reranked and term.term.kind != "text":
            similarity = _similarity(prepared, prepared_views(describer, term))
        else:
            similarity = _similarity(views, np.broadcast_to(term.views, (n_styles, *term.views.shape[1:])))
        scores += np.float32(term.term.weight) * similarity.max(axis=3)
        if others := set(range(n_styles)).difference(compared_styles(describer, term)):
            scores[:, list(others)] = -np.inf
        if term.term.weight > 0 and term.views.size > 0 and term.term.kind != "text" and not named:
            query_views, named = _first_best(similarity), True
            if term.view_indices is not None:
                query_views = term.view_indices[query_views]
    return scores, query_views


def _first_best(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Index of the largest score along the last axis, the first of equal ones.

    The views of a symmetric object are equal, and their scores differ by rounding, which depends on the processor.
    """
    first: NDArray[np.int64] = (scores >= scores.max(axis=-1, keepdims=True) - _ROUNDING).argmax(axis=-1)
    return first


def _similarity(views: NDArray[np.float32], own: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, S, V, n) of views (B, S, V, D) with views (S, n, D), style by style."""
    similarity: NDArray[np.float32] = views @ own.swapaxes(1, 2)
    return similarity


@lru_cache
def _view_names(rig_name: str, styles: tuple[str, ...], n_views: int) -> list[dict[str, Any]]:
    """Index, style and direction of each view (S * V)."""
    rig = parse_rig(rig_name)
    directions: list[dict[str, Any]] = [{} for _ in range(n_views)]
    if rig.is_known:
        pairs = zip(rig.azimuths_deg.tolist(), rig.elevations_deg.tolist(), strict=True)
        directions = [{"azimuth_deg": round(a, 1), "elevation_deg": round(e, 1)} for a, e in pairs]
    return [{"view": v, "style": style, **one} for style in styles for v, one in enumerate(directions)]


def _best_view(name: dict[str, Any], similarity: float, query_view: int) -> dict[str, Any]:
    best = {**name, "similarity": round(similarity, 6)}
    return best | {"query_view": query_view} if query_view >= 0 else best
