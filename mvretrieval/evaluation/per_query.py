"""Per-query metrics as a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mvretrieval.errors import EvaluationError
from mvretrieval.evaluation.metrics import Evaluation


def write_per_query(path: Path, evaluation: Evaluation, labels: Sequence[Any]) -> None:
    """Write a CSV with id, label and all metrics of every query.

    Args:
        path: path of the file.
        evaluation: values; query indices are written where it has no ids.
        labels: N labels of the objects.

    Raises:
        EvaluationError: the file cannot be written.
    """
    ids: Sequence[Any] = evaluation.queries.tolist() if evaluation.ids is None else evaluation.ids
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["id", "label", *evaluation.values])
            for i, (query, object_id) in enumerate(zip(evaluation.queries, ids, strict=True)):
                rows.writerow([object_id, labels[query], *(float(values[i]) for values in evaluation.values.values())])
    except OSError as error:
        raise EvaluationError(
            f"{path} cannot be written: {error.strerror}; choose another path", code="not_writable"
        ) from error
