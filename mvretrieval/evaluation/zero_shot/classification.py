"""Classification by class names: nothing was learnt from pictures of the classes, a name is all that is known of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvretrieval.api import Collection
from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.zero_shot.text_queries import Words
from mvretrieval.evaluation.zero_shot.view_fusion import (
    Pooled,
    clearest,
    entropies,
    entropy_weights,
    normalised,
    pooled_scores,
    softmax,
    view_vectors,
    weighted_vectors,
)
from mvretrieval.store.batches import view_vectors as stored_views

WeightKind = Literal["equal", "adapter", "entropy"]
TOP = (1, 3, 5)
_BATCH = 128
_COLDEST = 1e-12  # scores are rounded to 1e-9: any colder, and a softmax does nothing but overflow


@dataclass(frozen=True)
class ViewFusion:
    """How the views of an object are asked.

    Attributes:
        views: where they meet (see `view_scores.Pooled`).
        weights: of the views: equal, the adapter's, or by how little doubt each has; None for those that the collection's
            own vectors are made with.
        keep: only so many views of each object, those with the least doubt; 0 for all.
        temperature: of the softmax over the classes; None for the usual one of whoever reads the names.
    """

    views: Pooled = "before"
    weights: WeightKind | None = None
    keep: int = 0
    temperature: float | None = None

    def __post_init__(self) -> None:
        if self.keep < 0:
            raise EvaluationError(f"a number of views to keep is 0 (all) or more, not {self.keep}")
        if self.temperature is not None and not _COLDEST <= self.temperature < float("inf"):
            raise EvaluationError(
                f"a temperature is a number from {_COLDEST:g}, not {self.temperature:g}; CLIP's is 0.01"
            )

    @property
    def asks_single_views(self) -> bool:
        """Whether a view's own scores have a say."""
        return self.views != "before" or self.weights == "entropy" or self.keep > 0

    def check_fits(self, collection: Collection) -> None:
        """Refuse weights that are not there.

        Raises:
            EvaluationError: an adapter's weights are asked for, and there is no adapter.
        """
        if self.weights == "adapter" and collection.describer.adapter is None:
            raise EvaluationError(
                f"{collection.folder} has no adapter whose weights could be used: train one ('mvr train {collection.folder} --out "
                f"ADAPTER/', 'mvr reindex {collection.folder} --adapter ADAPTER/'), or use --weights equal or entropy"
            )


@dataclass(frozen=True)
class Predictions:
    """What each object was taken for.

    Attributes:
        rank: (N,) place of its own class among the candidates; 0 is right.
        predicted: (N,) the candidate that scored best.
    """

    rank: NDArray[np.int64]
    predicted: NDArray[np.int64]


@dataclass(frozen=True)
class ClassResult:
    """One class.

    Attributes:
        name: of the class.
        objects: how many were asked.
        top: share of them that are right within 1, 3 and 5 candidates.
        mistaken_for: what most of the wrong ones were taken for; None if all are right.
    """

    name: str
    objects: int
    top: dict[int, float]
    mistaken_for: str | None


@dataclass(frozen=True)
class Accuracy:
    """Shares of objects that are called by their own name, within the first 1, 3 and 5 candidates.

    Attributes:
        objects: N.
        top: mean over the objects; NaN of none.
        class_mean: mean over the classes of the mean over their objects.
        classes: each that has an object, by name.
    """

    objects: int
    top: dict[int, float]
    class_mean: dict[int, float]
    classes: tuple[ClassResult, ...]


def object_scores(
    collection: Collection, row_ids: NDArray[np.int64], vectors: NDArray[np.float32], words: Words, looking: ViewFusion
) -> NDArray[np.float64]:
    """Scores (N, C) of names for objects.

    Args:
        collection: open; its views are read where its own vectors are not enough.
        row_ids: (N,) of the objects.
        vectors: (N, D) theirs.
        words: C names.
        looking: how the views are asked.

    Raises:
        EvaluationError: an adapter's weights are asked for, and there is no adapter.
    """
    looking.check_fits(collection)
    if looking.views == "before" and looking.weights in (None, "adapter") and not looking.keep:
        return words.score(vectors)
    parts = [np.zeros((0, len(words.names)))]
    for start in range(0, len(row_ids), _BATCH):
        some = row_ids[start : start + _BATCH].tolist()
        found, raw, mask = stored_views(collection.store, some, collection.describer.n_styles)
        if len(found) < len(some):
            raise EvaluationError("objects were removed while they were evaluated: evaluate again")
        parts.append(_scores_of_views(collection, raw, mask, words, looking))
    return np.concatenate(parts)


def _scores_of_views(
    collection: Collection, raw: NDArray[np.float32], mask: NDArray[np.bool_], words: Words, looking: ViewFusion
) -> NDArray[np.float64]:
    """(b, C) of objects with raw views (b, S, V, D)."""
    describer = collection.describer
    temperature = looking.temperature or words.temperature
    alone = view_vectors(describer, raw)
    said = words.score(alone.reshape(-1, alone.shape[2])).reshape(*mask.shape, -1)
    doubt = entropies(softmax(said, temperature))
    mask = clearest(doubt, mask, looking.keep)
    if looking.weights in (None, "adapter"):
        vectors, by_style = describer.pool(raw, mask)
        if looking.views == "before":
            return words.score(vectors)
        weights = normalised(by_style.mean(axis=1), mask)
    else:
        weights = entropy_weights(doubt, mask) if looking.weights == "entropy" else normalised(mask.astype(float), mask)
        if looking.views == "before":
            every = np.repeat(weights[:, None], describer.n_styles, axis=1)
            return words.score(weighted_vectors(describer, raw, every))
    return pooled_scores(said, weights, looking.views, temperature)


def verdicts(scores: NDArray[np.float64], own: NDArray[np.int64]) -> Predictions:
    """Rank the candidates for each object; equal scores in the candidates' order.

    Args:
        scores: (N, C).
        own: (N,) the right candidate of each object.

    Raises:
        EvaluationError: a score is not a number.
    """
    if np.isnan(scores).any():
        raise EvaluationError("scores of names are not numbers (NaN): a vector is damaged; index its object again")
    mine = scores[np.arange(len(own)), own][:, None]
    earlier = np.arange(scores.shape[1]) < own[:, None]
    rank = ((scores > mine) | ((scores == mine) & earlier)).sum(axis=1)
    best = scores.argmax(axis=1) if scores.shape[1] else np.zeros(0, np.int64)
    return Predictions(rank.astype(np.int64), best.astype(np.int64))


def accuracy(found: Predictions, own: NDArray[np.int64], names: Sequence[str]) -> Accuracy:
    """How often the right name is among the first.

    Args:
        found: of N objects.
        own: (N,) the right candidate of each.
        names: of the candidates.
    """
    classes = tuple(_class_result(found, own == code, names, int(code)) for code in np.unique(own))
    return Accuracy(
        len(own),
        {k: _mean(found.rank < k) for k in TOP},
        {k: _mean(np.array([one.top[k] for one in classes])) for k in TOP},
        tuple(sorted(classes, key=lambda one: one.name)),
    )


def _class_result(found: Predictions, rows: NDArray[np.bool_], names: Sequence[str], code: int) -> ClassResult:
    wrong = Counter(names[i] for i in found.predicted[rows & (found.rank > 0)].tolist())
    worst = min(wrong, key=lambda name: (-wrong[name], name)) if wrong else None
    return ClassResult(names[code], int(rows.sum()), {k: _mean(found.rank[rows] < k) for k in TOP}, worst)


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")
