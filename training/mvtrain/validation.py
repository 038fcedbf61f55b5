"""What an encoder is worth by itself, measured on classes that it is not tuned on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil

import numpy as np
from numpy.typing import NDArray

from mvretrieval.encoders.network import NetworkEncoder
from mvretrieval.evaluation.metrics import leave_one_out
from mvretrieval.normalize import l2_normalize
from mvtrain.images import Pictures


def mean_view_ap(encoder: NetworkEncoder, pictures: Pictures) -> float:
    """mAP, leave one out, of the mean of each object's view vectors, centred: what an encoder is worth by itself."""
    vectors = view_vectors(encoder, pictures)
    shown = pictures.mask[:, None, :, None]
    middle = (vectors * shown).sum(axis=(0, 2)) / shown.sum(axis=(0, 2))
    pooled = ((vectors - middle[None, :, None]) * shown).sum(axis=2)
    flat = (l2_normalize(pooled) / pooled.shape[1] ** 0.5).reshape(len(pooled), -1).astype(np.float32)
    return leave_one_out(flat, list(pictures.labels)).means()["mAP"]


def view_vectors(encoder: NetworkEncoder, pictures: Pictures) -> NDArray[np.float32]:
    """(N, S, V, K) of all views of all objects."""
    found = []
    for row in range(len(pictures)):
        images = pictures.of(row)
        s, v = images.shape[:2]
        flat = images.reshape(-1, *images.shape[2:])
        found.append(encoder.encode_views(flat, np.arange(s * v) // v).reshape(s, v, -1))
    return np.stack(found)


def held_out(
    pictures: Pictures, share: float, seed: int, known: Sequence[str] = ()
) -> tuple[Pictures | None, Pictures]:
    """Objects of held-out classes, None where there are too few, and those of the classes that are trained on.

    What the encoder was tuned on before (`known`) cannot be held out any more.
    """
    counts = Counter(pictures.labels)
    # A class of one object has nothing to be found.
    several = [name for name in pictures.classes if counts[name] > 1 and name not in set(known)]
    wanted = ceil(share * len(pictures.classes))
    if not wanted or len(several) < 2 * max(wanted, 2):
        return None, pictures
    judged = set(np.random.default_rng(seed).permutation(several)[: max(wanted, 2)])
    return pictures.of_classes(judged), pictures.of_classes(set(pictures.classes) - judged)
