"""Accuracy of zero-shot classification: the rank of the true class among the candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import EvaluationError

TOP = (1, 3, 5)


@dataclass(frozen=True)
class Predictions:
    """Predicted classes of N objects.

    Attributes:
        rank: (N,) rank of the true class among the candidates; 0 is correct.
        predicted: (N,) candidate with the highest score.
    """

    rank: NDArray[np.int64]
    predicted: NDArray[np.int64]


@dataclass(frozen=True)
class ClassAccuracy:
    """Accuracy of one class.

    Attributes:
        name: name of the class.
        objects: number of its objects.
        top: k -> top-k accuracy, k of `TOP`.
        top_confusion: most frequent wrong prediction; None if all are correct.
    """

    name: str
    objects: int
    top: dict[int, float]
    top_confusion: str | None


@dataclass(frozen=True)
class Accuracy:
    """Top-k accuracy, k of `TOP`.

    Attributes:
        objects: number of objects N.
        top: k -> mean over the objects; NaN without objects.
        class_mean: k -> mean over the classes of their accuracy.
        classes: each class that has an object, by name.
    """

    objects: int
    top: dict[int, float]
    class_mean: dict[int, float]
    classes: tuple[ClassAccuracy, ...]


def predict(scores: NDArray[np.float64], targets: NDArray[np.int64]) -> Predictions:
    """Rank the candidates of each object; ties in the order of the candidates.

    Args:
        scores: (N, C) scores.
        targets: (N,) true candidate of each object.

    Raises:
        EvaluationError: a score is NaN.
    """
    if np.isnan(scores).any():
        raise EvaluationError(
            "scores of class names are NaN: a stored vector is damaged; index its object again", code="nan_scores"
        )
    true_scores = scores[np.arange(len(targets)), targets][:, None]
    earlier = np.arange(scores.shape[1]) < targets[:, None]
    rank = ((scores > true_scores) | ((scores == true_scores) & earlier)).sum(axis=1)
    best = scores.argmax(axis=1) if scores.shape[1] else np.zeros(0, np.int64)
    return Predictions(rank.astype(np.int64), best.astype(np.int64))


def accuracy(predictions: Predictions, targets: NDArray[np.int64], names: Sequence[str]) -> Accuracy:
    """Compute top-k accuracies.

    Args:
        predictions: predictions of N objects.
        targets: (N,) true candidate of each object.
        names: names of the candidates.
    """
    classes = tuple(_class_accuracy(predictions, targets == one, names, int(one)) for one in np.unique(targets))
    return Accuracy(
        len(targets),
        {k: _mean(predictions.rank < k) for k in TOP},
        {k: _mean(np.array([one.top[k] for one in classes])) for k in TOP},
        tuple(sorted(classes, key=lambda one: one.name)),
    )


def _class_accuracy(
    predictions: Predictions, rows: NDArray[np.bool_], names: Sequence[str], class_id: int
) -> ClassAccuracy:
    wrong = Counter(names[i] for i in predictions.predicted[rows & (predictions.rank > 0)].tolist())
    worst = min(wrong, key=lambda name: (-wrong[name], name)) if wrong else None
    return ClassAccuracy(names[class_id], int(rows.sum()), {k: _mean(predictions.rank[rows] < k) for k in TOP}, worst)


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")
