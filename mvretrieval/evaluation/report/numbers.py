"""`report.json`: the numbers behind a report's page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mvretrieval.evaluation.report.charts import elevations_deg
from mvretrieval.evaluation.report.data import ReportData
from mvretrieval.evaluation.report.results import RECALL_LEVELS, PrecisionRecallCurve, standard_errors

SCHEMA = 1


def report_json(data: ReportData, run: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the content of `report.json`."""
    evaluation, describer, store = data.evaluation, data.session.describer, data.session.store
    queries = [int(q) for q in evaluation.queries]
    return {
        "schema": SCHEMA,
        "collection": str(data.session.folder),
        "label": data.objects.by,
        "scope": data.objects.scope,
        "created": data.created,
        "versions": data.versions,
        "run": dict(run) if run is not None else None,
        "describer": {
            **asdict(describer.config),
            "precision": store.get_meta("precision"),
            "backend": store.get_meta("backend"),
            "view_fingerprint": store.get_meta("view_fingerprint"),
        },
        "objects": len(data.objects.row_ids),
        "labeled": int((data.task.class_ids >= 0).sum()),
        "queries": len(queries),
        "skipped": evaluation.skipped,
        "means": _finite(evaluation.means()),
        "standard_errors": _finite(standard_errors(evaluation)),
        "per_class": [
            {"class": row.name, "n": row.n, "seen": row.name in data.seen, **_finite(row.values)}
            for row in data.classes
        ],
        "curve": _curve_json(data.curve),
        "confusions": [
            {"class": c.query_class, "first_hit": c.hit_class, "count": c.count, "n": c.n} for c in data.confusions
        ],
        "view_weights": _weights_json(data),
        # Runs are compared query by query: their means differ by less than either standard error.
        "per_query": {
            "id": [data.ids[q] for q in queries],
            "class": [data.class_names[data.task.class_ids[q]] for q in queries],
            **{name: values.tolist() for name, values in evaluation.values.items()},
        },
    }


def _curve_json(curve: PrecisionRecallCurve | None) -> dict[str, Any] | None:
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


def _weights_json(data: ReportData) -> dict[str, Any] | None:
    weights, describer = data.weights, data.session.describer
    if weights is None:
        return None
    return {
        "unit": "multiples of the uniform weight, 1 / number of views",
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
    """Replace NaN by None: JSON has no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
