"""The page of a report: content as template values, and the template that lays them out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mvretrieval.evaluation.report.charts import curve_chart
from mvretrieval.evaluation.report.data import ReportData
from mvretrieval.evaluation.report.map_section import map_section
from mvretrieval.evaluation.report.results import RECALL_LEVELS, best_and_worst, standard_errors
from mvretrieval.evaluation.report.thumbnails import Thumbnails, data_uri
from mvretrieval.evaluation.report.weights_section import pooling_text, weights_section
from mvretrieval.search.page import breakable

_N_WORST, _N_BEST = 6, 4
_CLASS_METRICS = ("NN", "FT", "mAP", "NDCG@100", "ANMRR")
_MEANINGS = {
    "NN": "first hit is relevant",
    "FT": "recall of the first R hits; R: number of relevant objects",
    "ST": "recall of the first 2R hits",
    "DCG": "discounted cumulative gain over the whole ranking, divided by the ideal one",
    "mAP": "mean average precision",
    "NDCG@100": "normalized DCG of the first 100",
    "recall@10": "recall of the first 10",
    "recall@100": "recall of the first 100",
    "ANMRR": "normalized retrieval rank, 0 is best",
}
# The open-set benchmarks define two of the textbook's names differently (see `os3dor`).
_BENCHMARK_MEANINGS = {
    "mAP": "interpolated, mean over queries",
    "NDCG@100": "ideal of 100 relevant items",
}
_KNOWN_FIELDS = ("encoder", "rig", "styles", "size", "pooling", "center", "whiten", "adapter")


@dataclass(frozen=True)
class ReportHit:
    """One hit of a query."""

    id: str
    label: str
    score: str
    relevant: bool
    image: str | None


@dataclass(frozen=True)
class ReportQuery:
    """A query and its first hits."""

    id: str
    label: str
    metric: str
    image: str | None
    hits: list[ReportHit]


def render_page(data: ReportData) -> str:
    """Render the page as HTML."""
    folder = files("mvretrieval.evaluation.report")
    thumbnails = Thumbnails(data.session)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"breakable": breakable, "counted": _counted}
    return environment.from_string((folder / "report.html").read_text("utf-8")).render(
        style=Markup((folder / "report.css").read_text("utf-8")),
        script=Markup((folder / "report.js").read_text("utf-8")),
        **_overview(data),
        **_classes(data, thumbnails),
        **_queries(data, thumbnails),
        map=map_section(data, thumbnails) if len(data.ids) else None,
        weights=weights_section(data, thumbnails),
    )


def _overview(data: ReportData) -> dict[str, Any]:
    evaluation, curve = data.evaluation, data.curve
    n_queries = len(evaluation.queries)
    return {
        "name": data.session.folder.resolve().name,
        "lead": _lead(data),
        "tiles": _tiles(evaluation.means(), standard_errors(evaluation)) if n_queries else [],
        "n_objects": len(data.ids),
        "n_labeled": int((data.task.class_ids >= 0).sum()),
        "n_queries": n_queries,
        "n_levels": len(RECALL_LEVELS),
        "curve": curve and {"chart": curve_chart(curve), "chance": curve.chance, "spread": curve.lower is not None},
        "facts": _facts(data),
        "created": data.created.replace("T", " "),
        "versions": ", ".join(f"{name} {version}" for name, version in data.versions.items()),
    }


def _classes(data: ReportData, thumbnails: Thumbnails) -> dict[str, Any]:
    return {
        "classes": data.classes,
        "seen": data.seen,
        "class_metrics": [name for name in _CLASS_METRICS if name in data.evaluation.values][:3],
        "confusions": _confusions(data, thumbnails),
        "n_pairs": len(data.confusions),
        "n_wrong": sum(confusion.count for confusion in data.confusions),
    }


def _counted(n: int, name: str) -> str:
    """`1 class`, `2 classes`."""
    return f"{n} {name}" + ("" if n == 1 else "es" if name.endswith("s") else "s")


def _lead(data: ReportData) -> str:
    n_queries, n, n_gallery = len(data.evaluation.queries), len(data.ids), len(data.task.gallery)
    parts = [f"{_counted(n, 'object')}."]
    if n_queries:
        gallery = "all other objects" if n_gallery == n else f"the {n_gallery} objects that are not queries"
        parts = [
            f"{_counted(n, 'object')}, {n_queries} of them queries, of {_counted(len(data.classes), 'class')} by "
            f"{data.objects.by}. The gallery of a query is {gallery}."
        ]
    if data.objects.scope:
        parts.append(f"Scope: {data.objects.scope}.")
    unlabeled = int((data.task.class_ids < 0).sum())
    if unlabeled:
        parts.append(f"{unlabeled} without a label: in the gallery, never relevant.")
    if data.evaluation.skipped:
        parts.append(f"{_counted(data.evaluation.skipped, 'object')} without a relevant object: no query.")
    return " ".join(parts)


def _tiles(means: dict[str, float], errors: dict[str, float]) -> list[dict[str, str]]:
    meanings = _MEANINGS | (_BENCHMARK_MEANINGS if "ANMRR" in means else {})
    return [
        {
            "name": name,
            "value": f"{100 * mean:.1f}",
            "error": f"± {100 * errors[name]:.1f} %" if np.isfinite(errors[name]) else "%",
            "meaning": meanings.get(name, ""),
        }
        for name, mean in means.items()
    ]


def _facts(data: ReportData) -> list[tuple[str, str]]:
    describer, store, vectors = data.session.describer, data.session.store, data.objects.vectors
    config, whitening = describer.config, describer.whitening
    transform = "raw encoder output"
    if whitening is not None:
        kind = f"whitened to {whitening.dim} dimensions" if whitening.transform is not None else "centred"
        transform = f"{kind}, fitted on {whitening.n_views} views"
    facts = [
        ("encoder", f"{config.encoder} ({store.get_meta('precision')})"),
        *(_view_facts(data) if config.has_encoder else [("views", "none, all vectors were imported")]),
        ("view vectors", transform),
        ("pooling", pooling_text(describer)),
        ("dimensions", str(vectors.shape[1]) if vectors.ndim == 2 and len(vectors) else "none"),
        ("objects", f"{len(data.ids)} of {len(data.session)} in the collection"),
        ("label", data.objects.by),
        ("metrics", "as in the open-set benchmarks" if "ANMRR" in data.evaluation.values else "textbook"),
        ("±", "standard error of the mean over the queries"),
    ]
    more = [
        (name.replace("_", " "), str(value))
        for name, value in asdict(config).items()
        if name not in _KNOWN_FIELDS and value
    ]
    at = [name for name, _ in facts].index("dimensions")
    return facts[:at] + more + facts[at:]


def _view_facts(data: ReportData) -> list[tuple[str, str]]:
    describer = data.session.describer
    rig, config = describer.rig, describer.config
    return [
        ("rig", f"{rig.short_name}: {rig.n_views} views"),
        ("styles", ", ".join(config.styles)),
        ("images", f"{config.size} px, {data.session.store.get_meta('backend')}"),
    ]


def _queries(data: ReportData, thumbnails: Thumbnails) -> dict[str, list[ReportQuery]]:
    """The best and the worst queries by average precision."""
    evaluation, results = data.evaluation, data.results
    if not len(evaluation.queries) or "mAP" not in evaluation.values:
        return {"best": [], "worst": []}
    values = evaluation.values["mAP"]
    query_class_ids = data.task.class_ids[evaluation.queries]
    best, worst = best_and_worst(values, query_class_ids, results.n_relevant, _N_BEST, _N_WORST)
    return {
        "best": [_query(data, thumbnails, position) for position in best],
        "worst": [_query(data, thumbnails, position) for position in worst],
    }


def _query(data: ReportData, thumbnails: Thumbnails, position: int) -> ReportQuery:
    results, class_ids, row_ids = data.results, data.task.class_ids, data.objects.row_ids
    query = int(data.evaluation.queries[position])
    hits = [
        ReportHit(
            id=data.ids[hit],
            label=data.label_of(hit),
            score=f"{score:.3f}",
            relevant=bool(class_ids[hit] == class_ids[query]),
            image=data_uri(thumbnails.image(int(row_ids[hit]))),
        )
        for hit, score in zip(results.first[position].tolist(), results.scores[position].tolist(), strict=True)
    ]
    precision = data.evaluation.values["mAP"][position]
    metric = f"AP {100 * precision:.1f} %, R = {results.n_relevant[position]}"
    image = data_uri(thumbnails.image(int(row_ids[query])))
    return ReportQuery(data.ids[query], data.label_of(query), metric, image, hits)


def _confusions(data: ReportData, thumbnails: Thumbnails) -> list[dict[str, Any]]:
    shown = min(11, max(6, len(data.classes) // 2))  # about the height of the table of classes beside them
    row_ids = data.objects.row_ids
    return [
        {
            "query_class": c.query_class,
            "hit_class": c.hit_class if c.hit_class is not None else "no label",
            "count": c.count,
            "n": c.n,
            "score": c.score,
            "query": data.ids[c.query],
            "hit": data.ids[c.hit],
            "query_image": data_uri(thumbnails.image(int(row_ids[c.query]))),
            "hit_image": data_uri(thumbnails.image(int(row_ids[c.hit]))),
        }
        for c in data.confusions[:shown]
    ]
