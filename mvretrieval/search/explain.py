"""Why an object was found: the view that matches best, and what each view weighs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mvrender.cameras import parse_rig
from mvretrieval.errors import CollectionError
from mvretrieval.normalize import l2_normalize
from mvretrieval.search.rerank import prepared_views, styles_of
from mvretrieval.store.batches import view_vectors

if TYPE_CHECKING:
    from mvretrieval.api import Collection
    from mvretrieval.describe import Describer
    from mvretrieval.search.query import Source


def place_of(best_view: Mapping[str, Any]) -> str:
    """Where a best view was taken from, for people; its number where nobody knows."""
    return f"{best_view['azimuth_deg']:g}°" if "azimuth_deg" in best_view else f"view {best_view['view'] + 1}"


@dataclass(frozen=True)
class Reasons:
    """Why one object was found: see `answers.Hit`."""

    best_view: dict[str, Any]
    view_weights: NDArray[np.float32]  # (S, V)


def explain(
    collection: Collection, row_ids: Sequence[int], sources: Sequence[Source], matched: bool = False
) -> list[Reasons]:
    """Best views of objects for a question, and their view weights, in the order of `row_ids`, of which there is one at least.

    A view's worth is the weighted sum over the sources of its best similarity with any of the source's views, in the raw
    space of the encoder, or after matching views in the space where they were matched; views of a mesh are compared within
    each style, pictures and words with styles that look like pictures. Of a question that has no views at all, a bare vector,
    each style's part is compared with views as an object of one view would have them.

    Raises:
        CollectionError: an object has no views.
    """
    describer = collection.describer
    found, views, masks = view_vectors(collection.store, row_ids, describer.n_styles)
    if len(found) < len(row_ids):
        (lost, *_) = set(row_ids) - set(found.tolist())
        raise CollectionError(f"object {lost} has no views; index its file again")
    worth, query_views = _worth(describer, views, sources, matched)
    worth = np.where(masks[:, None], worth, -np.inf)
    best = worth.reshape(len(worth), -1).argmax(axis=1)
    weights = describer.view_weights(views, masks)
    places = _places(describer.config.rig, describer.config.styles, views.shape[2])
    return [
        Reasons(_best_view(places[i], float(worth[n].flat[i]), int(query_views[n].flat[i])), weights[n])
        for n, i in enumerate(best.tolist())
    ]


def _worth(
    describer: Describer, views: NDArray[np.float32], sources: Sequence[Source], matched: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What each view (B, S, V) is worth, and the view of the question that it is most like, -1 where that has none."""
    n_styles = describer.n_styles
    bare = all(source.views.size == 0 for source in sources)
    prepared = describer.matched_views(views) if matched or bare else views
    worth = np.zeros(views.shape[:3], np.float32)
    query_views = np.full(views.shape[:3], -1)
    named = False
    for source in sources:
        if bare:
            similarity = _similarity(prepared, l2_normalize(source.vector.reshape(n_styles, 1, -1)))
        elif source.views.size == 0:
            continue
        elif matched and source.term.kind != "text":
            similarity = _similarity(prepared, prepared_views(describer, source))
        else:
            similarity = _similarity(views, np.broadcast_to(source.views, (n_styles, *source.views.shape[1:])))
        worth += np.float32(source.term.weight) * similarity.max(axis=3)
        if others := set(range(n_styles)).difference(styles_of(describer, source)):
            worth[:, list(others)] = -np.inf
        if source.term.weight > 0 and source.views.size > 0 and source.term.kind != "text" and not named:
            query_views, named = similarity.argmax(axis=3), True
            if source.view_numbers is not None:
                query_views = source.view_numbers[query_views]
    return worth, query_views


def _similarity(views: NDArray[np.float32], own: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, S, V, n) of views (B, S, V, D) with views (S, n, D), style by style."""
    similarity: NDArray[np.float32] = views @ own.swapaxes(1, 2)
    return similarity


@lru_cache
def _places(rig_name: str, styles: tuple[str, ...], n_views: int) -> list[dict[str, Any]]:
    """What each view (S * V) is called and where it was taken from."""
    rig = parse_rig(rig_name)
    where: list[dict[str, Any]] = [{} for _ in range(n_views)]
    if rig.is_known:
        pairs = zip(rig.azimuths_deg.tolist(), rig.elevations_deg.tolist(), strict=True)
        where = [{"azimuth_deg": round(a, 1), "elevation_deg": round(e, 1)} for a, e in pairs]
    return [{"view": v, "style": style, **place} for style in styles for v, place in enumerate(where)]


def _best_view(place: dict[str, Any], similarity: float, query_view: int) -> dict[str, Any]:
    best = {**place, "similarity": round(similarity, 6)}
    return best | {"query_view": query_view} if query_view >= 0 else best
