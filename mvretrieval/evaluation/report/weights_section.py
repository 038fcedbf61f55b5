"""The view-weights section of a report: charts and a table."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from mvretrieval.describe import Describer
from mvretrieval.evaluation.report.charts import elevations_deg, is_ring, plane_chart, rim, ring_chart
from mvretrieval.evaluation.report.data import ReportData
from mvretrieval.evaluation.report.thumbnails import Thumbnails, data_uri
from mvretrieval.evaluation.report.view_weights import ViewWeights

_RIM_SIDE = 80
_N_EXAMPLES = 24
_RING_TEXT = (
    "Seen from above, 0° in front (+Z) and 90° at +X. The length of a sector is the mean weight of its view; the dashed circle "
    "is the uniform weight (1 / number of views), the line in a sector spans the 10th to the 90th percentile of the objects."
)
_PLANE_TEXT = (
    "A disc per camera: its area is the mean weight, the dashed circle the uniform weight (1 / number of views), the faint disc "
    "the 90th percentile of the objects. The number is the mean as a multiple of the uniform weight. Azimuth 0° is in front "
    "(+Z), 90° at +X; elevation 90° is the view straight down."
)
_UNKNOWN_TEXT = "The camera directions are unknown: the table lists the images in their order."


def weights_section(data: ReportData, thumbnails: Thumbnails) -> dict[str, Any] | None:
    """Return charts of the view weights with their explanation; None without objects."""
    weights, describer = data.weights, data.session.describer
    if weights is None:
        return None
    rig, styles = describer.rig, list(describer.config.styles)
    title = None
    if weights.uniform:
        styles, title = styles[:1], ", ".join(styles)  # all styles have the same chart
    images, text = Markup(""), _PLANE_TEXT
    if is_ring(rig):
        text = _RING_TEXT
        example, views = _example(data, thumbnails)
        images = rim(rig, [data_uri(view.resize((_RIM_SIDE, _RIM_SIDE))) for view in views])
        if images:
            text += f" Images: the views of {example}."
    return {
        "statement": _statement(describer, weights),
        "reading": text if rig.is_known else _UNKNOWN_TEXT,
        "charts": [
            {"svg": _chart(describer, weights, s, images), "title": title or style} for s, style in enumerate(styles)
        ],
        "rows": _rows(describer, weights, len(styles)),
    }


def _statement(describer: Describer, weights: ViewWeights) -> str:
    n_views, pooling = describer.rig.n_views, pooling_text(describer)
    if weights.uniform:
        return f"All views have the same weight, 1/{n_views} for an object with all {n_views} views ({pooling})."
    what = "learned weights" if describer.adapter is not None else "weight of a view: its share of the maxima"
    low, high = weights.mean[weights.mean > 0].min(), weights.mean.max()
    return f"Mean weights of {low:.2f} to {high:.2f} times the uniform weight over {weights.n} objects ({pooling}: {what})."


def _chart(describer: Describer, weights: ViewWeights, style: int, images: Markup) -> Markup:
    rig = describer.rig
    shares = weights.mean[style], weights.lower[style], weights.upper[style]
    if not rig.is_known:
        return Markup("")
    if is_ring(rig):
        again = Markup('<use href="#rim"/>') if images else images
        return ring_chart(rig, *shares, float(weights.upper.max()), again if style else images)
    return plane_chart(rig, *shares)


def _rows(describer: Describer, weights: ViewWeights, n_styles: int) -> list[list[str]]:
    rig = describer.rig
    return [
        [str(v), *([f"{azimuth:.0f}°", f"{elevation:.0f}°"] if rig.is_known else ["unknown", "unknown"])]
        + [
            f"{weights.mean[s, v]:.2f} ({weights.lower[s, v]:.2f} to {weights.upper[s, v]:.2f})"
            for s in range(n_styles)
        ]
        for v, (azimuth, elevation) in enumerate(zip(rig.azimuths_deg, elevations_deg(rig), strict=True))
    ]


def pooling_text(describer: Describer) -> str:
    """How views are pooled into one vector."""
    adapter = describer.adapter
    if adapter is None:
        return f"{describer.config.pooling} of the views"
    n_classes = len(adapter.config.classes)
    return f"adapter {adapter.fingerprint}: {adapter.config.network.kind}, trained on {n_classes} classes"


def _example(data: ReportData, thumbnails: Thumbnails) -> tuple[str, list[Image.Image]]:
    """Id and views of the object whose views differ most among a few: all views of a bottle are alike."""
    few = np.linspace(0, len(data.ids) - 1, min(_N_EXAMPLES, len(data.ids))).astype(int)
    views = [(data.ids[i], thumbnails.views(int(data.objects.row_ids[i]))) for i in few]
    return max(views, key=lambda one: float(np.std([np.asarray(v) for v in one[1]], axis=0).mean()) if one[1] else -1.0)
