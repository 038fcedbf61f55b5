"""Benchmarks of class names, group `zero-shot`: text queries for MobileNetV2, by a projection of CLIP's text embeddings.

The projection is fitted on AdaM's vectors of PSB's train split. Values are means over five seeds of AdaM, `_sd` their sample
deviations.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from benchmarks import data
from benchmarks.benchmark import Benchmark
from benchmarks.learning import adapters, vectors
from benchmarks.psb import base_meshes, psb, spread
from mvretrieval.api import Collection
from mvretrieval.weighting.text_embeddings import TextEmbeddings, plain_name
from mvtrain.class_names import fit_text_projection
from mvtrain.features import from_collection


def names_psb() -> dict[str, float]:
    """Zero-shot classification of unseen test objects among the known names of their classes.

    `top1_new`, `top5_new`: only names that no training class used (`knife` is used by butcher knives). `chance`: chance level.
    """
    return _with_prefix("psb_")


def names_to_mesh() -> dict[str, float]:
    """Retrieval of base-meshes by name: recall of the meshes with that name in the top 10 of 900.

    `recall10_new`: only names that no training class used.
    """
    return _with_prefix("meshes_")


def _with_prefix(prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in _measured().items() if name.startswith(prefix)}


@cache
def _measured() -> dict[str, float]:
    p, rows = psb(), []
    embeddings = TextEmbeddings.load(data.text_embeddings())
    with Collection.open(base_meshes()) as collection:
        meshes = from_collection(collection.session, "name")
    own_names = [plain_name(re.sub(r"\d+", "", name)) for name in meshes.labels]
    train, unseen = np.flatnonzero(p.train), np.flatnonzero(p.unseen)
    labels = p.features.labels
    for adapter, found in zip(adapters(), vectors(), strict=True):
        fit = fit_text_projection(embeddings, found[train], [labels[i] for i in train])
        seen_names = {plain_name(labels[i]) for i in train} | set(fit.names)
        rows.append(_by_name(fit.text_embeddings, found[unseen], [labels[i] for i in unseen], seen_names))
        objects, _ = adapter.pool(meshes.views.astype(np.float32), meshes.mask, meshes.directions)
        rows[-1] |= _recall(fit.text_embeddings, objects, own_names, seen_names)
    return spread(rows)


def _by_name(
    embeddings: TextEmbeddings, found: NDArray[np.float32], labels: list[str], seen_names: set[str]
) -> dict[str, float]:
    known = sorted({label for label in labels if embeddings.direction_of(label) is not None})
    rows = [i for i, label in enumerate(labels) if label in known]
    scores = embeddings.name_scores(found[rows], known)
    own = scores[np.arange(len(rows)), [known.index(labels[i]) for i in rows]]
    rank = (scores > own[:, None]).sum(axis=1)
    new = np.array([embeddings.known_name(labels[i]) not in seen_names for i in rows])
    return {
        "psb_top1": float((rank < 1).mean()), "psb_top5": float((rank < 5).mean()),
        "psb_top1_new": float((rank[new] < 1).mean()), "psb_top5_new": float((rank[new] < 5).mean()),
        "psb_objects": len(rows), "psb_names": len(known), "psb_top1_chance": 1 / len(known),
    }  # fmt: skip


def _recall(
    embeddings: TextEmbeddings, found: NDArray[np.float32], names: list[str], seen_names: set[str]
) -> dict[str, float]:
    recalls: dict[str, float] = {}
    for name in sorted(set(names)):
        if embeddings.direction_of(name) is None:
            continue
        own = np.array([other == name for other in names])
        best = np.argsort(-(found @ embeddings.object_vector(name)), kind="stable")[:10]
        recalls[name] = own[best].sum() / min(own.sum(), 10)
    new = [value for name, value in recalls.items() if embeddings.known_name(name) not in seen_names]
    return {
        "meshes_recall10": float(np.mean(list(recalls.values()))), "meshes_recall10_new": float(np.mean(new)),
        "meshes_names": len(recalls), "meshes_recall10_chance": 10 / len(names),
    }  # fmt: skip


BENCHMARKS: Sequence[Benchmark] = (
    Benchmark("names-psb", "zero-shot", "unseen classes of PSB by name", {"top1": 0.50, "top5": 0.82}, names_psb),
    Benchmark("names-to-mesh", "zero-shot", "base-meshes by name", {"recall10_new": 0.15}, names_to_mesh),
)
