"""The report's page: findings as cells, and the template that lays them out."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from mvretrieval.evaluation.report.breakdown import RECALL_LEVELS, best_and_worst, standard_errors
from mvretrieval.evaluation.report.charts import curve_chart
from mvretrieval.evaluation.report.drawings import map_section, pooling_text, weights_section
from mvretrieval.evaluation.report.thumbnails import Thumbnails, address

if TYPE_CHECKING:
    from mvretrieval.evaluation.report.report import Findings

_N_WORST, _N_BEST = 6, 4
_CLASS_METRICS = ("NN", "FT", "mAP", "NDCG@100", "ANMRR")
_MEANINGS = {
    "NN": "first hits of the right class",
    "FT": "of the class found among the first R",
    "ST": "of the class found among the first 2 R",
    "DCG": "discounted gain, 100 is a perfect order",
    "mAP": "mean average precision",
    "NDCG@100": "discounted gain of the first 100",
    "recall@10": "of the class found among the first 10",
    "recall@100": "of the class found among the first 100",
    "ANMRR": "normalised rank, 0 is perfect",
}
# The open-set benchmarks use two of the textbook's names for other things (see `os3dor`).
_BENCHMARK_MEANINGS = {
    "mAP": "interpolated, mean over queries",
    "NDCG@100": "of 100 relevant items, few classes have them",
}
_KNOWN_FIELDS = ("encoder", "rig", "styles", "size", "pooling", "center", "whiten", "adapter")


@dataclass(frozen=True)
class HitCell:
    """One answer."""

    id: str
    label: str
    score: str
    right: bool
    picture: str | None


@dataclass(frozen=True)
class QueryRow:
    """A query and its first answers."""

    id: str
    label: str
    figure: str
    picture: str | None
    hits: list[HitCell]


def render_page(found: Findings) -> str:
    """The page as HTML."""
    folder = files("mvretrieval.evaluation.report")
    thumbnails = Thumbnails(found.collection)
    best, worst = _queries(found, thumbnails)
    n_queries = len(found.evaluation.queries)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"breakable": _breakable, "counted": _counted}
    return environment.from_string((folder / "report.html").read_text("utf-8")).render(
        name=found.collection.folder.resolve().name,
        lead=_lead(found),
        style=Markup((folder / "report.css").read_text("utf-8")),
        script=Markup((folder / "report.js").read_text("utf-8")),
        tiles=_tiles(found.evaluation.means(), standard_errors(found.evaluation)) if n_queries else [],
        n_objects=len(found.row_ids),
        n_labelled=int((found.task.codes >= 0).sum()),
        n_queries=n_queries,
        n_levels=len(RECALL_LEVELS),
        curve=found.curve
        and {"chart": curve_chart(found.curve), "chance": found.curve.chance, "spread": found.curve.lower is not None},
        facts=_facts(found),
        map=map_section(found, thumbnails) if len(found.row_ids) else None,
        classes=found.classes,
        seen=found.seen,
        class_metrics=[name for name in _CLASS_METRICS if name in found.evaluation.values][:3],
        confusions=_confusions(found, thumbnails),
        n_pairs=len(found.confusions),
        n_wrong=sum(confusion.count for confusion in found.confusions),
        best=best,
        worst=worst,
        weights=weights_section(found, thumbnails),
        made=found.made.replace("T", " "),
        versions=", ".join(f"{name} {version}" for name, version in found.versions.items()),
    )


def _breakable(text: str) -> Markup:
    """Text that may be broken into lines where ids and class names have their joints."""
    return Markup(re.sub(r"([/_]+)", r"\1<wbr>", str(escape(text))))


def _counted(n: int, name: str) -> str:
    """`1 class`, `2 classes`."""
    return f"{n} {name}" + ("" if n == 1 else "es" if name.endswith("s") else "s")


def _lead(found: Findings) -> str:
    n_queries, n = len(found.evaluation.queries), len(found.row_ids)
    n_gallery = len(found.task.gallery)
    among = "all others" if n_gallery == n else f"{n_gallery} that do not ask"
    parts = [f"{_counted(n, 'object')}."]
    if n_queries:
        asked = f"{n_queries} of {_counted(n, 'object')}, {_counted(len(found.classes), 'class')}"
        parts = [f"{asked}: each asks for its like, by {found.label_name}, among {among}."]
    if found.scope:
        parts.append(f"Scope: {found.scope}.")
    unlabelled = int((found.task.codes < 0).sum())
    if unlabelled:
        parts.append(f"{unlabelled} without a label are not asked, but stand in the way.")
    if found.evaluation.skipped:
        parts.append(f"{found.evaluation.skipped} alone in their class are not asked.")
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


def _facts(found: Findings) -> list[tuple[str, str]]:
    describer, store = found.collection.describer, found.collection.store
    config, whitening = describer.config, describer.whitening
    adapted = "as the encoder gives them"
    if whitening is not None:
        wanted = f"whitened to {whitening.dim} dimensions" if whitening.transform is not None else "centred"
        adapted = f"{wanted}, fitted on {whitening.n_views} views"
    facts = [
        ("encoder", f"{config.encoder} ({store.get_meta('precision')})"),
        ("rig", f"{describer.rig.short_name}: {describer.rig.n_views} views"),
        ("styles", ", ".join(config.styles)),
        ("pictures", f"{config.size} px, {store.get_meta('backend')}"),
        ("view vectors", adapted),
        ("pooling", pooling_text(found)),
        ("dimensions", str(found.vectors.shape[1]) if found.vectors.ndim == 2 and len(found.vectors) else "none"),
        ("objects", f"{len(found.row_ids)} of {len(found.collection)} in the collection"),
        ("label", found.label_name),
        ("metrics", "as the open-set benchmarks code them" if "ANMRR" in found.evaluation.values else "textbook"),
        ("± in figures", "standard error of the mean over the queries"),
    ]
    more = [
        (name.replace("_", " "), str(value))
        for name, value in asdict(config).items()
        if name not in _KNOWN_FIELDS and value
    ]
    return facts[:6] + more + facts[6:]


def _queries(found: Findings, thumbnails: Thumbnails) -> tuple[list[QueryRow], list[QueryRow]]:
    evaluation, answers = found.evaluation, found.answers
    if not len(evaluation.queries) or "mAP" not in evaluation.values:
        return [], []
    values = evaluation.values["mAP"]
    query_codes = found.task.codes[evaluation.queries]
    best, worst = best_and_worst(values, query_codes, answers.n_relevant, _N_BEST, _N_WORST)

    def row(position: int) -> QueryRow:
        query = int(evaluation.queries[position])
        hits = [
            HitCell(
                id=found.ids[hit],
                label=_label(found, hit),
                score=f"{score:.3f}",
                right=bool(found.task.codes[hit] == found.task.codes[query]),
                picture=address(thumbnails.picture(int(found.row_ids[hit]))),
            )
            for hit, score in zip(answers.first[position].tolist(), answers.scores[position].tolist(), strict=True)
        ]
        figure = f"AP {100 * values[position]:.1f} %, R = {answers.n_relevant[position]}"
        picture = address(thumbnails.picture(int(found.row_ids[query])))
        return QueryRow(found.ids[query], _label(found, query), figure, picture, hits)

    return [row(p) for p in best], [row(p) for p in worst]


def _confusions(found: Findings, thumbnails: Thumbnails) -> list[dict[str, Any]]:
    shown = min(11, max(6, len(found.classes) // 2))  # about as high as the table of classes beside them
    return [
        {
            "asked": c.asked,
            "found": c.found if c.found is not None else "an object without a label",
            "count": c.count,
            "n": c.n,
            "score": c.score,
            "query": found.ids[c.query],
            "hit": found.ids[c.hit],
            "query_picture": address(thumbnails.picture(int(found.row_ids[c.query]))),
            "hit_picture": address(thumbnails.picture(int(found.row_ids[c.hit]))),
        }
        for c in found.confusions[:shown]
    ]


def _label(found: Findings, index: int) -> str:
    code = int(found.task.codes[index])
    return found.names[code] if code >= 0 else "no label"
