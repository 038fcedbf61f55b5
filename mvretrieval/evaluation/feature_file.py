"""Evaluation of the feature vectors that a benchmark ships: an .npz file with a split and feature columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.metrics import evaluate
from mvretrieval.evaluation.os3dor import os3dor_measure
from mvretrieval.evaluation.protocols import OpenSetQueries, open_set_task
from mvretrieval.evaluation.ranking import cosines
from mvretrieval.normalize import l2_normalize
from mvretrieval.npz_file import read_arrays


def measure_features(path: str | Path, column: str) -> dict[str, float]:
    """Compute mAP, NDCG@100 and ANMRR of one feature column with the file's queries, as the open-set benchmarks do.

    Args:
        path: .npz with `names`, `label`, `query` and `target` (N,), the latter two bool, and features (N, D).
        column: name of the features.

    Raises:
        EvaluationError: the file cannot be read, or lacks an array.
    """
    try:
        names, label, query, target, features = read_arrays(Path(path), ["names", "label", "query", "target", column])
        if not all(array.shape == names.shape == features.shape[:1] for array in (names, label, query, target)):
            shapes = ", ".join(str(a.shape) for a in (names, label, query, target, features))
            raise ValueError(f"its arrays have shapes {shapes}")
        if query.dtype != bool or target.dtype != bool:
            raise ValueError(f"its query and target are {query.dtype} and {target.dtype}, not bool")
        if features.ndim != 2 or features.dtype.kind not in "fiu" or not np.isfinite(features).all():
            raise ValueError(f"its '{column}' is {features.dtype} {features.shape}, not finite numbers (N, D)")
    except ValueError as error:
        raise EvaluationError(
            f"{path} cannot be read: {error}; it needs names, label, query and target (N,) and features (N, D)",
            code="bad_feature_file",
        ) from error
    chosen = query | target
    names, labels = names[chosen].tolist(), label[chosen].tolist()
    is_query, features = query[chosen], features[chosen].astype(np.float32)
    queries = OpenSetQueries(tuple(name for name, drawn in zip(names, is_query, strict=True) if drawn))
    task = open_set_task(labels, names, queries)
    return evaluate(task, cosines(l2_normalize(features)), os3dor_measure(task.n_relevant)).means()
