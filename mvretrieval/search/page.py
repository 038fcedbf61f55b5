"""An HTML page of results: queries on the left, hits on the right. One file without scripts that needs no network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup, escape
from PIL import Image

from mvretrieval.errors import QueryError
from mvretrieval.ingest.imported_objects import is_imported_path
from mvretrieval.search.encode import EncodedTerm
from mvretrieval.search.explain import view_label
from mvretrieval.search.hits import Hit, SearchResult
from mvretrieval.search.thumbnails import data_url, view_thumbnail
from mvretrieval.session.session import Session

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
  body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; color: #1c1f24; background: #f4f5f7; }
  h1 { font-size: 1.3rem; } p.lead { max-width: 60rem; color: #555; }
  .row { display: flex; gap: 1rem; align-items: flex-start; background: #fff; border-radius: 10px; padding: .8rem; margin: 0 0 1rem;
         box-shadow: 0 1px 3px #0002; }
  .query { flex: 0 0 148px; border-right: 3px solid #2f6fdb; padding-right: .8rem; }
  .hits { display: grid; flex: 1; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: .6rem; }
  figure { margin: 0; min-width: 0; } figure img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #fff; }
  .hits figure { border: 1px solid #e3e5e9; border-radius: 6px; padding: 3px; }
  .query figure { margin-bottom: .4rem; }
  figcaption { font-size: .78rem; overflow-wrap: anywhere; } .view { white-space: nowrap; }
  .score { font-variant-numeric: tabular-nums; font-weight: 600; } .confidence { color: #2f6fdb; } .view, .minus { color: #777; }
  .text { font-size: 1.05rem; padding: .5rem; background: #eef3fc; border-radius: 6px; margin-bottom: .4rem; }
  .minus figcaption::before, .text.minus::before { content: "minus "; font-weight: 600; }
  .note { margin: .4rem 0 0; font-size: .78rem; color: #555; }
  @media (max-width: 600px) {
    body { margin: .8rem; } .row { flex-direction: column; } .query { flex: none; border-right: 0; padding: 0; }
    .query figure { width: 148px; } .hits { width: 100%; grid-template-columns: repeat(auto-fill, minmax(84px, 1fr)); }
  }
</style></head><body>
<h1>{{ title }}</h1>{% if lead %}<p class="lead">{{ lead }}</p>{% endif %}
{% for row in rows %}<section class="row"><div class="query" aria-label="query">
{% for term in row.terms %}{% if term.image %}<figure{% if term.minus %} class="minus"{% endif %}>
<img src="{{ term.image }}" alt="{{ term.label }}"><figcaption>{{ term.label|breakable }}</figcaption></figure>
{% else %}<div class="text{% if term.minus %} minus{% endif %}">{{ term.label }}</div>{% endif %}{% endfor %}
{% if row.terms|length > 1 %}<p class="note">scores: weighted sum of z-scored cosines</p>{% endif %}</div>
<div class="hits" aria-label="hits">{% for hit in row.hits %}<figure title="{{ hit.title }}">
{% if hit.image %}<img src="{{ hit.image }}" alt="{{ hit.id }}">{% endif %}
<figcaption><span class="score">{{ hit.score }}</span>
{% if hit.confidence %}<span class="confidence">{{ hit.confidence }}</span>{% endif %}
{{ hit.id|breakable }} <span class="view">{{ hit.view }}</span></figcaption></figure>
{% else %}<p>{{ row.no_hits }}</p>{% endfor %}</div></section>
{% endfor %}</body></html>
"""


@dataclass(frozen=True)
class TermCell:
    """One term of a query: its image (a data URL) or its text."""

    label: str
    image: str | None
    minus: bool


@dataclass(frozen=True)
class HitCell:
    """One hit."""

    id: str
    title: str
    score: str
    view: str
    image: str | None
    confidence: str = ""


@dataclass(frozen=True)
class ResultRow:
    """A query and its hits, or a message where there are none."""

    terms: list[TermCell]
    hits: list[HitCell]
    no_hits: str = "No hits."


def breakable(text: str) -> Markup:
    """HTML of an id or name, with places to break the line after `/` and `_`."""
    return Markup(re.sub(r"([/_]+)", r"\1<wbr>", str(escape(text))))


def result_row(session: Session, result: SearchResult) -> ResultRow:
    """A result as a row of the page; the query view that is shown is the one that matched the first hit."""
    hits = result.hits
    query_view = hits[0].best_view.get("query_view", 0) if hits else 0
    return ResultRow(
        [_term_cell(session, term, query_view) for term in result.terms],
        [_hit_cell(session, hit) for hit in hits],
        result.no_match or ResultRow.no_hits,
    )


def write_page(path: Path, title: str, rows: Sequence[ResultRow], lead: str = "") -> None:
    """Write the page.

    Raises:
        QueryError: the file cannot be written.
    """
    environment = Environment(autoescape=True)
    environment.filters["breakable"] = breakable
    html = environment.from_string(_TEMPLATE).render(title=title, rows=rows, lead=lead)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise QueryError(f"the page cannot be written to {path}: {error.strerror}", code="page_not_written") from error


def _term_cell(session: Session, term: EncodedTerm, query_view: int) -> TermCell:
    image = None
    if term.images is not None:
        image = Image.fromarray(term.images[min(query_view, len(term.images) - 1)])
    elif term.row_id is not None:
        image = view_thumbnail(session, term.row_id, query_view)
    return TermCell(term.term.label, None if image is None else data_url(image), term.term.weight < 0)


def _hit_cell(session: Session, hit: Hit) -> HitCell:
    image = view_thumbnail(session, session.row_id_of(hit.id), hit.best_view["view"])
    labels = ", ".join(f"{name}: {value}" for name, value in hit.metadata.items())
    return HitCell(
        id=hit.id,
        title=f"{hit.id if is_imported_path(hit.path) else hit.path}\n{labels}",
        score=f"{hit.score:.3f}",
        view="" if is_imported_path(hit.path) else view_label(hit.best_view, session.describer.rig),
        image=None if image is None else data_url(image),
        confidence="" if hit.confidence is None else f"confidence {hit.confidence:.0%}",
    )
