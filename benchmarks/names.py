"""Figures of names, in the group `zero-shot`: words for MobileNetV2, which reads none, by where CLIP's names lie among objects.

The map is learnt from AdaM's vectors of PSB's train split. Values are means over five seeds of AdaM, `_sd` their deviations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from benchmarks import data
from benchmarks.figures import Figure
from benchmarks.learning import adapters, vectors
from benchmarks.psb import base_meshes, psb, spread
from mvretrieval.api import Collection
from mvretrieval.weighting.text_embeddings import TextEmbeddings, plain_name
from mvtrain.class_names import fit_text_projection
from mvtrain.features import from_collection


def names_psb() -> dict[str, float]:
    """Unseen test objects whose class name is known, called by one of these classes' names.

    `top1_new`, `top5_new`: those whose name no training class was called by, as `knife` is by butcher knives. `chance`:
    what guessing gives.
    """
    return _starting("psb_")


def names_to_mesh() -> dict[str, float]:
    """base-meshes by name: the name's own meshes among the first ten of 900.

    `recall10_new`: for names that no training class was called by.
    """
    return _starting("meshes_")


def _starting(prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in _measured().items() if name.startswith(prefix)}


@cache
def _measured() -> dict[str, float]:
    p, rows = psb(), []
    space = TextEmbeddings.load(data.text_embeddings())
    with Collection.open(base_meshes()) as collection:
        meshes = from_collection(collection, "name")
    own_names = [plain_name(re.sub(r"\d+", "", name)) for name in meshes.labels]
    train, unseen = np.flatnonzero(p.train), np.flatnonzero(p.unseen)
    labels = p.features.labels
    for adapter, found in zip(adapters(), vectors(), strict=True):
        fit = fit_text_projection(space, found[train], [labels[i] for i in train])
        taught = {plain_name(labels[i]) for i in train} | set(fit.names)
        rows.append(_by_name(fit.text_embeddings, found[unseen], [labels[i] for i in unseen], taught))
        objects, _ = adapter.pool(meshes.views.astype(np.float32), meshes.mask, meshes.directions)
        rows[-1] |= _recall(fit.text_embeddings, objects, own_names, taught)
    return spread(rows)


def _by_name(
    space: TextEmbeddings, found: NDArray[np.float32], labels: list[str], taught: set[str]
) -> dict[str, float]:
    known = sorted({label for label in labels if space.direction_of(label) is not None})
    rows = [i for i, label in enumerate(labels) if label in known]
    scores = space.name_scores(found[rows], known)
    own = scores[np.arange(len(rows)), [known.index(labels[i]) for i in rows]]
    rank = (scores > own[:, None]).sum(axis=1)
    new = np.array([space.known_name(labels[i]) not in taught for i in rows])
    return {
        "psb_top1": float((rank < 1).mean()), "psb_top5": float((rank < 5).mean()),
        "psb_top1_new": float((rank[new] < 1).mean()), "psb_top5_new": float((rank[new] < 5).mean()),
        "psb_objects": len(rows), "psb_names": len(known), "psb_top1_chance": 1 / len(known),
    }  # fmt: skip


def _recall(space: TextEmbeddings, found: NDArray[np.float32], names: list[str], taught: set[str]) -> dict[str, float]:
    recalls: dict[str, float] = {}
    for name in sorted(set(names)):
        if space.direction_of(name) is None:
            continue
        own = np.array([other == name for other in names])
        best = np.argsort(-(found @ space.object_vector(name)), kind="stable")[:10]
        recalls[name] = own[best].sum() / min(own.sum(), 10)
    new = [value for name, value in recalls.items() if space.known_name(name) not in taught]
    return {
        "meshes_recall10": float(np.mean(list(recalls.values()))), "meshes_recall10_new": float(np.mean(new)),
        "meshes_names": len(recalls), "meshes_recall10_chance": 10 / len(names),
    }  # fmt: skip


FIGURES: Sequence[Figure] = (
    Figure("names-psb", "zero-shot", "unseen classes of PSB by name", {"top1": 0.50, "top5": 0.82}, names_psb),
    Figure("names-to-mesh", "zero-shot", "base-meshes by name", {"recall10_new": 0.15}, names_to_mesh),
)
