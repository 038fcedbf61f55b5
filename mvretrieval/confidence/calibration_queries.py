"""Calibration queries: queries built from a collection's own objects, and their hits.

The curves are fitted on the first ten hits of each query, without the query object itself. Every labeled object may be a query,
also the only one of its class, whose hits are then all of other classes. In a collection with database-side augmentation the query
object contributes to its neighbours' vectors, which an external object does not: for external queries, confidence is slightly too
low there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvretrieval.confidence.curve import cohort_size
from mvretrieval.confidence.fit import CalibrationPairs
from mvretrieval.describe import IMAGE_STYLES, Describer
from mvretrieval.session.session import Session
from mvretrieval.store.batches import original_vectors, view_vectors

HITS = 10
# 20,000 pairs; more do not change the curve.
MAX_QUERIES = 2000
MAX_TEXT_QUERIES = 500
_MAX_IMAGES = 3  # per query
_BATCH = 256


@dataclass(frozen=True)
class CalibrationObjects:
    """Objects that are queries and targets of a calibration.

    Attributes:
        row_ids: (n,) in ascending order.
        class_ids: (n,) class of each.
        is_all: whether these are all objects of the collection.
    """

    row_ids: NDArray[np.int64]
    class_ids: NDArray[np.int64]
    is_all: bool

    def batches(self, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
        """Draw at most `MAX_QUERIES` objects; positions (b,) in ascending order, in batches."""
        drawn = np.sort(rng.permutation(len(self.row_ids))[:MAX_QUERIES])
        for start in range(0, len(drawn), _BATCH):
            yield drawn[start : start + _BATCH]

    def classes_of(self, row_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Classes of some of the objects."""
        return self.class_ids[np.searchsorted(self.row_ids, row_ids)]


@dataclass(frozen=True)
class _QueryHits:
    """Hits of Q queries.

    Attributes:
        class_ids: (Q,) of the queries.
        cosines: (Q, HITS), -inf where there are fewer hits.
        row_ids: (Q, HITS), -1 where there are fewer hits.
        cohort_means: (Q,).
    """

    class_ids: NDArray[np.int64]
    cosines: NDArray[np.float64]
    row_ids: NDArray[np.int64]
    cohort_means: NDArray[np.float64]


def object_queries(session: Session, objects: CalibrationObjects, rng: np.random.Generator) -> CalibrationPairs:
    """Query with the objects' stored vectors."""
    return _to_pairs(
        (
            _search(session, original_vectors(session.store, objects.row_ids[batch].tolist())[1], batch, objects)
            for batch in objects.batches(rng)
        ),
        objects,
    )


def image_queries(session: Session, objects: CalibrationObjects, rng: np.random.Generator) -> CalibrationPairs:
    """Query with one to three views of each object, pooled like query images of unknown direction."""
    describer = session.describer
    style = _image_style(describer)

    def hits() -> Iterator[_QueryHits]:
        for batch in objects.batches(rng):
            _, views, masks = view_vectors(session.store, objects.row_ids[batch].tolist(), describer.n_styles)
            images = np.zeros((len(batch), _MAX_IMAGES, views.shape[3]), np.float32)
            image_mask = np.zeros((len(batch), _MAX_IMAGES), bool)
            for i, mask in enumerate(masks):
                drawn = rng.permutation(np.flatnonzero(mask))[: rng.integers(1, _MAX_IMAGES + 1)]
                images[i, : len(drawn)], image_mask[i, : len(drawn)] = views[i, style, drawn], True
            yield _search(session, describer.pool_images(images, image_mask), batch, objects)

    return _to_pairs(hits(), objects)


def text_queries(
    session: Session, objects: CalibrationObjects, vectors: NDArray[np.float32], class_ids: Sequence[int]
) -> CalibrationPairs:
    """Query with class names.

    Args:
        session: of the collection.
        objects: the targets.
        vectors: (Q, D) of the names.
        class_ids: (Q,) of the names.
    """
    found = _nearest(session, vectors, np.full(len(vectors), -1), objects)
    return _to_pairs([_QueryHits(np.asarray(class_ids, np.int64), *found)], objects)


def split_view_queries(
    session: Session, row_ids: NDArray[np.int64], rng: np.random.Generator, as_images: bool
) -> CalibrationPairs:
    """Query with some views of each object for its other views, among all other objects. Needs no labels.

    Args:
        session: of a collection without database-side augmentation.
        row_ids: (n,) of the objects, in ascending order.
        rng: draws objects and views.
        as_images: query with one to three views like query images; otherwise with half of the views.
    """
    describer = session.describer
    objects = CalibrationObjects(row_ids, np.arange(len(row_ids)), len(row_ids) == len(session))
    parts = []
    for batch in objects.batches(rng):
        own, views, masks = view_vectors(session.store, row_ids[batch].tolist(), describer.n_styles)
        query_mask, target_mask = _split_views(masks, rng, as_images)
        kept = query_mask.any(axis=1)  # an object with one view has no others
        own, batch, views = own[kept], batch[kept], views[kept]
        query_mask, target_mask = query_mask[kept], target_mask[kept]
        if not len(own):
            continue
        if as_images:
            vectors = describer.pool_images(views[:, _image_style(describer)], query_mask)
        else:
            vectors, _ = describer.pool(views, query_mask)
        targets, _ = describer.pool(views, target_mask)
        cosines, found, cohort_means = _nearest(session, vectors, own, objects)
        # Insert the object's other views into the hits.
        cosines = np.concatenate([np.einsum("qd,qd->q", vectors, targets)[:, None], cosines], axis=1)
        found = np.concatenate([own[:, None], found], axis=1)
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :HITS]
        cosines, found = np.take_along_axis(cosines, order, 1), np.take_along_axis(found, order, 1)
        parts.append(_QueryHits(batch, cosines, found, cohort_means))
    return _to_pairs(parts, objects)


def _split_views(
    masks: NDArray[np.bool_], rng: np.random.Generator, as_images: bool
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Split the rendered views (n, V) of each object at random into query and target views (n, V)."""
    query_mask, target_mask = masks.copy(), masks.copy()
    for i, mask in enumerate(masks):
        views = rng.permutation(np.flatnonzero(mask))
        half = len(views) // 2
        count = min(int(rng.integers(1, _MAX_IMAGES + 1)), half) if as_images else half
        query_mask[i, views[count:]], target_mask[i, views[:count]] = False, False
    return query_mask, target_mask


def _image_style(describer: Describer) -> int:
    """Index of the first style that images can be compared with."""
    return next(s for s, name in enumerate(describer.config.styles) if name in IMAGE_STYLES)


def _search(
    session: Session, vectors: NDArray[np.float32], positions: NDArray[np.int64], objects: CalibrationObjects
) -> _QueryHits:
    """Hits of query vectors (q, D) that belong to the objects at `positions` (q,)."""
    found = _nearest(session, vectors, objects.row_ids[positions], objects)
    return _QueryHits(objects.class_ids[positions], *found)


def _nearest(
    session: Session, vectors: NDArray[np.float32], own: NDArray[np.int64], objects: CalibrationObjects
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Nearest objects of query vectors (Q, D), without the query object itself (Q,).

    Returns:
        Cosines (Q, HITS) and row ids (Q, HITS) among `objects`, and cohort means (Q,) in the whole collection.
    """
    index = session.index.get()
    size = cohort_size(len(index))
    cosines, row_ids = np.full((len(vectors), HITS), -np.inf), np.full((len(vectors), HITS), -1)
    cohort_means = np.zeros(len(vectors))
    for start in range(0, len(vectors), _BATCH):
        batch = vectors[start : start + _BATCH]
        cohorts = index.search(batch, max(size, HITS) + 1)
        hits = cohorts if objects.is_all else index.search(batch, HITS + 1, objects.row_ids)
        for q, ((cohort_cosines, cohort_row_ids), (hit_cosines, hit_row_ids)) in enumerate(
            zip(cohorts, hits, strict=True), start
        ):
            cohort_means[q] = cohort_cosines[cohort_row_ids != own[q]][:size].mean()
            others = np.flatnonzero(hit_row_ids != own[q])[:HITS]
            cosines[q, : len(others)], row_ids[q, : len(others)] = hit_cosines[others], hit_row_ids[others]
    return cosines, row_ids, cohort_means


def _to_pairs(batches: Iterable[_QueryHits], objects: CalibrationObjects) -> CalibrationPairs:
    """One pair per hit."""
    parts = [(hits.class_ids, hits.cosines, hits.row_ids, hits.cohort_means) for hits in batches]
    if not parts:
        empty = np.empty(0)
        return CalibrationPairs(empty, empty, empty.astype(bool), empty.astype(np.int64), 0)
    class_ids, cosines, row_ids, cohort_means = (np.concatenate(part) for part in zip(*parts, strict=True))
    q, h = np.nonzero(row_ids >= 0)
    same = objects.classes_of(row_ids[q, h]) == class_ids[q]
    return CalibrationPairs(cosines[q, h], cohort_means[q], same, class_ids[q], len(class_ids))
