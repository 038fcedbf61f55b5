"""Search a collection with a mesh, images, text, known objects, or a weighted mixture with negative terms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mvrender.cameras import Rig
from mvrender.mesh import UpAxis
from mvrender.renderer import BackendName, NamedBackend
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.confidence.estimator import outdated_notice
from mvretrieval.console import print_json, say, table
from mvretrieval.images import Background
from mvretrieval.index.kinds import IndexParameters
from mvretrieval.ingest.imported_objects import FORMAT as IMPORTED
from mvretrieval.search.explain import view_label
from mvretrieval.search.hits import Hit, SearchResult
from mvretrieval.search.options import RerankOptions, SearchOptions
from mvretrieval.search.pipeline import search
from mvretrieval.search.query import Query, Term

_RERANKED = 100


def _read_count(texts: list[str]) -> int:
    if len(texts) > 1:
        raise ValueError(f"at most one number, not {' '.join(texts)}")
    return int(texts[0]) if texts else _RERANKED


# A flag with an optional number.
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
    """Options of `mvr search`. Each kind of term may be repeated.

    Attributes:
        collection: folder of the collection.
        mesh: query mesh.
        image: query image: photo, render or sketch. Several images are views of one object from unknown directions.
        text: query text (needs an encoder with a text tower).
        id: object of the collection as a query.
        minus_mesh: negative mesh: hits should be unlike it.
        minus_image: negative image.
        minus_text: negative text.
        minus_id: negative object.
        mesh_weight: weight of meshes in a mixture.
        image_weight: weight of images.
        text_weight: weight of texts.
        id_weight: weight of known objects.
        minus_weight: weight of negative terms.
        where: filter, such as "label = 'chair' and faces < 5000", applied before the search.
        k: largest number of hits.
        min_confidence: drop hits with a lower confidence, such as 0.5. Needs 'mvr calibrate'.
        expand: alpha query expansion with this many nearest objects; 0 for none.
        rerank_views: re-rank the best N hits (100 without N) by late interaction, the symmetric best-view similarity (one
            direction only for photos); 0 for none.
        rerank_weight: weight of late interaction in the score of re-ranked hits; the rest is the cosine similarity.
        nprobe: number of inverted lists to search, of an index that has them (see 'mvr index --index help').
        ef_search: length of the candidate list in a graph index: longer finds more, and takes longer.
        up: axis that is up in mesh files. Default: the convention of each format.
        background: auto replaces a plain background of an image by white and crops to the object; keep leaves it.
        encoder: where the collection's encoder is now, if its checkpoint moved.
        backend: renderer for mesh files. Default: the best one available.
        device: cpu, cuda, or auto: where networks run and vectors are searched.
        json: print one JSON object per hit, one per line.
        html: also write a page with images of the query and the hits.
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
    rerank_views: Annotated[int, _Count] = 0
    rerank_weight: float = RerankOptions.rerank_weight
    nprobe: int | None = None
    ef_search: int | None = None
    up: UpAxis | None = None
    background: Background = "auto"
    encoder: str | None = None
    backend: NamedBackend | BackendName | None = None
    device: str = "auto"
    json: bool = False
    html: Path | None = None


def run(options: Options) -> int:
    """Search and print the hits."""
    query = _query(options)
    query.all_terms()  # refuses an empty query before the collection is opened
    rerank = RerankOptions(
        expand=options.expand, rerank_views=options.rerank_views, rerank_weight=options.rerank_weight
    )
    index = IndexParameters(options.nprobe, options.ef_search)
    search_options = SearchOptions(options.k, options.where, rerank, options.min_confidence, index)
    with Collection.open(options.collection, OpenOptions(options.device, backend=options.backend)) as collection:
        session = collection.session
        if options.encoder:
            session.relocate_encoder(options.encoder)
        result = search(session, query, search_options)
        # Those of the encoder would load it, which a search by id does without.
        for notice in session.notices() if options.mesh or options.minus_mesh else session.index.notices():
            say(f"note: {notice}")
        if options.min_confidence is None and (notice := outdated_notice(session)):
            say(f"note: hits have no confidence: {notice}")
        if options.html is not None:
            _write_page(collection, options, result)
        rig = session.describer.rig
    _print(options, result, rig)
    return 0


def _query(options: Options) -> Query:
    terms = [Term("mesh", path, options.mesh_weight) for path in options.mesh]
    if options.image:
        terms.append(Term("images", list(options.image), options.image_weight))
    terms += [Term("text", text, options.text_weight) for text in options.text]
    terms += [Term("id", object_id, options.id_weight) for object_id in options.id]
    minus = -abs(options.minus_weight)
    terms += [Term("mesh", path, minus) for path in options.minus_mesh]
    if options.minus_image:
        terms.append(Term("images", list(options.minus_image), minus))
    terms += [Term("text", text, minus) for text in options.minus_text]
    terms += [Term("id", object_id, minus) for object_id in options.minus_id]
    return Query(terms=terms, up=options.up, background=options.background)


def _print(options: Options, result: SearchResult, rig: Rig) -> None:
    hits = result.hits
    if options.json:
        for hit in hits:
            print_json(hit.to_json())
        if result.no_match:
            say(result.no_match)
    elif result.no_match:
        print(result.no_match)
    elif not hits:
        print("no hits" + (f" where {options.where}" if options.where else ": the collection is empty"))
    else:
        confidence = ["confidence"] if hits[0].confidence is not None else []
        print(table([_row(hit, rig) for hit in hits], ["rank", "score", *confidence, "id", "best view", "labels"]))
        if len(result.terms) > 1:
            say("note: the score of a mixture is the weighted sum of z-scored cosines, see docs/search.md")


def _row(hit: Hit, rig: Rig) -> list[str]:
    view = "-" if hit.facts["format"] == IMPORTED else f"{view_label(hit.best_view, rig)} {hit.best_view['style']}"
    labels = ", ".join(f"{name}={value}" for name, value in hit.metadata.items())
    confidence = [] if hit.confidence is None else [f"{hit.confidence:.0%}"]
    return [str(hit.rank), f"{hit.score:.4f}", *confidence, hit.id, view, labels[:80]]


def _write_page(collection: Collection, options: Options, result: SearchResult) -> None:
    from mvretrieval.search.page import result_row, write_page

    assert options.html is not None
    write_page(options.html, f"Search in {options.collection.name}", [result_row(collection.session, result)])
    say(f"page: {options.html}")
