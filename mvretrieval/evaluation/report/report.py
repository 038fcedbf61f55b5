"""A page about how well a collection answers, and the numbers behind it: `index.html` and `report.json` in one folder."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import MvrError, ShapeError
from mvretrieval.evaluation.metrics import Evaluation
from mvretrieval.evaluation.protocols import Task
from mvretrieval.evaluation.ranking import Scores, cosines
from mvretrieval.evaluation.report.breakdown import (
    RECALL_LEVELS,
    Answers,
    ClassRow,
    Confusion,
    Curve,
    answers_of,
    class_rows,
    classes_of,
    confusions,
    curve_of,
    standard_errors,
)
from mvretrieval.evaluation.report.charts import elevations_deg
from mvretrieval.evaluation.report.page import render_page
from mvretrieval.evaluation.report.view_weights import ViewWeights, measure
from mvretrieval.evaluation.seen_classes import seen_classes

if TYPE_CHECKING:
    from mvretrieval.api import Collection

PAGE, NUMBERS = "index.html", "report.json"
_PACKAGES = ("mvretrieval", "numpy", "torch", "scikit-learn")


class ReportError(MvrError):
    """A report that cannot be made or written."""


@dataclass(frozen=True)
class Findings:
    """Everything that the page tells.

    Attributes:
        collection: open.
        row_ids: (N,) of the evaluated objects in the store.
        ids: N.
        vectors: (N, D), unit norm.
        task: who asked among whom, and the classes of the objects.
        names: of the classes.
        evaluation: per query.
        answers: to the same queries.
        curve: None without queries.
        classes: that were asked for, weakest first.
        confusions: most frequent first.
        weights: of the views; None without objects.
        seen: names of classes that the adapter was trained on, or the encoder tuned on.
        label_name: label that says which objects are alike.
        scope: which objects were evaluated, in words; empty for all.
        made: when.
        versions: of what made it.
    """

    collection: Collection
    row_ids: NDArray[np.int64]
    ids: list[str]
    vectors: NDArray[np.float32]
    task: Task
    names: list[str]
    evaluation: Evaluation
    answers: Answers
    curve: Curve | None
    classes: list[ClassRow]
    confusions: list[Confusion]
    weights: ViewWeights | None
    seen: frozenset[str]
    label_name: str
    scope: str
    made: str
    versions: dict[str, str]


def write_report(
    collection: Collection,
    row_ids: NDArray[np.int64],
    labels: Sequence[Any],
    vectors: NDArray[np.float32],
    evaluation: Evaluation,
    folder: str | Path,
    *,
    task: Task | None = None,
    scores: Scores | None = None,
    label_name: str = "label",
    scope: str = "",
    run: Mapping[str, Any] | None = None,
) -> Path:
    """Write `index.html`, one file that needs no network, and `report.json`.

    Args:
        collection: open.
        row_ids: (N,) of the evaluated objects in its store.
        labels: N; None for an object without.
        vectors: (N, D), unit norm.
        evaluation: of these vectors by these labels.
        folder: made if it is not there; an older report in it is replaced.
        task: whose queries were evaluated, on the same objects; leave-one-out by default.
        scores: that were evaluated; cosines of the vectors by default.
        label_name: what the labels are called in the collection.
        scope: which objects were evaluated, in words, such as the filter; empty for all.
        run: more to be remembered in `report.json`, such as the options and revision of the command.

    Returns:
        Path of the page.

    Raises:
        ReportError: scikit-learn is missing, objects were removed meanwhile, or the folder cannot be written.
        ShapeError: numbers, labels and vectors are not equally many.
    """
    check_extra()
    if not len(row_ids) == len(labels) == len(vectors):
        raise ShapeError(
            f"{len(row_ids)} objects have {len(labels)} labels and {len(vectors)} vectors; a report needs one of each"
        )
    records = collection.store.records([int(n) for n in row_ids])
    gone = [int(n) for n in row_ids if int(n) not in records]
    if gone:
        raise ReportError(
            f"{len(gone)} of {len(row_ids)} objects were removed from {collection.folder} meanwhile: evaluate again"
        )
    codes, names = classes_of(labels)
    # Queries in the order of the evaluation, which the values are in.
    gallery = np.arange(len(row_ids)) if task is None else task.gallery
    task = Task(evaluation.queries, gallery, codes, evaluation.skipped)
    answers = answers_of(task, scores or cosines(vectors))
    queries = evaluation.queries
    findings = Findings(
        collection=collection,
        row_ids=row_ids,
        ids=[records[int(n)].id for n in row_ids],
        vectors=vectors,
        task=task,
        names=names,
        evaluation=evaluation,
        answers=answers,
        curve=curve_of(answers, codes[queries]) if len(queries) else None,
        classes=class_rows(evaluation, codes, names),
        confusions=confusions(answers, codes, queries, names),
        weights=measure(collection, row_ids),
        seen=frozenset(seen_classes(collection.describer)).intersection(names),
        label_name=label_name,
        scope=scope,
        made=datetime.now().astimezone().isoformat(timespec="seconds"),
        versions={name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()},
    )
    numbers_text = json.dumps(_json_of(findings, run), indent=1, allow_nan=False, default=str)
    page = render_page(findings)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NUMBERS).write_text(numbers_text, encoding="utf-8")
        (folder / PAGE).write_text(page, encoding="utf-8", errors="replace")  # names of folders may be no UTF-8
    except OSError as error:
        raise ReportError(
            f"the report cannot be written to {folder} ({error.strerror}): name another folder"
        ) from error
    return folder / PAGE


def check_extra() -> None:
    """Make sure that what a report needs beyond the core is installed; cheap, to be asked before a long evaluation.

    Raises:
        ReportError: it is not.
    """
    if find_spec("sklearn") is None:
        raise ReportError("the map of a report needs scikit-learn: pip install 'mvretrieval[report]'")


def _json_of(found: Findings, run: Mapping[str, Any] | None) -> dict[str, Any]:
    evaluation, describer, store = found.evaluation, found.collection.describer, found.collection.store
    queries = [int(q) for q in evaluation.queries]
    return {
        "collection": str(found.collection.folder),
        "label": found.label_name,
        "scope": found.scope,
        "made": found.made,
        "versions": found.versions,
        "run": dict(run) if run is not None else None,
        "described": {
            **asdict(describer.config),
            "precision": store.get_meta("precision"),
            "backend": store.get_meta("backend"),
            "view_fingerprint": store.get_meta("view_fingerprint"),
        },
        "objects": len(found.row_ids),
        "labelled": int((found.task.codes >= 0).sum()),
        "queries": len(queries),
        "skipped": evaluation.skipped,
        "means": _finite(evaluation.means()),
        "standard_errors": _finite(standard_errors(evaluation)),
        "per_class": [
            {"class": row.name, "n": row.n, "seen": row.name in found.seen, **_finite(row.values)}
            for row in found.classes
        ],
        "curve": _curve_json(found.curve),
        "confusions": [{"class": c.asked, "first_hit": c.found, "count": c.count, "n": c.n} for c in found.confusions],
        "view_weights": _weights_json(found),
        # Runs are compared query by query: the means of two differ by less than either's standard error.
        "per_query": {
            "id": [found.ids[q] for q in queries],
            "class": [found.names[found.task.codes[q]] for q in queries],
            **{name: values.tolist() for name, values in evaluation.values.items()},
        },
    }


def _curve_json(curve: Curve | None) -> dict[str, Any] | None:
    if curve is None:
        return None
    return {
        "recall": RECALL_LEVELS.round(4).tolist(),
        "precision": curve.mean.tolist(),
        "precision_class_mean": curve.class_mean.tolist(),
        "class_quartiles": None
        if curve.lower is None or curve.upper is None
        else [curve.lower.tolist(), curve.upper.tolist()],
        "chance": curve.chance,
    }


def _weights_json(found: Findings) -> dict[str, Any] | None:
    weights, describer = found.weights, found.collection.describer
    if weights is None:
        return None
    return {
        "unit": "multiples of a fair share, 1 / number of views",
        "objects": weights.n,
        "uniform": weights.uniform,
        "azimuth_deg": describer.rig.azimuths_deg.round(3).tolist() if describer.rig.is_known else None,
        "elevation_deg": elevations_deg(describer.rig).tolist() if describer.rig.is_known else None,
        "styles": {
            style: {
                "mean": weights.mean[s].tolist(),
                "percentile_10": weights.lower[s].tolist(),
                "percentile_90": weights.upper[s].tolist(),
            }
            for s, style in enumerate(describer.config.styles)
        },
    }


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """JSON knows no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
