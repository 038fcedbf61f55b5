"""Figures of confidence, in the group `service`: whether it is right, and whether it tells that there is nothing alike.

MobileNetV2 on PSB. A collection of the train split alone is calibrated by its labels; what it learnt is then asked of classes
that it never saw. Here confidences are computed from matrices of cosines; that searching gives the same is tested.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.commands import MVR, fresh
from benchmarks.figures import Figure
from benchmarks.psb import folder, psb
from mvretrieval.api import Collection
from mvretrieval.confidence.calibration import calibration_of
from mvretrieval.confidence.calibration_queries import HITS, Labelled, asked_with_pictures
from mvretrieval.confidence.curve import Curve, cohort_size, expected_calibration_error
from mvretrieval.store.batches import original_vectors
from mvtrain.config import TrainConfig

_Vectors = NDArray[np.float32]
_WHITEN = ("--whiten", "256", "--fit-where", "split = 'train'")


def calibration_error() -> dict[str, float]:
    """Expected calibration error (15 bins) on the first ten hits of each object of the 71 unseen test classes among the others.

    `ece`: the default describer, asked with objects. `pictures`: asked with one to three views of each. `cosine`: a map from the
    plain cosine alone, for comparison. `whitened`: to 256 dimensions. `among_all`: unseen objects ask the collection of all 1,809.
    `adapter`: AdaM learnt from half of the train classes, calibrated on the other half; `adapter_met`: on those it learnt from.
    """
    labels, unseen = np.array(psb().features.labels), psb().unseen
    vectors, curve, pictures = _calibrated("raw")
    white, white_curve, _ = _calibrated("whitened", *_WHITEN)
    found = {
        "ece": _error(curve, vectors[unseen], labels[unseen]),
        "pictures": _error_of_pictures(pictures, unseen),
        "cosine": _error(_plain(vectors[psb().train], labels[psb().train]), vectors[unseen], labels[unseen]),
        "whitened": _error(white_curve, white[unseen], labels[unseen]),
        "among_all": _error(curve, vectors, labels, unseen),
    }
    for name, (adapted, adapted_curve) in _adapted().items():
        found[name] = _error(adapted_curve, adapted[unseen], labels[unseen])
    return found


def refuse_absent() -> dict[str, float]:
    """Objects of the test split ask the others, once with their own class there and once without it.

    `auroc`: how often the first hit of a question whose class is there is surer than that of one whose class is not.
    `auroc_cosine`: the same by the plain cosine. `whitened`, `whitened_cosine`: to 256 dimensions. `unseen`, `unseen_whitened`: the
    71 unseen classes alone. `refused_50`: questions without their class that --min-confidence 0.5 answers with nothing;
    `lost_50`: those with it.
    """
    labels, test, unseen = np.array(psb().features.labels), psb().whole, psb().unseen
    vectors, curve, _ = _calibrated("raw")
    white, white_curve, _ = _calibrated("whitened", *_WHITEN)
    present, absent = _first(curve, vectors[test], labels[test])
    return {
        "auroc": _auroc(present[0], absent[0]),
        "auroc_cosine": _auroc(present[1], absent[1]),
        **dict(zip(("whitened", "whitened_cosine"), _both(white_curve, white[test], labels[test]), strict=True)),
        "unseen": _both(curve, vectors[unseen], labels[unseen])[0],
        "unseen_whitened": _both(white_curve, white[unseen], labels[unseen])[0],
        **{f"refused_{least}": float((absent[0] < least / 100).mean()) for least in (50, 70, 90)},
        **{f"lost_{least}": float((present[0] < least / 100).mean()) for least in (50, 70, 90)},
    }


@cache
def _calibrated(name: str, *reindex: str) -> tuple[_Vectors, Curve, Curve]:
    """Vectors of all of PSB, and what a collection of the train split's objects learns by its labels: for objects, for pictures."""
    path = fresh(f"sure-{name}")
    shutil.copytree(folder(), path)
    if reindex:
        _mvr("reindex", path, *reindex)
    vectors = _vectors(path)
    _mvr("remove", path, "--where", "split = 'test'")
    _mvr("calibrate", path, "--by", "label")
    return vectors, _curve(path), _curve(path, "pictures")


def _adapted() -> dict[str, tuple[_Vectors, Curve]]:
    """The same with an adapter that has learnt from half of the classes, calibrated on the others and on its own."""
    p = psb()
    labels = np.array(p.features.labels)
    classes = np.unique(labels[p.train])
    half = np.random.default_rng(0).permutation(classes)[: len(classes) // 2]
    met = p.train & np.isin(labels, half)
    path = fresh("sure-adapter")
    shutil.copytree(folder(), path)
    with Collection.open(path, write=True) as collection:
        collection.repool(collection.describer.with_adapter(p.learn(TrainConfig(), met)))
        row_ids = collection.store.select(None).tolist()
        with collection.store.transaction():
            for row_id, own in zip(row_ids, met.tolist(), strict=True):
                collection.store.set_metadata(row_id, {"met": int(own)})
    vectors = _vectors(path)
    _mvr("remove", path, "--where", "split = 'test'")
    found = {}
    for name, where in (("adapter", "met = 0"), ("adapter_met", "met = 1")):
        copy = fresh(f"sure-{name}-alone")
        shutil.copytree(path, copy)
        _mvr("remove", copy, "--where", f"not ({where})")
        _mvr("calibrate", copy, "--by", "label")
        found[name] = vectors, _curve(copy)
    return found


def _mvr(command: str, path: Path, *options: str) -> None:
    subprocess.run([*MVR, command, str(path), *options], check=True, stdout=sys.stderr)


def _vectors(path: Path) -> _Vectors:
    """In the order of `psb().features`."""
    with Collection.open(path) as collection:
        return original_vectors(collection.store, collection.store.select(None).tolist())[1]


def _curve(path: Path, asking: str = "objects") -> Curve:
    with Collection.open(path) as collection:
        calibration = calibration_of(collection.store)
    assert calibration is not None
    return calibration.curves[asking]


def _plain(vectors: _Vectors, labels: NDArray[np.str_]) -> Curve:
    """The map from cosines alone: the better one of logistic and isotonic by the same rule."""
    from mvretrieval.confidence.fit import Asked, fit_curve

    cosines, same, _ = _hits(vectors, labels, np.ones(len(labels), bool), HITS)
    groups = np.repeat(np.unique(labels, return_inverse=True)[1], HITS)
    flat = cosines.ravel().astype(np.float64)
    return fit_curve(Asked(flat, np.zeros(len(flat)), same.ravel(), groups.astype(np.int64), len(labels)))


def _hits(
    vectors: _Vectors, labels: NDArray[np.str_], asking: NDArray[np.bool_], k: int, without_own: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]:
    """Cosines (Q, k) of the first hits, whether they are of the same class, and heights (Q,); itself is no hit.

    Args:
        vectors: (N, D) of the collection.
        labels: N.
        asking: (N,) who asks.
        k: hits.
        without_own: take the question's class out of the collection first.
    """
    cosines, same, heights = [], [], []
    for i in np.flatnonzero(asking):
        there = labels != labels[i] if without_own else np.arange(len(labels)) != i
        own = vectors[there] @ vectors[i]
        order = np.argsort(-own, kind="stable")
        size = len(own) + (0 if without_own else 1)
        heights.append(own[order[: cohort_size(size)]].mean())
        cosines.append(own[order[:k]])
        same.append(labels[there][order[:k]] == labels[i])
    return np.stack(cosines), np.stack(same), np.array(heights, np.float64)


def _error(curve: Curve, vectors: _Vectors, labels: NDArray[np.str_], asking: NDArray[np.bool_] | None = None) -> float:
    asking = np.ones(len(labels), bool) if asking is None else asking
    cosines, same, heights = _hits(vectors, labels, asking, HITS)
    return expected_calibration_error(curve(cosines, heights[:, None]).ravel(), same.ravel())


def _error_of_pictures(curve: Curve, unseen: NDArray[np.bool_]) -> float:
    """Of pictures asked of a collection of the unseen classes alone, as calibrating would ask it."""
    path = fresh("sure-unseen")
    shutil.copytree(folder(), path)
    with Collection.open(path, write=True) as collection:
        collection.remove(*[name for name, kept in zip(psb().features.ids, unseen.tolist(), strict=True) if not kept])
        row_ids = collection.store.select(None)
        codes = np.unique(collection.store.column_values("label", row_ids.tolist()), return_inverse=True)[1]
        asked = asked_with_pictures(collection, Labelled(row_ids, codes, True), np.random.default_rng(0))
    return expected_calibration_error(curve(asked.cosines, asked.heights), asked.same)


def _first(
    curve: Curve, vectors: _Vectors, labels: NDArray[np.str_]
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Confidences and cosines of first hits, with the question's class and without it."""
    names, counts = np.unique(labels, return_counts=True)
    asking = np.isin(labels, names[counts > 1])
    found = []
    for without_own in (False, True):
        cosines, _, heights = _hits(vectors, labels, asking, 1, without_own)
        found.append((curve(cosines[:, 0], heights), cosines[:, 0].astype(np.float64)))
    return found[0], found[1]


def _both(curve: Curve, vectors: _Vectors, labels: NDArray[np.str_]) -> tuple[float, float]:
    present, absent = _first(curve, vectors, labels)
    return _auroc(present[0], absent[0]), _auroc(present[1], absent[1])


def _auroc(present: NDArray[np.float64], absent: NDArray[np.float64]) -> float:
    from sklearn.metrics import roc_auc_score

    truth = np.concatenate([np.ones(len(present)), np.zeros(len(absent))])
    return float(roc_auc_score(truth, np.concatenate([present, absent])))


FIGURES = (
    Figure(
        "calibration-error",
        "service",
        "confidence on unseen classes of PSB",
        {"ece": 0.05},
        calibration_error,
        at_most=True,
    ),
    Figure("refuse-absent", "service", "the first hit's confidence: class there or not", {}, refuse_absent),
)
