"""Benchmarks of confidence, group `service`: calibration error, and detection of queries from absent classes.

MobileNetV2 on PSB. The calibration is fitted on the train split by its labels, and evaluated on unseen classes. Confidences are
computed from cosine matrices; the tests check that searching gives the same.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.benchmark import Benchmark
from benchmarks.commands import MVR, fresh
from benchmarks.psb import folder, psb
from mvretrieval.api import Collection
from mvretrieval.confidence.calibration import calibration_of
from mvretrieval.confidence.calibration_queries import HITS, CalibrationObjects, image_queries
from mvretrieval.confidence.curve import Curve, cohort_size, expected_calibration_error
from mvretrieval.ingest.repool import repool
from mvretrieval.store.batches import original_vectors
from mvtrain.config import TrainConfig

_Vectors = NDArray[np.float32]
_WHITEN = ("--whiten", "256", "--fit-where", "split = 'train'")


def calibration_error() -> dict[str, float]:
    """Expected calibration error (15 bins) on the top ten hits of each object of the 71 unseen test classes.

    `ece`: the default describer, object queries. `images`: queries with one to three views of an object. `cosine`: a map from
    the cosine only, for comparison. `whitened`: to 256 dimensions. `among_all`: unseen objects as queries to the collection of
    all 1,809. `adapter`: AdaM trained on half of the train classes, calibrated on the other half; `adapter_seen`: calibrated on
    the classes it was trained on.
    """
    labels, unseen = np.array(psb().features.labels), psb().unseen
    vectors, curve, image_curve = _calibrated("raw")
    white, white_curve, _ = _calibrated("whitened", *_WHITEN)
    found = {
        "ece": _error(curve, vectors[unseen], labels[unseen]),
        "images": _error_of_images(image_curve, unseen),
        "cosine": _error(_plain(vectors[psb().train], labels[psb().train]), vectors[unseen], labels[unseen]),
        "whitened": _error(white_curve, white[unseen], labels[unseen]),
        "among_all": _error(curve, vectors, labels, unseen),
    }
    for name, (adapted, adapted_curve) in _adapted().items():
        found[name] = _error(adapted_curve, adapted[unseen], labels[unseen])
    return found


def refuse_absent() -> dict[str, float]:
    """Test objects as queries to the others, with and without their own class in the collection.

    `auroc`: of the first hit's confidence, for class present against absent. `auroc_cosine`: the same for the cosine.
    `whitened`, `whitened_cosine`: to 256 dimensions. `unseen`, `unseen_whitened`: only the 71 unseen classes. `refused_50`:
    fraction of queries from an absent class without a hit at --min-confidence 0.5; `lost_50`: the same for a present class.
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
    """Vectors of all of PSB, and the curves fitted on the train split: for object queries and for image queries."""
    path = fresh(f"confidence-{name}")
    shutil.copytree(folder(), path)
    if reindex:
        _mvr("reindex", path, *reindex)
    vectors = _vectors(path)
    _mvr("remove", path, "--where", "split = 'test'")
    _mvr("calibrate", path, "--by", "label")
    return vectors, _curve(path), _curve(path, "images")


def _adapted() -> dict[str, tuple[_Vectors, Curve]]:
    """The same with an adapter trained on half of the classes, calibrated on the others and on its own."""
    p = psb()
    labels = np.array(p.features.labels)
    classes = np.unique(labels[p.train])
    half = np.random.default_rng(0).permutation(classes)[: len(classes) // 2]
    trained_on = p.train & np.isin(labels, half)
    path = fresh("confidence-adapter")
    shutil.copytree(folder(), path)
    with Collection.open(path, write=True) as collection:
        repool(collection.session, collection.describer.with_adapter(p.learn(TrainConfig(), trained_on)))
        row_ids = collection.session.store.select(None).tolist()
        with collection.session.store.transaction():
            for row_id, own in zip(row_ids, trained_on.tolist(), strict=True):
                collection.session.store.set_metadata(row_id, {"trained_on": int(own)})
    vectors = _vectors(path)
    _mvr("remove", path, "--where", "split = 'test'")
    found = {}
    for name, where in (("adapter", "trained_on = 0"), ("adapter_seen", "trained_on = 1")):
        copy = fresh(f"confidence-{name}-alone")
        shutil.copytree(path, copy)
        _mvr("remove", copy, "--where", f"not ({where})")
        _mvr("calibrate", copy, "--by", "label")
        found[name] = vectors, _curve(copy)
    return found


def _mvr(command: str, path: Path, *options: str) -> None:
    subprocess.run([*MVR, command, str(path), *options], check=True, stdout=sys.stderr)


def _vectors(path: Path) -> _Vectors:
    """Vectors in the order of `psb().features`."""
    with Collection.open(path) as collection:
        return original_vectors(collection.session.store, collection.session.store.select(None).tolist())[1]


def _curve(path: Path, modality: str = "objects") -> Curve:
    with Collection.open(path) as collection:
        calibration = calibration_of(collection.session.store)
    assert calibration is not None
    return calibration.curves[modality]


def _plain(vectors: _Vectors, labels: NDArray[np.str_]) -> Curve:
    """The map from cosines only: the better of logistic and isotonic by the same rule."""
    from mvretrieval.confidence.fit import CalibrationPairs, fit_curve

    cosines, same, _ = _hits(vectors, labels, np.ones(len(labels), bool), HITS)
    groups = np.repeat(np.unique(labels, return_inverse=True)[1], HITS)
    flat = cosines.ravel().astype(np.float64)
    return fit_curve(CalibrationPairs(flat, np.zeros(len(flat)), same.ravel(), groups.astype(np.int64), len(labels)))


def _hits(
    vectors: _Vectors, labels: NDArray[np.str_], queries: NDArray[np.bool_], k: int, without_own: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]:
    """Cosines (Q, k) of the top hits, whether they have the class of the query, and cohort means (Q,). The query is no hit.

    Args:
        vectors: (N, D) of the collection.
        labels: N.
        queries: (N,) bool, objects used as queries.
        k: number of hits.
        without_own: exclude the class of the query from the collection.
    """
    cosines, same, cohort_means = [], [], []
    for i in np.flatnonzero(queries):
        there = labels != labels[i] if without_own else np.arange(len(labels)) != i
        own = vectors[there] @ vectors[i]
        order = np.argsort(-own, kind="stable")
        size = len(own) + (0 if without_own else 1)
        cohort_means.append(own[order[: cohort_size(size)]].mean())
        cosines.append(own[order[:k]])
        same.append(labels[there][order[:k]] == labels[i])
    return np.stack(cosines), np.stack(same), np.array(cohort_means, np.float64)


def _error(
    curve: Curve, vectors: _Vectors, labels: NDArray[np.str_], queries: NDArray[np.bool_] | None = None
) -> float:
    queries = np.ones(len(labels), bool) if queries is None else queries
    cosines, same, cohort_means = _hits(vectors, labels, queries, HITS)
    return expected_calibration_error(curve(cosines, cohort_means[:, None]).ravel(), same.ravel())


def _error_of_images(curve: Curve, unseen: NDArray[np.bool_]) -> float:
    """Error of image queries to a collection of the unseen classes only, drawn as in calibration."""
    path = fresh("confidence-unseen")
    shutil.copytree(folder(), path)
    with Collection.open(path, write=True) as collection:
        collection.remove(*[name for name, kept in zip(psb().features.ids, unseen.tolist(), strict=True) if not kept])
        row_ids = collection.session.store.select(None)
        class_ids = np.unique(collection.session.store.column_values("label", row_ids.tolist()), return_inverse=True)[1]
        objects = CalibrationObjects(row_ids, class_ids, True)
        pairs = image_queries(collection.session, objects, np.random.default_rng(0))
    return expected_calibration_error(curve(pairs.cosines, pairs.cohort_means), pairs.same)


def _first(
    curve: Curve, vectors: _Vectors, labels: NDArray[np.str_]
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Confidences and cosines of first hits, with and without the class of the query."""
    names, counts = np.unique(labels, return_counts=True)
    queries = np.isin(labels, names[counts > 1])
    found = []
    for without_own in (False, True):
        cosines, _, cohort_means = _hits(vectors, labels, queries, 1, without_own)
        found.append((curve(cosines[:, 0], cohort_means), cosines[:, 0].astype(np.float64)))
    return found[0], found[1]


def _both(curve: Curve, vectors: _Vectors, labels: NDArray[np.str_]) -> tuple[float, float]:
    present, absent = _first(curve, vectors, labels)
    return _auroc(present[0], absent[0]), _auroc(present[1], absent[1])


def _auroc(present: NDArray[np.float64], absent: NDArray[np.float64]) -> float:
    from sklearn.metrics import roc_auc_score

    truth = np.concatenate([np.ones(len(present)), np.zeros(len(absent))])
    return float(roc_auc_score(truth, np.concatenate([present, absent])))


BENCHMARKS = (
    Benchmark(
        "calibration-error",
        "service",
        "confidence on unseen classes of PSB",
        {"ece": 0.05},
        calibration_error,
        at_most=True,
    ),
    Benchmark("refuse-absent", "service", "confidence of the first hit: class present or absent", {}, refuse_absent),
)
