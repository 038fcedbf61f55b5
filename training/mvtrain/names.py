"""Words for objects: text vectors of class names, and a map from object vectors to a given text space."""

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

# What is said around a class's name when it is asked for is what was said in training.
TEMPLATES = SETS[DEFAULT]
_PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def text_vectors(describer: Describer, classes: Sequence[str], whitening: Whitening | None) -> NDArray[np.float32]:
    """(C, S * K) vectors of class names, as frozen targets: the mean over prompt templates, centred and whitened as views are.

    Raises:
        NoTextError: the encoder reads no words.
    """
    names = [plain_name(name) for name in classes]
    raw = np.stack([describer.encoder.encode_text([t.format(name) for t in TEMPLATES]).mean(axis=0) for name in names])
    raw = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    return describer.with_fitted(whitening).text_vectors(raw.astype(np.float32))


@dataclass(frozen=True)
class NameFit:
    """A text space with its map, and how well it works on names that the map did not see.

    Attributes:
        space: with projection and mean.
        classes: that have a name, of all that were seen.
        taught: the names, some of several classes.
        top1: share of objects of held-out names whose own name scores best among the held-out ones.
        top5: the same among the five best.
        penalty: of the ridge regression, chosen by their sum.
    """

    space: TextEmbeddings
    classes: int
    taught: tuple[str, ...]
    top1: float
    top5: float
    penalty: float


def fit_names(
    space: TextEmbeddings, vectors: NDArray[np.float32], labels: Sequence[str], seed: int = 0, splits: int = 3
) -> NameFit:
    """Learn where names lie among the objects, by ridge regression from a name's vector to the middle of its objects.

    A class whose own name is unknown stands for what it is a kind of (`TextEmbeddings.nearest_name`); each class weighs the
    same. The penalty is chosen on halves of the names, which the map has to meet without having seen them.

    Args:
        space: names and vectors.
        vectors: (N, D) object vectors of seen classes.
        labels: N class names; those that the space cannot call by any name are left out.
        seed: of the splits.
        splits: how often the names are split into halves.

    Raises:
        TrainingError: the space knows fewer than two of the names.
    """
    called = {label: name for label in sorted(set(labels)) if (name := space.nearest_name(label)) is not None}
    taught = sorted(set(called.values()))
    if len(taught) < 2:
        raise TrainingError(
            f"the text space knows {len(taught)} of the {len(set(labels))} class names; 2 or more are needed to learn a map"
        )
    rows = np.array([i for i, label in enumerate(labels) if label in called])
    codes = np.array([taught.index(called[labels[i]]) for i in rows])
    classes = np.array([labels[i] for i in rows])
    x = vectors[rows].astype(np.float64)
    targets = np.stack([_direction(space, name) for name in taught])
    halves = [np.random.default_rng([seed, i]).permutation(len(taught)) % 2 for i in range(splits)]
    best = (-1.0, -1.0, _PENALTIES[0])
    for penalty in _PENALTIES:
        ranks = [
            _ranks_of_held_out(x, codes, classes, targets, half == side, penalty) for half in halves for side in (0, 1)
        ]
        rank = np.concatenate(ranks)
        # Both are steps; their sum is finer, and the middle of many steps is what is looked for.
        found = (float((rank < 1).mean()), float((rank < 5).mean()), penalty)
        if sum(found[:2]) > sum(best[:2]):
            best = found
    projection, mean, origin = (part.astype(np.float32) for part in _ridge(x, codes, classes, targets, best[2]))
    fitted = replace(space, projection=projection, mean=mean, origin=origin)
    return NameFit(fitted, len(called), tuple(taught), *best)


def _direction(space: TextEmbeddings, name: str) -> NDArray[np.float32]:
    direction = space.direction_of(name)
    assert direction is not None
    return direction


def _ranks_of_held_out(
    x: NDArray[np.float64],
    codes: NDArray[np.int64],
    classes: NDArray[np.str_],
    targets: NDArray[np.float32],
    out: NDArray[np.bool_],
    penalty: float,
) -> NDArray[np.int64]:
    """Ranks of the own name of every object whose name is in `out` (C,), among the names in `out`."""
    asked, names = out[codes], np.flatnonzero(out)
    projection, mean, origin = _ridge(x[~asked], codes[~asked], classes[~asked], targets, penalty)
    there = l2_normalize((targets[names] - origin) @ projection)
    scores = (x[asked] - mean) @ there.T
    own = scores[np.arange(len(scores)), np.searchsorted(names, codes[asked])]
    return np.asarray((scores > own[:, None]).sum(axis=1))


def _ridge(
    x: NDArray[np.float64],
    codes: NDArray[np.int64],
    classes: NDArray[np.str_],
    targets: NDArray[np.float32],
    penalty: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Projection (E, D), mean (D,) and origin (E,) of ridge regression from the names' vectors (C, E) to the classes' means.

    There are fewer classes than dimensions: it is solved among the classes.
    """
    kinds, first, of_kind = np.unique(classes, return_index=True, return_inverse=True)
    middles = np.stack([x[of_kind == kind].mean(axis=0) for kind in range(len(kinds))])
    mean = middles.mean(axis=0)
    given = targets[codes[first]].astype(np.float64)
    origin = given.mean(axis=0)
    given = given - origin
    gram = given @ given.T
    # The penalty counts in units of a name's squared length, so that it means the same for any number of names. Where one
    # class is all there is, the map is zero.
    ridge = penalty * max(np.trace(gram), 1e-12) / len(gram) * np.eye(len(gram))
    return given.T @ np.linalg.solve(gram + ridge, middles - mean), mean, origin
