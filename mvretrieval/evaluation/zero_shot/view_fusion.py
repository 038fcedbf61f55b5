"""Fusion of views for zero-shot classification: how the views of an object are scored against the class names.

    p_v = softmax(scores of view v / temperature)         over the classes
    H_v = - sum_c p_vc log p_vc                           0: certain; log C: uniform

MV-CLIP (Song et al. 2024, arXiv 2311.18402) keeps the views of lowest H; here they can also be weighted by
w_v = 1 - H_v / log C.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mvretrieval.describe import Describer
from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.zero_shot.entropy import (
    entropy_weights,
    lowest_entropy,
    normalize_weights,
    normalized_entropy,
    softmax,
)
from mvretrieval.evaluation.zero_shot.text_queries import ClassNameClassifier
from mvretrieval.normalize import l2_normalize
from mvretrieval.session.session import Session
from mvretrieval.store.batches import view_vectors
from mvretrieval.weighting.whitening import whiten_and_normalize

FusionStage = Literal["features", "logits", "probabilities"]
"""Where views are fused. `features`: one object vector is compared with the names; `logits`: mean of the views' scores;
`probabilities`: mean of the views' softmax."""
WeightKind = Literal["equal", "adapter", "entropy"]
_BATCH = 128
_MIN_TEMPERATURE = 1e-12  # scores are rounded to 1e-9; the softmax of a lower temperature overflows


@dataclass(frozen=True)
class ViewFusion:
    """How the views of an object are fused.

    Attributes:
        stage: where they are fused, see `FusionStage`.
        weights: view weights: equal, the adapter's, or by low entropy; None for the weighting of the stored object vectors.
        keep_views: number of views to keep per object, those of lowest entropy; 0 for all.
        temperature: temperature of the softmax over the classes; None for the default of the text encoder.
    """

    stage: FusionStage = "features"
    weights: WeightKind | None = None
    keep_views: int = 0
    temperature: float | None = None

    def __post_init__(self) -> None:
        if self.keep_views < 0:
            raise EvaluationError(
                f"the number of views to keep must be >= 0 (0 for all), got {self.keep_views}", code="bad_options"
            )
        if self.temperature is not None and not _MIN_TEMPERATURE <= self.temperature < float("inf"):
            raise EvaluationError(
                f"the temperature must be at least {_MIN_TEMPERATURE:g}, got {self.temperature:g}; CLIP's is 0.01",
                code="bad_options",
            )

    @property
    def scores_single_views(self) -> bool:
        """Whether single views are scored against the names."""
        return self.stage != "features" or self.weights == "entropy" or self.keep_views > 0

    @property
    def uses_stored_vectors(self) -> bool:
        """Whether the stored object vectors are enough."""
        return self.stage == "features" and self.weights in (None, "adapter") and not self.keep_views

    def check_fits(self, session: Session) -> None:
        """Refuse adapter weights without an adapter.

        Raises:
            EvaluationError: the collection has no adapter.
        """
        if self.weights == "adapter" and session.describer.adapter is None:
            folder = session.folder
            raise EvaluationError(
                f"{folder} has no adapter, so it has no adapter weights: train one ('mvr train {folder} --out ADAPTER/', "
                f"'mvr reindex {folder} --adapter ADAPTER/'), or use --weights equal or entropy",
                code="no_adapter",
            )


def class_scores(
    session: Session,
    row_ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    classifier: ClassNameClassifier,
    fusion: ViewFusion,
) -> NDArray[np.float64]:
    """Score objects against class names.

    Args:
        session: open collection; view vectors are read where object vectors are not enough.
        row_ids: (N,) row ids of the objects.
        vectors: (N, D) their vectors.
        classifier: C class names.
        fusion: how views are fused.

    Returns:
        (N, C) scores.

    Raises:
        EvaluationError: adapter weights are requested without an adapter, or objects were removed meanwhile.
    """
    fusion.check_fits(session)
    if fusion.uses_stored_vectors:
        return classifier.score(vectors)
    parts = [np.zeros((0, len(classifier.names)))]
    for start in range(0, len(row_ids), _BATCH):
        batch = row_ids[start : start + _BATCH].tolist()
        found, raw, mask = view_vectors(session.store, batch, session.describer.n_styles)
        if len(found) < len(batch):
            raise EvaluationError("objects were removed during the evaluation: run it again", code="objects_removed")
        parts.append(_fused_scores(session.describer, raw, mask, classifier, fusion))
    return np.concatenate(parts)


def _fused_scores(
    describer: Describer,
    raw: NDArray[np.float32],
    mask: NDArray[np.bool_],
    classifier: ClassNameClassifier,
    fusion: ViewFusion,
) -> NDArray[np.float64]:
    """(b, C) scores of objects with raw views (b, S, V, D)."""
    temperature = fusion.temperature or classifier.temperature
    single = single_view_vectors(describer, raw)
    view_scores = classifier.score(single.reshape(-1, single.shape[2])).reshape(*mask.shape, -1)
    entropy = normalized_entropy(softmax(view_scores, temperature))
    mask = lowest_entropy(entropy, mask, fusion.keep_views)
    if fusion.weights in (None, "adapter"):
        vectors, by_style = describer.pool(raw, mask)
        if fusion.stage == "features":
            return classifier.score(vectors)
        weights = normalize_weights(by_style.mean(axis=1), mask)
    else:
        by_entropy = fusion.weights == "entropy"
        weights = entropy_weights(entropy, mask) if by_entropy else normalize_weights(mask.astype(float), mask)
        if fusion.stage == "features":
            every_style = np.repeat(weights[:, None], describer.n_styles, axis=1)
            return classifier.score(pool_with_weights(describer, raw, every_style))
    return fuse_scores(view_scores, weights, fusion.stage, temperature)


def fuse_scores(
    scores: NDArray[np.float64], weights: NDArray[np.float64], stage: FusionStage, temperature: float
) -> NDArray[np.float64]:
    """Fuse the scores of single views into object scores.

    Args:
        scores: (N, V, C) scores of views.
        weights: (N, V), 0 where masked; the scores of a masked view are ignored, NaN included.
        stage: `logits` or `probabilities`.
        temperature: temperature of the softmax.

    Returns:
        (N, C), probabilities for `probabilities`; rounded, so that the order of the views does not matter.
    """
    seen = np.where((weights > 0)[..., None], scores, 0)
    each = softmax(seen, temperature) if stage == "probabilities" else seen
    return np.asarray(np.einsum("nv,nvc->nc", weights, each).round(9))


def single_view_vectors(describer: Describer, raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Embed each view as an object with one view: raw (B, S, V, D) -> (B, V, S * K)."""
    views = describer.adapted_views(raw)
    b, s, v, k = views.shape
    return np.asarray(views.swapaxes(1, 2).reshape(b, v, s * k) / np.sqrt(s), np.float32)


def pool_with_weights(
    describer: Describer, raw: NDArray[np.float32], weights: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Pool views into object vectors with the given weights instead of the describer's.

    The rest of an adapter is kept: the weighted mean passes through it as a single view, which gets weight 1 from any softmax.
    Max pooling becomes a weighted mean.

    Args:
        describer: describer of the collection.
        raw: (B, S, V, D) raw view vectors.
        weights: (B, S, V), 0 where masked.

    Returns:
        (B, S * K), unit norm.
    """
    adapter, whitening = describer.adapter, describer.whitening
    if adapter is not None:
        views = whiten_and_normalize(raw, whitening)
    elif whitening is not None:
        views = np.stack([whitening.apply(raw[:, s], s) for s in range(raw.shape[1])], axis=1)
    else:
        views = raw
    seen = np.where(weights[..., None] > 0, views, 0)
    means = np.einsum("bsv,bsvk->bsk", weights, seen).astype(np.float32)
    if adapter is not None:
        return adapter.pool_whitened(means[:, :, None], np.ones((len(means), 1), bool), None)[0]
    return np.asarray(l2_normalize(means).reshape(len(means), -1) / np.sqrt(raw.shape[1]), np.float32)
