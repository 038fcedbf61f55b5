"""Scores as a search with more than one vector gives them: smoothed, expanded, views matched. One query at a time.

The graph of neighbours spans the whole collection, evaluated objects or not, as in a search. It is honest: a query that
is in the collection is in nobody's smoothed vector while it asks, and queries of the open-set protocol, which are not in
the gallery, are in no graph at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvretrieval.api import Collection
from mvretrieval.augmentation import ALPHA, augment_database, expand_queries, scores_without_query
from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.evaluation_set import EvaluationSet
from mvretrieval.evaluation.protocols import Task
from mvretrieval.evaluation.ranking import Scores, cosines, given
from mvretrieval.store.augmented import augmentation_of
from mvretrieval.store.batches import view_vectors

_MOST = 20_000


@dataclass(frozen=True)
class Refining:
    """What is done beyond comparing one vector with each object's.

    Attributes:
        smooth: neighbours that objects are averaged with; None: as the collection is.
        smooth_alpha: power of the cosine that weighs them.
        expand: neighbours that a query is averaged with.
        expand_alpha: power of their cosines.
        match: share of view matching in the score.
    """

    smooth: int | None = None
    smooth_alpha: float = ALPHA
    expand: int = 0
    expand_alpha: float = ALPHA
    match: float = 0.0

    def __post_init__(self) -> None:
        if (self.smooth or 0) < 0 or self.expand < 0:
            raise EvaluationError("numbers of neighbours are 0 or more")
        if self.smooth_alpha < 0 or self.expand_alpha < 0:
            raise EvaluationError("powers of the cosine are 0 or more")
        if not 0 <= self.match <= 1:
            raise EvaluationError(f"the share of view matching is between 0 and 1, not {self.match:g}")


def refined(
    collection: Collection, evaluation_set: EvaluationSet, task: Task, refining: Refining
) -> tuple[Scores, str]:
    """Scores for a task, and in words what they are; plain cosines where nothing is refined.

    Raises:
        EvaluationError: the collection is too large for it.
    """
    smoothing = augmentation_of(collection.store)
    k, alpha = refining.smooth, refining.smooth_alpha
    if k is None:
        k, alpha = (smoothing.k, smoothing.alpha) if smoothing else (0, alpha)
    if not k and not refining.expand and not refining.match:
        return cosines(evaluation_set.vectors), ""
    row_ids = [int(n) for n in collection.store.select(None)]
    if len(row_ids) > _MOST:
        raise EvaluationError(
            f"smoothing, expansion and matching are evaluated on up to {_MOST} objects, not {len(row_ids)}: add --smooth 0, "
            "or evaluate a smaller collection"
        )
    row_of = {row_id: row for row, row_id in enumerate(row_ids)}
    rows = np.array([row_of[int(n)] for n in evaluation_set.row_ids], np.int64)
    vectors = np.stack([collection.store.vector_of(row_id) for row_id in row_ids])
    outside = np.setdiff1d(task.queries, task.gallery)
    scores = np.zeros((len(rows), len(rows)), np.float32)
    if len(outside):
        graph = np.setdiff1d(np.arange(len(row_ids)), rows[outside])
        place = np.searchsorted(graph, rows[task.gallery])
        smoothed = augment_database(vectors[graph], k, alpha)
        asking = expand_queries(vectors[rows[task.queries]], smoothed, refining.expand, refining.expand_alpha)
        scores[np.ix_(task.queries, task.gallery)] = asking @ smoothed[place].T
    else:
        every = scores_without_query(vectors, k, alpha, refining.expand, refining.expand_alpha, rows)
        scores = np.where(np.isfinite(every[:, rows]), every[:, rows], 0).astype(np.float32)
    if refining.match:
        scores = (1 - refining.match) * scores + refining.match * matches(collection, evaluation_set)
    parts = [
        f"smoothed with {k} neighbours, power {alpha:g}" if k else "",
        f"expanded with {refining.expand}, power {refining.expand_alpha:g}" if refining.expand else "",
        f"views matched, share {refining.match:g}" if refining.match else "",
    ]
    # Rounded, so that identical objects tie whatever the order of the sums was.
    return given(scores.round(6)), "; ".join(part for part in parts if part)


def matches(collection: Collection, evaluation_set: EvaluationSet) -> NDArray[np.float32]:
    """(N, N) view matches of the subject's objects with each other (see `search.rerank`)."""
    describer = collection.describer
    row_ids = [int(n) for n in evaluation_set.row_ids]
    parts, masks = [], []
    for start in range(0, len(row_ids), 256):
        found, raw, mask = view_vectors(collection.store, row_ids[start : start + 256], describer.n_styles)
        if len(found) < len(row_ids[start : start + 256]):
            raise EvaluationError("objects were removed while they were evaluated: evaluate again")
        parts.append(describer.adapted_views(raw).astype(np.float16))
        masks.append(mask)
    return match_all(np.concatenate(parts), np.concatenate(masks))


def match_all(views: NDArray[np.floating], mask: NDArray[np.bool_], block: int = 32) -> NDArray[np.float32]:
    """Symmetric mean of best matches between all pairs of objects, mean over the styles.

    Args:
        views: (N, S, V, K), unit norm; half precision is enough.
        mask: (N, V).
        block: objects compared with all at once.

    Returns:
        (N, N).
    """
    n, n_styles, n_views, _ = views.shape
    counts = mask.sum(axis=1)
    total = np.zeros((n, n), np.float32)
    for s in range(n_styles):
        flat = np.where(mask[..., None], views[:, s], 0).astype(np.float32).reshape(n * n_views, -1)
        for start in range(0, n, block):
            some = mask[start : start + block]
            similar = (flat[start * n_views : (start + block) * n_views] @ flat.T).reshape(
                len(some), n_views, n, n_views
            )
            if not (mask.all()):
                similar = np.where(some[:, :, None, None] & mask[None, None], similar, -np.inf)
            there = np.where(some[:, :, None], similar.max(axis=3), 0).sum(axis=1) / counts[start : start + block, None]
            back = np.where(mask[None], similar.max(axis=1), 0).sum(axis=2) / counts
            total[start : start + block] += (there + back) / 2
    return total / np.float32(n_styles)
