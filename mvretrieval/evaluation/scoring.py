"""Scores of a task by cosine, database-side augmentation (DBA), query expansion and late interaction of views.

DBA and query expansion use the neighbours among all objects of the collection, evaluated or not, as in a search. No query
contributes to its own gallery: in leave-one-out, the augmented gallery is computed without each query in turn; the queries of
the open-set protocol are in no neighbourhood at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mvretrieval.augmentation import ALPHA, augment_database, expand_queries, scores_without_query
from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.evaluation_set import EvaluationSet
from mvretrieval.evaluation.protocols import Task
from mvretrieval.evaluation.ranking import ScoreFunction, cosines, precomputed
from mvretrieval.search.options import RerankOptions
from mvretrieval.session.session import Session
from mvretrieval.store.augmented import AugmentationConfig, augmentation_of
from mvretrieval.store.batches import view_vectors
from mvretrieval.store.store import Store

MAX_OBJECTS = 20_000  # of a collection: a matrix in single precision is 1.6 GB
_BATCH = 256


@dataclass(frozen=True)
class ScoringOptions:
    """How queries are scored beyond the cosine of object vectors.

    Attributes:
        dba: neighbours of database-side augmentation; 0 for none, None for the collection's own setting.
        dba_alpha: power of the cosine that weights them.
        rerank: query expansion and late interaction. With `rerank_views` > 0, late interaction applies to all objects.
    """

    dba: int | None = None
    dba_alpha: float = ALPHA
    rerank: RerankOptions = field(default_factory=RerankOptions)

    def __post_init__(self) -> None:
        if self.dba is not None and self.dba < 0:
            raise EvaluationError(f"the number of DBA neighbours must be >= 0, got {self.dba}", code="bad_options")
        if self.dba_alpha < 0:
            raise EvaluationError(f"the DBA alpha must be >= 0, got {self.dba_alpha:g}", code="bad_options")

    def augmentation(self, store: Store) -> AugmentationConfig | None:
        """Return the setting to evaluate a collection with."""
        return augmentation_of(store) if self.dba is None else AugmentationConfig.of(self.dba, self.dba_alpha)


def task_scores(
    session: Session, evaluation_set: EvaluationSet, task: Task, options: ScoringOptions
) -> tuple[ScoreFunction, str]:
    """Return the scores of a task and a description of how they were computed; empty for plain cosines.

    Raises:
        EvaluationError: the collection has more than `MAX_OBJECTS` objects, and more than cosines are needed.
    """
    augmentation, rerank = options.augmentation(session.store), options.rerank
    if augmentation is None and not rerank.expand and not rerank.rerank_views:
        return cosines(evaluation_set.vectors), ""
    scores = _augmented_scores(session, evaluation_set, task, augmentation, rerank)
    if rerank.rerank_views:
        weight = rerank.rerank_weight
        scores = (1 - weight) * scores + weight * late_interaction_scores(session, evaluation_set)
    parts = [
        f"DBA with {augmentation.k} neighbours, alpha {augmentation.alpha:g}" if augmentation else "",
        f"query expansion with {rerank.expand} neighbours, alpha {rerank.expand_alpha:g}" if rerank.expand else "",
        f"late interaction, weight {rerank.rerank_weight:g}" if rerank.rerank_views else "",
    ]
    # Rounded, so that objects with equal vectors tie whatever the summation order.
    return precomputed(scores.round(6)), "; ".join(part for part in parts if part)


def _augmented_scores(
    session: Session,
    evaluation_set: EvaluationSet,
    task: Task,
    augmentation: AugmentationConfig | None,
    rerank: RerankOptions,
) -> NDArray[np.float32]:
    """(N, N) cosines after DBA and query expansion."""
    row_ids = [int(n) for n in session.store.select(None)]
    if len(row_ids) > MAX_OBJECTS:
        raise EvaluationError(
            f"DBA, query expansion and late interaction can be evaluated on up to {MAX_OBJECTS} objects, not {len(row_ids)}: "
            "add --dba 0, or evaluate a smaller collection",
            code="too_many_objects",
        )
    row_of = {row_id: row for row, row_id in enumerate(row_ids)}
    rows = np.array([row_of[int(n)] for n in evaluation_set.row_ids], np.int64)
    vectors = np.stack([session.store.vector_of(row_id) for row_id in row_ids])
    k, alpha = (augmentation.k, augmentation.alpha) if augmentation else (0, ALPHA)
    outside = np.setdiff1d(task.queries, task.gallery)
    if not len(outside):
        every = scores_without_query(vectors, k, alpha, rerank.expand, rerank.expand_alpha, rows)
        return np.where(np.isfinite(every[:, rows]), every[:, rows], 0).astype(np.float32)
    neighbourhood = np.setdiff1d(np.arange(len(row_ids)), rows[outside])
    gallery_rows = np.searchsorted(neighbourhood, rows[task.gallery])
    augmented = augment_database(vectors[neighbourhood], k, alpha)
    queries = expand_queries(vectors[rows[task.queries]], augmented, rerank.expand, rerank.expand_alpha)
    scores = np.zeros((len(rows), len(rows)), np.float32)
    scores[np.ix_(task.queries, task.gallery)] = queries @ augmented[gallery_rows].T
    return scores


def late_interaction_scores(session: Session, evaluation_set: EvaluationSet) -> NDArray[np.float32]:
    """(N, N) symmetric late-interaction scores of the evaluated objects with each other."""
    describer = session.describer
    row_ids = [int(n) for n in evaluation_set.row_ids]
    parts, masks = [], []
    for start in range(0, len(row_ids), _BATCH):
        batch = row_ids[start : start + _BATCH]
        found, raw, mask = view_vectors(session.store, batch, describer.n_styles)
        if len(found) < len(batch):
            raise EvaluationError("objects were removed during the evaluation: run it again", code="objects_removed")
        parts.append(describer.adapted_views(raw).astype(np.float16))
        masks.append(mask)
    return symmetric_max_sim(np.concatenate(parts), np.concatenate(masks))


def symmetric_max_sim(views: NDArray[np.floating], mask: NDArray[np.bool_], block: int = 32) -> NDArray[np.float32]:
    """Symmetric MaxSim of all pairs of objects: mean best-view cosine in both directions, averaged over the styles.

    Args:
        views: (N, S, V, K) view vectors, unit norm; half precision is enough.
        mask: (N, V) True where a view was rendered.
        block: objects compared with all others at once.

    Returns:
        (N, N) scores.
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
            if not mask.all():
                similar = np.where(some[:, :, None, None] & mask[None, None], similar, -np.inf)
            forth = np.where(some[:, :, None], similar.max(axis=3), 0).sum(axis=1) / counts[start : start + block, None]
            back = np.where(mask[None], similar.max(axis=1), 0).sum(axis=2) / counts
            total[start : start + block] += (forth + back) / 2
    return total / np.float32(n_styles)
