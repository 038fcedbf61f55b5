"""Words for objects: text vectors of class names, and a map from object vectors to a given text space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mvretrieval.adapters.text_space import TextSpace, plain_name
from mvretrieval.describe import Describer
from mvretrieval.errors import TrainingError
from mvretrieval.statistics import Statistics

# Of CLIP's ImageNet templates those that fit renders, and what 3D works add to them (PointCLIP, ULIP).
TEMPLATES = (
    "a {}.",
    "a photo of a {}.",
    "a rendering of a {}.",
    "a 3D model of a {}.",
    "a grey 3D model of a {}.",
    "a CAD model of a {}.",
    "a toy {}.",
)
_PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def text_vectors(describer: Describer, classes: Sequence[str], statistics: Statistics | None) -> NDArray[np.float32]:
    """(C, S * K) vectors of class names, as frozen targets: the mean over prompt templates, centred and whitened as views are.

    Raises:
        EncoderError: the encoder reads no words.
    """
    names = [plain_name(name) for name in classes]
    raw = np.stack([describer.encoder.encode_text([t.format(name) for t in TEMPLATES]).mean(axis=0) for name in names])
    raw = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    return describer.with_fitted(statistics).text_vectors(raw.astype(np.float32))


@dataclass(frozen=True)
class NameFit:
    """A text space with its map, and how well it works on classes that the map did not see.

    Attributes:
        space: with projection and mean.
        classes: whose names are known, of all that were seen.
        top1: share of objects of held-out classes whose own name scores best among the seen classes' names.
        top5: the same among the five best.
        penalty: of the ridge regression, chosen by it.
    """

    space: TextSpace
    classes: int
    top1: float
    top5: float
    penalty: float


def fit_names(
    space: TextSpace, vectors: NDArray[np.float32], labels: Sequence[str], seed: int = 0, folds: int = 5
) -> NameFit:
    """Learn a map from object vectors into a text space by ridge regression.

    Each class weighs the same. The penalty is chosen on classes that are held out, whose names the map has to meet
    without having seen them.

    Args:
        space: names and vectors.
        vectors: (N, D) object vectors of seen classes.
        labels: N class names; those that the space does not know are left out.
        seed: of the split.
        folds: parts that the classes are split into.

    Raises:
        TrainingError: the space knows fewer than two of the names.
    """
    known = {label: direction for label in set(labels) if (direction := space.direction_of(label)) is not None}
    if len(known) < 2:
        raise TrainingError(
            f"the text space knows {len(known)} of the {len(set(labels))} class names; 2 or more are needed to learn a map"
        )
    rows = np.array([i for i, label in enumerate(labels) if label in known])
    names = sorted(known)
    codes = np.array([names.index(labels[i]) for i in rows])
    targets = np.stack([known[name] for name in names])
    x = vectors[rows].astype(np.float64)
    parts = np.random.default_rng(seed).permutation(len(names)) % min(folds, len(names))
    best = (-1.0, -1.0, _PENALTIES[0])
    for penalty in _PENALTIES:
        ranks = []
        for part in range(min(folds, len(names))):
            out = parts[codes] == part
            projection, mean = _ridge(x[~out], codes[~out], targets, penalty)
            scores = (x[out] - mean) @ projection.T @ targets.T
            own = scores[np.arange(len(scores)), codes[out]]
            ranks.append((scores > own[:, None]).sum(axis=1))
        rank = np.concatenate(ranks)
        # Both are steps; their sum is finer, and the middle of many steps is what is looked for.
        found = (float((rank < 1).mean()), float((rank < 5).mean()), penalty)
        if sum(found[:2]) > sum(best[:2]):
            best = found
    projection, mean = _ridge(x, codes, targets, best[2])
    fitted = replace(space, projection=projection.astype(np.float32), mean=mean.astype(np.float32))
    return NameFit(fitted, len(names), best[0], best[1], best[2])


def _ridge(
    x: NDArray[np.float64], codes: NDArray[np.int64], targets: NDArray[np.float32], penalty: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Projection (E, D) and mean (D,) of class-balanced ridge regression from (N, D) to the targets (C, E) of the codes."""
    counts = np.bincount(codes, minlength=len(targets))
    weights = 1 / counts[codes]
    weights /= weights.sum()
    mean = weights @ x
    centred = (x - mean) * np.sqrt(weights)[:, None]
    wanted = (targets[codes] - weights @ targets[codes]) * np.sqrt(weights)[:, None]
    covariance = centred.T @ centred
    # The penalty counts in units of the mean variance, so that it means the same for vectors of any length.
    # Where all vectors are one, there is no variance, and the map is zero.
    ridge = penalty * max(np.trace(covariance), 1e-12) / len(covariance) * np.eye(len(covariance))
    return np.linalg.solve(covariance + ridge, centred.T @ wanted).T, mean
