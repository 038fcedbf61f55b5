"""The content of a report, independent of its format."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import MvrError, ShapeError
from mvretrieval.evaluation.metrics import Evaluation
from mvretrieval.evaluation.protocols import Task
from mvretrieval.evaluation.ranking import ScoreFunction, cosines
from mvretrieval.evaluation.report.results import (
    ClassRow,
    Confusion,
    PrecisionRecallCurve,
    QueryResults,
    class_rows,
    classes_of,
    collect_results,
    confusions,
    precision_recall_curve,
)
from mvretrieval.evaluation.report.view_weights import ViewWeights, measure_view_weights
from mvretrieval.evaluation.seen_classes import seen_classes
from mvretrieval.session.session import Session

_PACKAGES = ("mvretrieval", "numpy", "torch", "scikit-learn")


class ReportError(MvrError):
    """A report that cannot be made or written."""

    code = "bad_report"


@dataclass(frozen=True)
class EvaluatedObjects:
    """The objects of a report.

    Attributes:
        row_ids: (N,) row ids in the store.
        labels: N labels; None for an object without one.
        vectors: (N, D), unit norm.
        by: name of the label.
        scope: which objects were evaluated, such as a filter; empty for all.
    """

    row_ids: NDArray[np.int64]
    labels: Sequence[Any]
    vectors: NDArray[np.float32]
    by: str = "label"
    scope: str = ""

    def __post_init__(self) -> None:
        n, n_labels, n_vectors = len(self.row_ids), len(self.labels), len(self.vectors)
        if not n == n_labels == n_vectors:
            raise ShapeError(f"{n} objects have {n_labels} labels and {n_vectors} vectors; a report needs one of each")


@dataclass(frozen=True)
class ReportData:
    """Content of a report.

    Attributes:
        session: open collection.
        objects: the evaluated objects.
        ids: N ids.
        task: queries, gallery and classes.
        class_names: names of the classes.
        evaluation: metrics per query.
        results: results of the same queries.
        curve: precision-recall curve; None without queries.
        classes: classes that have queries, lowest mAP first.
        confusions: most frequent first.
        weights: view weights; None without objects.
        seen: names of classes that the adapter was trained on, or the encoder tuned on.
        created: time stamp.
        versions: package -> version.
    """

    session: Session
    objects: EvaluatedObjects
    ids: list[str]
    task: Task
    class_names: list[str]
    evaluation: Evaluation
    results: QueryResults
    curve: PrecisionRecallCurve | None
    classes: list[ClassRow]
    confusions: list[Confusion]
    weights: ViewWeights | None
    seen: frozenset[str]
    created: str
    versions: dict[str, str]

    def label_of(self, index: int) -> str:
        """Label of an object, for people."""
        class_id = int(self.task.class_ids[index])
        return self.class_names[class_id] if class_id >= 0 else "no label"


def collect_report_data(
    session: Session,
    objects: EvaluatedObjects,
    evaluation: Evaluation,
    task: Task | None = None,
    scores: ScoreFunction | None = None,
) -> ReportData:
    """Collect the content of a report.

    Args:
        session: open collection.
        objects: the evaluated objects.
        evaluation: metrics of these objects by these labels.
        task: the evaluated task; leave-one-out by default.
        scores: the evaluated scores; cosines of the vectors by default.

    Raises:
        ReportError: objects were removed meanwhile.
    """
    row_ids = [int(n) for n in objects.row_ids]
    records = session.store.records(row_ids)
    removed = [n for n in row_ids if n not in records]
    if removed:
        raise ReportError(
            f"{len(removed)} of {len(row_ids)} objects were removed from {session.folder} during the evaluation: run it again",
            code="objects_removed",
        )
    class_ids, names = classes_of(objects.labels)
    # Queries in the order of the evaluation's values.
    gallery = np.arange(len(row_ids)) if task is None else task.gallery
    task = Task(evaluation.queries, gallery, class_ids, evaluation.skipped)
    results = collect_results(task, scores or cosines(objects.vectors))
    queries = evaluation.queries
    return ReportData(
        session=session,
        objects=objects,
        ids=[records[n].id for n in row_ids],
        task=task,
        class_names=names,
        evaluation=evaluation,
        results=results,
        curve=precision_recall_curve(results, class_ids[queries]) if len(queries) else None,
        classes=class_rows(evaluation, class_ids, names),
        confusions=confusions(results, class_ids, queries, names),
        weights=measure_view_weights(session, objects.row_ids),
        seen=frozenset(seen_classes(session.describer)).intersection(names),
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        versions={name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()},
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
