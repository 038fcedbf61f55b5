"""The map section of a report: a 2-D embedding of the collection with a legend."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mvretrieval.evaluation.report.charts import map_chart, marker, on_map
from mvretrieval.evaluation.report.data import ReportData
from mvretrieval.evaluation.report.map2d import MAP_LIMIT, evenly, groups_of, place
from mvretrieval.evaluation.report.thumbnails import Thumbnails

_TILE = 88


def map_section(data: ReportData, thumbnails: Thumbnails) -> dict[str, Any]:
    """Return the map of at least one object, its legend, and the data for the page's script."""
    chosen = evenly(data.task.class_ids)
    class_ids = data.task.class_ids[chosen]
    counts = Counter(class_ids.tolist())
    shown = [one for one in range(len(data.class_names)) if counts[one]]
    class_groups, group_names = groups_of([data.class_names[one] for one in shown], [counts[one] for one in shown])
    group_of = dict(zip(shown, class_groups, strict=True)) | {-1: -1}
    groups = [group_of[one] for one in class_ids.tolist()]
    pixels = on_map(place(data.objects.vectors[chosen]))
    atlas, columns = thumbnails.atlas([int(n) for n in data.objects.row_ids[chosen]], _TILE)
    options = ((one, data.class_names[one], counts[one]) for one in shown)
    return {
        "chart": map_chart(pixels, groups, len(group_names)),
        "method": _method(len(chosen), len(data.ids)),
        "atlas": atlas,
        "legend": _legend(groups, group_names, -1 in class_groups, counts[-1] > 0),
        "options": sorted(options, key=lambda option: option[1].lower()),
        "data": {
            "positions": pixels.tolist(),
            "ids": [data.ids[i] for i in chosen],
            "classes": class_ids.tolist(),
            "groups": groups,
            "names": data.class_names,
            "columns": columns,
            "tile": _TILE,
        },
    }


def _legend(groups: list[int], group_names: list[str], has_others: bool, has_unlabeled: bool) -> list[dict[str, Any]]:
    sizes = Counter(groups)
    legend = [{"group": g, "name": name, "n": sizes[g], "marker": marker(g)} for g, name in enumerate(group_names)]
    if sizes[-1]:
        rest = [name for name, exists in (("other classes", has_others), ("no label", has_unlabeled)) if exists]
        legend.append({"group": -1, "name": ", ".join(rest), "n": sizes[-1], "marker": marker(-1)})
    return legend


def _method(n_shown: int, n: int) -> str:
    method = "PCA, then t-SNE: near points are similar, large distances mean little."
    if n_shown < 6:
        method = "PCA: near points are similar."
    sample = (
        f"{n_shown} of {n} objects (at most {MAP_LIMIT}, sampled in proportion to class size). " if n_shown < n else ""
    )
    return sample + method
