"""Write a report: `index.html` and `report.json` in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mvretrieval.evaluation.metrics import Evaluation
from mvretrieval.evaluation.protocols import Task
from mvretrieval.evaluation.ranking import ScoreFunction
from mvretrieval.evaluation.report.data import EvaluatedObjects, ReportError, collect_report_data
from mvretrieval.evaluation.report.numbers import report_json
from mvretrieval.evaluation.report.page import render_page
from mvretrieval.session.session import Session

PAGE, NUMBERS = "index.html", "report.json"


def write_report(
    session: Session,
    objects: EvaluatedObjects,
    evaluation: Evaluation,
    folder: str | Path,
    *,
    task: Task | None = None,
    scores: ScoreFunction | None = None,
    run: Mapping[str, Any] | None = None,
) -> Path:
    """Write `index.html`, one file that needs no network, and `report.json`.

    Args:
        session: open collection.
        objects: the evaluated objects.
        evaluation: metrics of these objects by these labels.
        folder: created if missing; an older report in it is replaced.
        task: the evaluated task on these objects; leave-one-out by default.
        scores: the evaluated scores; cosines of the vectors by default.
        run: more content for `report.json`, such as the options and revision of the command.

    Returns:
        Path of the page.

    Raises:
        ReportError: scikit-learn is missing, objects were removed meanwhile, or the folder cannot be written.
    """
    check_extra()
    data = collect_report_data(session, objects, evaluation, task, scores)
    numbers = json.dumps(report_json(data, run), indent=1, allow_nan=False, default=str)
    page = render_page(data)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NUMBERS).write_text(numbers, encoding="utf-8")
        (folder / PAGE).write_text(page, encoding="utf-8", errors="replace")  # folder names may not be UTF-8
    except OSError as error:
        raise ReportError(
            f"the report cannot be written to {folder} ({error.strerror}): choose another folder", code="not_writable"
        ) from error
    return folder / PAGE


def check_extra() -> None:
    """Check that the optional dependencies of a report are installed; cheap, for use before a long evaluation.

    Raises:
        ReportError: scikit-learn is missing.
    """
    if find_spec("sklearn") is None:
        raise ReportError(
            "the map of a report needs scikit-learn: pip install 'mvretrieval[report]'", code="missing_extra"
        )
