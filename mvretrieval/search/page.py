"""A page of pictures: questions on the left, what was found on the right. One file, no network, no script."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment
from PIL import Image

from mvretrieval.errors import QueryError
from mvretrieval.search.explain import place_of

if TYPE_CHECKING:
    from mvretrieval.api import Collection
    from mvretrieval.search.pipeline import Hit
    from mvretrieval.search.query import Source

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
  figcaption { font-size: .78rem; overflow-wrap: anywhere; }
  .score { font-variant-numeric: tabular-nums; font-weight: 600; } .sure { color: #2f6fdb; } .view, .minus { color: #777; }
  .words { font-size: 1.05rem; padding: .5rem; background: #eef3fc; border-radius: 6px; margin-bottom: .4rem; }
  .minus { text-decoration: line-through; }
</style></head><body>
<h1>{{ title }}</h1>{% if lead %}<p class="lead">{{ lead }}</p>{% endif %}
{% for row in rows %}<section class="row"><div class="query" aria-label="question">
{% for source in row.sources %}{% if source.picture %}<figure{% if source.minus %} class="minus"{% endif %}>
<img src="{{ source.picture }}" alt="{{ source.label }}"><figcaption>{{ source.label }}</figcaption></figure>
{% else %}<div class="words{% if source.minus %} minus{% endif %}">{{ source.label }}</div>{% endif %}{% endfor %}</div>
<div class="hits" aria-label="answers">{% for hit in row.hits %}<figure title="{{ hit.title }}">
{% if hit.picture %}<img src="{{ hit.picture }}" alt="{{ hit.id }}">{% endif %}
<figcaption><span class="score">{{ hit.score }}</span>
{% if hit.sure %}<span class="sure">{{ hit.sure }}</span>{% endif %}
{{ hit.id }} <span class="view">{{ hit.view }}</span></figcaption></figure>
{% else %}<p>{{ row.nothing }}</p>{% endfor %}</div></section>
{% endfor %}</body></html>
"""


@dataclass(frozen=True)
class SourceCell:
    """One source of a question: its picture (a data address) or its words."""

    label: str
    picture: str | None
    minus: bool


@dataclass(frozen=True)
class HitCell:
    """One answer."""

    id: str
    title: str
    score: str
    view: str
    picture: str | None
    sure: str = ""


@dataclass(frozen=True)
class Row:
    """A question and its answers, or what is said where there are none."""

    sources: list[SourceCell]
    hits: list[HitCell]
    nothing: str = "Nothing found."


def row_of(collection: Collection, sources: Sequence[Source], hits: Sequence[Hit], nothing: str = Row.nothing) -> Row:
    """A question and its answers as a row of the page; the query view shown is the one that matched the first hit."""
    query_view = hits[0].best_view.get("query_view", 0) if hits else 0
    return Row(
        [_source_cell(collection, source, query_view) for source in sources],
        [_hit_cell(collection, hit) for hit in hits],
        nothing,
    )


def write_page(path: Path, title: str, rows: Sequence[Row], lead: str = "") -> None:
    """Write the page.

    Raises:
        QueryError: the file cannot be written.
    """
    html = Environment(autoescape=True).from_string(_TEMPLATE).render(title=title, rows=rows, lead=lead)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise QueryError(f"the page cannot be written to {path}: {error.strerror}") from error


def view_picture(collection: Collection, row_id: int, view: int) -> Image.Image | None:
    """Thumbnail of one view of an object."""
    strip = collection.store.strip_of(row_id)
    if strip is None:
        return None
    with Image.open(io.BytesIO(strip)) as opened:
        picture = opened.convert("RGB")
    side = picture.height
    return picture.crop((view * side, 0, (view + 1) * side, side))


def _source_cell(collection: Collection, source: Source, query_view: int) -> SourceCell:
    picture = None
    if source.pictures is not None:
        picture = Image.fromarray(source.pictures[min(query_view, len(source.pictures) - 1)])
    elif source.row_id is not None:
        picture = view_picture(collection, source.row_id, query_view)
    return SourceCell(source.term.label, None if picture is None else data_address(picture), source.term.weight < 0)


def _hit_cell(collection: Collection, hit: Hit) -> HitCell:
    row_id = collection.row_id_of(hit.id)
    picture = view_picture(collection, row_id, hit.best_view["view"])
    labels = ", ".join(f"{name}: {value}" for name, value in hit.metadata.items())
    view = place_of(hit.best_view)
    sure = "" if hit.confidence is None else f"{hit.confidence:.0%} sure"
    address = None if picture is None else data_address(picture)
    return HitCell(hit.id, f"{hit.path}\n{labels}", f"{hit.score:.3f}", view, address, sure)


def data_address(picture: Image.Image) -> str:
    """A picture as an address that holds it, as WebP."""
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()
