"""PSB as training and test data: its collections, built once, and evaluation of their view vectors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import data
from benchmarks.commands import MVR
from mvretrieval.api import Collection
from mvretrieval.evaluation.metrics import evaluate, leave_one_out
from mvretrieval.evaluation.protocols import leave_one_out_task
from mvretrieval.evaluation.ranking import precomputed
from mvretrieval.weighting.adapter import Adapter
from mvretrieval.weighting.config import AdapterConfig
from mvtrain.config import TrainConfig
from mvtrain.features import Features, from_collection
from mvtrain.train import Trained, train

SEEDS = range(5)
RING = "ring:12@30"
# The configuration with several styles: twenty views each.
STYLES, DODECAHEDRON = "clay,depth,normal", "dodecahedron"


@cache
def folder(styles: str = "texture", rig: str = RING) -> Path:
    """Collection of all of PSB with the shared MobileNetV2. Built once; an interrupted `mvr index` resumes."""
    psb = data.meshes("psb")
    name = data.WORK / f"learn-{styles}-{rig}".replace(",", "-").replace(":", "-").replace("@", "-")
    options = ["--encoder", data.mobilenet(), "--styles", styles, "--rig", rig]
    subprocess.run(
        [*MVR, "index", str(name), str(psb), "--labels", str(psb / "labels.csv"), *options],
        check=True,
        stdout=sys.stderr,
    )
    return name


@cache
def base_meshes() -> Path:
    """Collection of base-meshes with the describer of PSB's."""
    meshes = data.meshes("base-meshes")
    name = data.WORK / "learn-base-meshes"
    subprocess.run(
        [*MVR, "index", str(name), str(meshes), "--labels", str(meshes / "labels.csv"), "--encoder", data.mobilenet()],
        check=True,
        stdout=sys.stderr,
    )
    return name


@dataclass(frozen=True)
class Psb:
    """All 1809 objects in a fixed order, with the evaluated subsets.

    Attributes:
        features: of all.
        train: (N,) bool, the train split: 904 objects of 90 classes.
        whole: the test split: 905 objects.
        unseen: the 536 test objects of the 71 classes that are not in the train split.
        config: of adapters trained on these objects.
    """

    features: Features
    train: NDArray[np.bool_]
    whole: NDArray[np.bool_]
    unseen: NDArray[np.bool_]
    config: AdapterConfig

    def adapter(self, trained: Trained, config: TrainConfig) -> Adapter:
        """The adapter that `mvr train` would write."""
        dim = self.features.views.shape[3] if trained.whitening is None else trained.whitening.dim
        return Adapter(replace(self.config, dim=dim, network=config.network), trained.whitening, trained.network)

    def learn(self, config: TrainConfig, rows: NDArray[np.bool_] | None = None) -> Adapter:
        """Train on the train split, or on the given rows."""
        seen = self.features.take(np.flatnonzero(self.train if rows is None else rows))
        return self.adapter(train(seen, config), config)

    def vectors(self, adapter: Adapter, mask: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """(N, S * K) object vectors, of all views or of those in `mask`."""
        features = self.features
        masks = features.mask if mask is None else mask
        parts = [
            adapter.pool(features.views[i : i + 256].astype(np.float32), masks[i : i + 256], features.directions)[0]
            for i in range(0, len(features), 256)
        ]
        return np.concatenate(parts)

    def mean_ap(self, vectors: NDArray[np.float32]) -> dict[str, float]:
        """Leave-one-out mAP on the unseen classes and on the whole test split."""
        return {name: self.per_query(vectors, name).mean() for name in ("unseen", "whole")}

    def per_query(self, vectors: NDArray[np.float32], which: str) -> NDArray[np.float64]:
        """Average precision of each query of a subset."""
        rows = np.flatnonzero(getattr(self, which))
        return leave_one_out(vectors[rows], [self.features.labels[i] for i in rows]).values["mAP"]

    def of_scores(self, scores: NDArray[np.float32]) -> dict[str, float]:
        """The same for (N, N) scores."""
        found = {}
        for name in ("unseen", "whole"):
            rows = np.flatnonzero(getattr(self, name))
            found[name] = mean_ap_of_scores(scores[np.ix_(rows, rows)], [self.features.labels[i] for i in rows])
        return found


def mean_ap_of_scores(scores: NDArray[np.float32], labels: Sequence[str]) -> float:
    """Leave-one-out mAP of (n, n) scores."""
    task = leave_one_out_task(list(labels))
    return float(evaluate(task, precomputed(scores)).values["mAP"].mean())


@cache
def psb(styles: str = "texture", rig: str = RING) -> Psb:
    """View vectors of PSB."""
    with Collection.open(folder(styles, rig)) as collection:
        features = from_collection(collection.session, "label")
        row_ids = [int(n) for n in collection.session.store.select(None)]
        splits = np.array(collection.session.store.column_values("split", row_ids))
        config = collection.describer.config
        fingerprint: Any = collection.session.store.get_meta("view_fingerprint")
    labels = np.array(features.labels)
    seen = set(labels[splits == "train"])
    unseen = (splits == "test") & np.array([label not in seen for label in labels])
    adapter = AdapterConfig(
        fingerprint,
        config.encoder,
        config.rig,
        config.styles,
        config.size,
        features.views.shape[2],
        features.views.shape[3],
    )
    return Psb(features, splits == "train", splits == "test", unseen, adapter)


def spread(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean and sample deviation over seeds of every value: `unseen`, `unseen_sd`, ..."""
    found = {}
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        found[name] = float(values.mean())
        found[f"{name}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return found
