"""Ask a collection with a mesh, pictures, words, known objects, or a weighted mixture with minus terms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from mvrender.mesh import UpAxis
from mvrender.renderer import BackendName
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.confidence.estimator import outdated_notice
from mvretrieval.console import print_json, say, table
from mvretrieval.search.explain import view_label
from mvretrieval.search.hits import Hit, SearchResult
from mvretrieval.search.options import RerankOptions, SearchOptions
from mvretrieval.search.pipeline import search
from mvretrieval.search.query import Query, Term

_MATCHED = 100


def _read_count(texts: list[str]) -> int:
    if len(texts) > 1:
        raise ValueError(f"one number at most, not {' '.join(texts)}")
    return int(texts[0]) if texts else _MATCHED


# A flag that may have a number behind it.
_Count = tyro.constructors.PrimitiveConstructorSpec(
    nargs="*",
    metavar="[N]",
    instance_from_str=_read_count,
    is_instance=lambda value: isinstance(value, int),
    str_from_instance=lambda value: [str(value)],
)
_Files = Annotated[tuple[Path, ...], tyro.conf.UseAppendAction]
_Texts = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


@dataclass(frozen=True)
class Options:
    """Options of `mvr search`. Every source may be given several times.

    Attributes:
        collection: folder of the collection.
        mesh: mesh file to find the like of.
        image: photo, render or drawing; several are views of one object from unknown directions.
        text: words (needs an encoder with a text tower).
        id: object of the collection.
        minus_mesh: mesh that the answers should not be like.
        minus_image: picture that the answers should not be like.
        minus_text: words that should not describe the answers.
        minus_id: object that the answers should not be like.
        mesh_weight: share of meshes in a mixture.
        image_weight: share of pictures.
        text_weight: share of words.
        id_weight: share of known objects.
        minus_weight: how strongly minus terms push away.
        where: filter, such as "label = 'chair' and faces < 5000", applied before the search.
        k: how many answers at most.
        min_confidence: leave out answers that are less sure to be of the question's kind, as 0.5; needs 'mvr calibrate'.
        expand: average the question with so many nearest objects, and ask again; 0 for not at all.
        match_views: compare the best 100 answers, or N, with the question view by view, and rank them anew; 0 for none.
        match_weight: share of the views in the score of these answers; the rest is the cosine's.
        up: axis that is up in mesh files; each format's convention by default.
        background: auto makes a plain background of a picture white and crops to the object; keep leaves it.
        encoder: where the collection's encoder is now, if its checkpoint moved.
        backend: renderer for mesh files.
        device: cpu, cuda, or auto.
        json: one JSON line for each hit.
        html: also write a page with pictures of the question and the hits.
    """

    collection: tyro.conf.Positional[Path]
    mesh: _Files = ()
    image: _Files = ()
    text: _Texts = ()
    id: _Texts = ()
    minus_mesh: _Files = ()
    minus_image: _Files = ()
    minus_text: _Texts = ()
    minus_id: _Texts = ()
    mesh_weight: float = 1.0
    image_weight: float = 1.0
    text_weight: float = 1.0
    id_weight: float = 1.0
    minus_weight: float = 0.5
    where: str | None = None
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 10
    min_confidence: float | None = None
    expand: int = 0
    match_views: Annotated[int, _Count] = 0
    match_weight: float = RerankOptions.rerank_weight
    up: UpAxis | None = None
    background: Literal["auto", "keep"] = "auto"
    encoder: str | None = None
    backend: BackendName | None = None
    device: str = "auto"
    json: bool = False
    html: Path | None = None


def run(options: Options) -> int:
    """Search and print the hits."""
    query = _query(options)
    query.all_terms()  # an empty question needs no collection to be refused
    rerank = RerankOptions(expand=options.expand, rerank_views=options.match_views, rerank_weight=options.match_weight)
    search_options = SearchOptions(options.k, options.where, rerank, options.min_confidence)
    with Collection.open(options.collection, OpenOptions(options.device, backend=options.backend)) as collection:
        if options.encoder:
            collection.session.relocate_encoder(options.encoder)
        answer = search(collection.session, query, search_options)
        if options.mesh or options.minus_mesh:
            for notice in collection.session.notices():
                say(f"note: {notice}")
        if options.min_confidence is None and (notice := outdated_notice(collection.session)):
            say(f"note: hits carry no confidence: {notice}")
        if options.html is not None:
            _write_page(collection, options, answer)
    hits = answer.hits
    if options.json:
        for hit in hits:
            print_json(hit.to_json())
        if answer.no_match:
            say(answer.no_match)
    elif answer.no_match:
        print(answer.no_match)
    elif not hits:
        print("no hits" + (f" where {options.where}" if options.where else ": the collection is empty"))
    else:
        sure = hits[0].confidence is not None
        head = ["rank", "score", *(["sure"] if sure else []), "id", "best view", "labels"]
        print(table([_row(hit) for hit in hits], head))
    return 0


def _query(options: Options) -> Query:
    terms = [Term("mesh", path, options.mesh_weight) for path in options.mesh]
    if options.image:
        terms.append(Term("images", list(options.image), options.image_weight))
    terms += [Term("text", words, options.text_weight) for words in options.text]
    terms += [Term("id", object_id, options.id_weight) for object_id in options.id]
    minus = -abs(options.minus_weight)
    terms += [Term("mesh", path, minus) for path in options.minus_mesh]
    if options.minus_image:
        terms.append(Term("images", list(options.minus_image), minus))
    terms += [Term("text", words, minus) for words in options.minus_text]
    terms += [Term("id", object_id, minus) for object_id in options.minus_id]
    return Query(terms=terms, up=options.up, background=options.background)


def _row(hit: Hit) -> list[str]:
    view = f"{view_label(hit.best_view)} {hit.best_view['style']}"
    labels = ", ".join(f"{name}={value}" for name, value in hit.metadata.items())
    sure = [] if hit.confidence is None else [f"{hit.confidence:.0%}"]
    return [str(hit.rank), f"{hit.score:.4f}", *sure, hit.id, view, labels[:80]]


def _write_page(collection: Collection, options: Options, answer: SearchResult) -> None:
    from mvretrieval.search.page import result_row, write_page

    assert options.html is not None
    rows = [result_row(collection.session, answer)]
    write_page(options.html, f"Search in {options.collection.name}", rows)
    say(f"page: {options.html}")
