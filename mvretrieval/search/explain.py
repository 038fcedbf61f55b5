"""Why an object was found: the view that matches best, and what each view weighs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.search.rerank import prepared_views, styles_of

if TYPE_CHECKING:
    from mvretrieval.collection.collection import Collection
    from mvretrieval.search.query import Source


def place_of(best_view: Mapping[str, Any]) -> str:
    """Where a best view was taken from, for people; its number where nobody knows."""
    return f"{best_view['azimuth_deg']:g}°" if "azimuth_deg" in best_view else f"view {best_view['view'] + 1}"


def explain(
    collection: Collection, number: int, sources: Sequence[Source], matched: bool = False
) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Best view of an object for a question, and its view weights (S, V).

    A view's worth is the weighted sum over the sources of its best similarity with any of the source's views, in the raw
    space of the encoder, or after matching views in the space where they were matched; views of a mesh are compared within
    each style, pictures and words with styles that look like pictures.
    """
    views, mask = collection.views(number)
    describer = collection.describer
    _, weights = describer.pool(views[None], mask[None])
    n_styles, n_views, _ = views.shape
    prepared = describer.matched_views(views[None])[0] if matched else views
    worth = np.zeros((n_styles, n_views), np.float32)
    query_view = np.full((n_styles, n_views), -1)
    for source in sources:
        if source.views.size == 0:
            continue
        if matched and source.term.kind != "text":
            similarity = np.einsum("svd,snd->svn", prepared, prepared_views(describer, source))
        else:
            own = np.broadcast_to(source.views, (n_styles, *source.views.shape[1:]))
            similarity = np.einsum("svd,snd->svn", views, own)
        others = [s for s in range(n_styles) if s not in styles_of(describer, source)]
        worth += np.float32(source.term.weight) * similarity.max(axis=2)
        worth[others] = -np.inf
        if source.term.weight > 0 and source.term.kind != "text" and (query_view < 0).all():
            query_view = similarity.argmax(axis=2)
    worth[:, ~mask] = -np.inf
    s, v = np.unravel_index(int(worth.argmax()), worth.shape)
    best: dict[str, Any] = {"view": int(v), "style": describer.config.styles[s]}
    if describer.rig.is_known:
        direction = describer.rig.directions[v]
        best["azimuth_deg"] = round(float(describer.rig.azimuths_deg[v]), 1)
        best["elevation_deg"] = round(float(np.degrees(np.arcsin(np.clip(direction[1], -1, 1)))), 1)
    best["similarity"] = round(float(worth[s, v]), 6)
    if query_view[s, v] >= 0:
        best["query_view"] = int(query_view[s, v])
    return best, weights[0]
