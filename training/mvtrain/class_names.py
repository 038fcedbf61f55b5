"""Class names as text: text vectors for the text loss, and a learned projection from text embeddings to object vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mvretrieval.describe import Describer
from mvretrieval.errors import TrainingError
from mvretrieval.evaluation.zero_shot.templates import DEFAULT, SETS
from mvretrieval.normalize import l2_normalize
from mvretrieval.weighting.text_embeddings import TextEmbeddings, plain_name
from mvretrieval.weighting.whitening import Whitening

# The prompt templates of zero-shot classification, so that training and queries agree.
TEMPLATES = SETS[DEFAULT]
_PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def text_vectors(describer: Describer, classes: Sequence[str], whitening: Whitening | None) -> NDArray[np.float32]:
    """(C, S * D) text vectors of class names: the mean over prompt templates, centred and whitened as views are.

    Raises:
        NoTextError: the encoder has no text tower.
    """
    names = [plain_name(name) for name in classes]
    raw = np.stack([describer.encoder.encode_text([t.format(name) for t in TEMPLATES]).mean(axis=0) for name in names])
    raw = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    return describer.with_whitening(whitening).text_vectors(raw.astype(np.float32))


@dataclass(frozen=True)
class TextProjection:
    """Text embeddings with a projection to object vectors, and its accuracy on held-out names.

    Attributes:
        text_embeddings: with projection, mean and origin.
        n_classes: number of classes that have a known name.
        names: of these classes; several classes may share one.
        top1: zero-shot accuracy on objects of held-out names, among the held-out names.
        top5: the same for the five best names.
        penalty: of the ridge regression; maximizes top1 + top5.
    """

    text_embeddings: TextEmbeddings
    n_classes: int
    names: tuple[str, ...]
    top1: float
    top5: float
    penalty: float


def fit_text_projection(
    text_embeddings: TextEmbeddings, vectors: NDArray[np.float32], labels: Sequence[str], seed: int = 0, splits: int = 3
) -> TextProjection:
    """Fit a ridge regression from the text vector of a class name to the mean object vector of the class.

    A class whose own name is unknown takes the nearest known one (`TextEmbeddings.nearest_name`). Each class has the same
    weight. The penalty is chosen by two-fold cross-validation over names.

    Args:
        text_embeddings: known names and their text vectors.
        vectors: (N, D) object vectors of the seen classes.
        labels: N class names; classes without a known name are left out.
        seed: of the splits.
        splits: number of random two-fold splits of the names.

    Raises:
        TrainingError: fewer than two class names are known.
    """
    known = {label: name for label in sorted(set(labels)) if (name := text_embeddings.nearest_name(label)) is not None}
    names = sorted(set(known.values()))
    if len(names) < 2:
        raise TrainingError(
            f"the text embeddings have {len(names)} of the {len(set(labels))} class names; a projection needs 2 or more",
            code="too_few_names",
        )
    rows = np.array([i for i, label in enumerate(labels) if label in known])
    name_ids = np.array([names.index(known[labels[i]]) for i in rows])
    classes = np.array([labels[i] for i in rows])
    x = vectors[rows].astype(np.float64)
    texts = np.stack([_direction(text_embeddings, name) for name in names])
    halves = [np.random.default_rng([seed, i]).permutation(len(names)) % 2 for i in range(splits)]
    best = (-1.0, -1.0, _PENALTIES[0])
    for penalty in _PENALTIES:
        rank = np.concatenate(
            [_held_out_ranks(x, name_ids, classes, texts, half == side, penalty) for half in halves for side in (0, 1)]
        )
        # Each is a step function of the penalty; the sum has more steps.
        found = (float((rank < 1).mean()), float((rank < 5).mean()), penalty)
        if sum(found[:2]) > sum(best[:2]):
            best = found
    projection, mean, origin = (part.astype(np.float32) for part in _ridge(x, name_ids, classes, texts, best[2]))
    fitted = replace(text_embeddings, projection=projection, mean=mean, origin=origin)
    return TextProjection(fitted, len(known), tuple(names), *best)


def _direction(text_embeddings: TextEmbeddings, name: str) -> NDArray[np.float32]:
    direction = text_embeddings.direction_of(name)
    assert direction is not None
    return direction


def _held_out_ranks(
    x: NDArray[np.float64],
    name_ids: NDArray[np.int64],
    classes: NDArray[np.str_],
    texts: NDArray[np.float32],
    held_out: NDArray[np.bool_],
    penalty: float,
) -> NDArray[np.int64]:
    """For each object with a held-out name (C,): rank of its own name among the held-out names."""
    is_query, names = held_out[name_ids], np.flatnonzero(held_out)
    projection, mean, origin = _ridge(x[~is_query], name_ids[~is_query], classes[~is_query], texts, penalty)
    projected = l2_normalize((texts[names] - origin) @ projection)
    scores = (x[is_query] - mean) @ projected.T
    own = scores[np.arange(len(scores)), np.searchsorted(names, name_ids[is_query])]
    return np.asarray((scores > own[:, None]).sum(axis=1))


def _ridge(
    x: NDArray[np.float64],
    name_ids: NDArray[np.int64],
    classes: NDArray[np.str_],
    texts: NDArray[np.float32],
    penalty: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Projection (E, D), mean (D,) and origin (E,) of the ridge regression from text vectors (C, E) to class means.

    Solved in the dual, because there are fewer classes than dimensions.
    """
    unique, first, class_ids = np.unique(classes, return_index=True, return_inverse=True)
    class_means = np.stack([x[class_ids == i].mean(axis=0) for i in range(len(unique))])
    mean = class_means.mean(axis=0)
    inputs = texts[name_ids[first]].astype(np.float64)
    origin = inputs.mean(axis=0)
    inputs = inputs - origin
    gram = inputs @ inputs.T
    # Relative to the mean squared norm of the inputs, so that a penalty means the same for any number of names. With a
    # single class the projection is zero.
    ridge = penalty * max(np.trace(gram), 1e-12) / len(gram) * np.eye(len(gram))
    return inputs.T @ np.linalg.solve(gram + ridge, class_means - mean), mean, origin
