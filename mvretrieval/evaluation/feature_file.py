"""Features that a benchmark ships, measured without a collection: an .npz file with a split and columns of object vectors."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from mvretrieval.errors import EvaluationError, did_you_mean
from mvretrieval.evaluation.metrics import evaluate
from mvretrieval.evaluation.os3dor import os3dor_measure
from mvretrieval.evaluation.protocols import OpenSetQueries, open_set_task
from mvretrieval.evaluation.ranking import cosines
from mvretrieval.unit_norm import unit


def measure_features(path: str | Path, column: str) -> dict[str, float]:
    """mAP, NDCG@100 and ANMRR of one column, as the open-set benchmarks code them, with the file's own queries.

    Args:
        path: .npz with `names`, `label`, `query` and `target` (N,), the latter two bool, and features (N, D).
        column: of the features.

    Raises:
        EvaluationError: the file cannot be read, or lacks one of them.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in ("names", "label", "query", "target", column) if name not in file]
            if missing:
                raise EvaluationError(
                    f"{path} has no '{missing[0]}': {did_you_mean(missing[0], file)}it holds {', '.join(sorted(file))}"
                )
            chosen = file["query"] | file["target"]
            names, labels = file["names"][chosen].tolist(), file["label"][chosen].tolist()
            asking, features = file["query"][chosen], file[column][chosen].astype(np.float32)
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise EvaluationError(f"{path} cannot be read: {error}; it is an .npz file with a split and features") from error
    queries = OpenSetQueries(tuple(name for name, asks in zip(names, asking, strict=True) if asks))
    task = open_set_task(labels, names, queries)
    return evaluate(task, cosines(unit(features)), os3dor_measure(task.n_relevant)).means()
