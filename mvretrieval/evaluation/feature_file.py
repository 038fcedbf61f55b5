"""Features that a benchmark ships, measured without a collection: an .npz file with a split and columns of object vectors."""

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
    """mAP, NDCG@100 and ANMRR of one column, as the open-set benchmarks code them, with the file's own queries.

    Args:
        path: .npz with `names`, `label`, `query` and `target` (N,), the latter two bool, and features (N, D).
        column: of the features.

    Raises:
        EvaluationError: the file cannot be read, or lacks one of them.
    """
    try:
        names, label, query, target, features = read_arrays(Path(path), ["names", "label", "query", "target", column])
        if not all(array.shape == names.shape == features.shape[:1] for array in (names, label, query, target)):
            raise ValueError(
                f"its arrays are of {', '.join(str(a.shape) for a in (names, label, query, target, features))}"
            )
        if query.dtype != bool or target.dtype != bool:
            raise ValueError(f"its query and target are {query.dtype} and {target.dtype}, not true or false")
        if features.ndim != 2 or features.dtype.kind not in "fiu" or not np.isfinite(features).all():
            raise ValueError(f"its '{column}' is {features.dtype} {features.shape}, not finite numbers (N, D)")
    except ValueError as error:
        raise EvaluationError(
            f"{path} cannot be read: {error}; it is an .npz file with names, label, query and target (N,) and features (N, D)"
        ) from error
    chosen = query | target
    names, labels = names[chosen].tolist(), label[chosen].tolist()
    asking, features = query[chosen], features[chosen].astype(np.float32)
    queries = OpenSetQueries(tuple(name for name, asks in zip(names, asking, strict=True) if asks))
    task = open_set_task(labels, names, queries)
    return evaluate(task, cosines(l2_normalize(features)), os3dor_measure(task.n_relevant)).means()
