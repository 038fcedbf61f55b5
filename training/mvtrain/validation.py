"""Validation of a tuned encoder on held-out classes: the mAP of its mean view vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from mvretrieval.encoders.network import NetworkEncoder
from mvretrieval.evaluation.metrics import leave_one_out
from mvretrieval.normalize import l2_normalize
from mvtrain.view_dataset import ViewDataset


def mean_view_ap(encoder: NetworkEncoder, views: ViewDataset) -> float:
    """Leave-one-out mAP of the centred mean view vectors, without a view weighting."""
    vectors = view_vectors(encoder, views)
    shown = views.mask[:, None, :, None]
    mean = (vectors * shown).sum(axis=(0, 2)) / shown.sum(axis=(0, 2))
    pooled = ((vectors - mean[None, :, None]) * shown).sum(axis=2)
    flat = (l2_normalize(pooled) / pooled.shape[1] ** 0.5).reshape(len(pooled), -1).astype(np.float32)
    return leave_one_out(flat, list(views.labels)).means()["mAP"]


def view_vectors(encoder: NetworkEncoder, views: ViewDataset) -> NDArray[np.float32]:
    """(N, S, V, D) vectors of all views of all objects."""
    found = []
    for row in range(len(views)):
        images = views.images(row)
        s, v = images.shape[:2]
        flat = images.reshape(-1, *images.shape[2:])
        found.append(encoder.encode_views(flat, np.arange(s * v) // v).reshape(s, v, -1))
    return np.stack(found)


def split_held_out(
    views: ViewDataset, fraction: float, seed: int, seen: Sequence[str] = ()
) -> tuple[ViewDataset | None, ViewDataset]:
    """Split by class into validation and training objects.

    Args:
        views: all objects.
        fraction: of the classes to hold out.
        seed: of the draw.
        seen: classes the encoder was tuned on before; these cannot serve as validation classes.

    Returns:
        Validation objects, None if there are too few eligible classes, and training objects.
    """
    counts = Counter(views.labels)
    # A class with one object has no relevant item to retrieve.
    eligible = [name for name in views.classes if counts[name] > 1 and name not in set(seen)]
    n_classes = ceil(fraction * len(views.classes))
    if not n_classes or len(eligible) < 2 * max(n_classes, 2):
        return None, views
    validation = set(np.random.default_rng(seed).permutation(eligible)[: max(n_classes, 2)])
    return views.of_classes(validation), views.of_classes(set(views.classes) - validation)
