"""The report's drawn sections: the map of the collection, and what each view weighs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from mvretrieval.evaluation.report.charts import (
    elevations_deg,
    is_ring,
    map_chart,
    marker,
    on_map,
    plane_chart,
    rim,
    ring_chart,
)
from mvretrieval.evaluation.report.map2d import MAP_LIMIT, evenly, groups_of, place
from mvretrieval.evaluation.report.thumbnails import Thumbnails, address

if TYPE_CHECKING:
    from mvretrieval.evaluation.report.report import Findings

_TILE = 88


def map_section(found: Findings, thumbnails: Thumbnails) -> dict[str, Any]:
    """Map of at least one object, its legend, and what the page's script knows of each point."""
    chosen = evenly(found.task.codes)
    codes = found.task.codes[chosen]
    counts = Counter(codes.tolist())
    shown = [code for code in range(len(found.names)) if counts[code]]
    class_groups, group_names = groups_of([found.names[code] for code in shown], [counts[code] for code in shown])
    group_of = dict(zip(shown, class_groups, strict=True)) | {-1: -1}
    groups = [group_of[code] for code in codes.tolist()]
    pixels = on_map(place(found.vectors[chosen]))
    atlas, columns = thumbnails.atlas([int(n) for n in found.row_ids[chosen]], _TILE)
    sizes = Counter(groups)
    legend = [{"group": g, "name": name, "n": sizes[g], "marker": marker(g)} for g, name in enumerate(group_names)]
    if sizes[-1]:
        rest = [name for name, there in (("other classes", -1 in class_groups), ("no label", counts[-1] > 0)) if there]
        legend.append({"group": -1, "name": ", ".join(rest), "n": sizes[-1], "marker": marker(-1)})
    method = (
        "PCA, then t-SNE: near means alike, far apart means little." if len(chosen) >= 6 else "PCA: near means alike."
    )
    if len(chosen) < len(found.row_ids):
        method = (
            f"{len(chosen)} of {len(found.row_ids)} objects (at most {MAP_LIMIT}, each class with its share). {method}"
        )
    return {
        "chart": map_chart(pixels, groups, len(group_names)),
        "method": method,
        "atlas": atlas,
        "legend": legend,
        "options": sorted(
            ((code, found.names[code], counts[code]) for code in shown), key=lambda option: option[1].lower()
        ),
        "data": {
            "places": pixels.tolist(),
            "ids": [found.ids[i] for i in chosen],
            "classes": codes.tolist(),
            "groups": groups,
            "names": found.names,
            "columns": columns,
            "tile": _TILE,
        },
    }


def weights_section(found: Findings, thumbnails: Thumbnails) -> dict[str, Any] | None:
    """Charts of the view weights and how to read them; None without objects."""
    weights = found.weights
    if weights is None:
        return None
    describer = found.collection.describer
    rig, config = describer.rig, describer.config
    styles = list(config.styles)
    if weights.uniform:
        share = f"1/{rig.n_views} of an object that shows in all {rig.n_views}"
        statement = f"Every view weighs the same: {share} ({pooling_text(found)})."
        styles = styles[:1]  # the others would be the same picture
    else:
        what = "learnt weights" if describer.adapter is not None else "a view weighs its share of the largest values"
        low, high = weights.mean[weights.mean > 0].min(), weights.mean.max()
        statement = f"Means of {low:.2f} to {high:.2f} times a fair share over {weights.n} objects ({pooling_text(found)}: {what})."
    pictures = Markup("")
    if is_ring(rig):
        example, views = _example(found, thumbnails)
        pictures = rim(rig, [address(view.resize((80, 80))) for view in views])
        reading = (
            "Seen from above, 0° in front (+Z) and 90° at +X. A sector is as long as its view is heavy; the dashed circle is a "
            "fair share (1 / number of views), the line in a sector spans the tenth to the ninetieth percentile of the objects."
        )
        if pictures:
            reading += f" Pictures: the views of {example}."
    else:
        reading = (
            "A disc for each camera: its area is the mean weight, the dashed circle a fair share (1 / number of views), the faint "
            "disc the ninetieth percentile of the objects. The number is the mean in fair shares. Azimuth 0° is in front (+Z), 90° "
            "at +X; elevation 90° looks straight down."
        )
    if not rig.is_known:
        reading = "Nobody knows from where the pictures were taken: the table has them in their order."
    charts = []
    for s, style in enumerate(styles):
        shares = weights.mean[s], weights.lower[s], weights.upper[s]
        if not rig.is_known:
            svg = Markup("")
        elif is_ring(rig):
            again = Markup('<use href="#rim"/>') if pictures else pictures
            svg = ring_chart(rig, *shares, float(weights.upper.max()), again if s else pictures)
        else:
            svg = plane_chart(rig, *shares)
        charts.append({"svg": svg, "title": ", ".join(config.styles) if weights.uniform else style})
    rows = [
        [str(v), *([f"{azimuth:.0f}°", f"{elevation:.0f}°"] if rig.is_known else ["unknown", "unknown"])]
        + [
            f"{weights.mean[s, v]:.2f} ({weights.lower[s, v]:.2f} to {weights.upper[s, v]:.2f})"
            for s in range(len(styles))
        ]
        for v, (azimuth, elevation) in enumerate(zip(rig.azimuths_deg, elevations_deg(rig), strict=True))
    ]
    return {"statement": statement, "reading": reading, "charts": charts, "rows": rows}


def pooling_text(found: Findings) -> str:
    """How views become one vector, in words."""
    adapter = found.collection.describer.adapter
    if adapter is None:
        return f"{found.collection.describer.config.pooling} of the views"
    n_classes = len(adapter.config.classes)
    return f"adapter {adapter.fingerprint}: {adapter.config.network.kind}, trained on {n_classes} classes"


def _example(found: Findings, thumbnails: Thumbnails) -> tuple[str, list[Image.Image]]:
    """Id and views of an object, the one of a few that differs most from side to side: a bottle would tell nothing."""
    few = np.linspace(0, len(found.row_ids) - 1, min(24, len(found.row_ids))).astype(int)
    seen = [(found.ids[i], thumbnails.views(int(found.row_ids[i]))) for i in few]
    return max(seen, key=lambda one: float(np.std([np.asarray(v) for v in one[1]], axis=0).mean()) if one[1] else -1.0)
