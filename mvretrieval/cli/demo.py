"""Make a collection of made-up objects (or of your own) and a page of searches: question left, answers right."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mvrender.backends.selection import choose_backend
from mvrender.renderer import BackendName
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.console import progress, say
from mvretrieval.describe import DescriberConfig
from mvretrieval.evaluation.metrics import leave_one_out
from mvretrieval.ingest.index_report import IndexOptions
from mvretrieval.procedural_shapes import PER_CLASS, write_objects
from mvretrieval.search.options import SearchOptions
from mvretrieval.search.page import ResultRow, result_row, write_page
from mvretrieval.search.pipeline import search
from mvretrieval.search.query import Query, Term
from mvretrieval.search.thumbnails import view_thumbnail
from mvretrieval.store.schema import FILE


@dataclass(frozen=True)
class Options:
    """Options of `mvr demo`.

    Attributes:
        out: folder for the objects, the collection and the page.
        meshes: folder of your own meshes instead of made-up ones.
        encoder: what turns views into vectors; `builtin:` needs no weights and no network.
        backend: renderer.
        k: answers for each question.
    """

    out: Path = Path("demo")
    meshes: Path | None = None
    encoder: str = "builtin:"
    backend: BackendName | None = None
    k: int = 8


def run(options: Options) -> int:
    """Make it all and tell where to look."""
    started = time.monotonic()
    if options.meshes is None:
        folder = options.out / "objects"
        say(f"{write_objects(folder)} objects of {PER_CLASS} a kind in {folder}")
        labels: Path | None = folder / "labels.csv"
    else:
        folder, labels = options.meshes, None
    things = options.out / ("things" if options.meshes is None else "my-things")
    machine = OpenOptions(backend=options.backend)
    if (things / FILE).exists():
        collection = Collection.open(things, machine, write=True)
    else:
        collection = Collection.create(things, DescriberConfig(encoder=options.encoder), machine)
    with collection:
        backend, reason = choose_backend(options.backend)
        say(f"views: {backend} ({reason}); encoder: {collection.describer.encoder.id}")
        with progress("mesh") as step:
            report = collection.add_folder(folder, options=IndexOptions(labels=labels, prune=True, progress=step))
        for path, code, message in report.failures:
            say(f"{path}: {message} ({code})")
        rows = _rows(collection, options)
        page = options.out / "index.html"
        write_page(page, "What looks alike?", rows, _lead(collection, labels is not None))
    print(f"{page}  ({len(rows)} questions to {things}, {time.monotonic() - started:.0f} s)")
    print(f"next: mvr search {things} --mesh FILE      or: mvr index things/ ~/my-meshes")
    return 0


def _lead(collection: Collection, labelled: bool) -> str:
    text = f"Left: the question. Right: the nearest of {len(collection)} objects, the view of each that matched best, its cosine."
    if labelled:
        row_ids = [int(n) for n in collection.store.select(None)]
        vectors = np.stack([collection.store.vector_of(n) for n in row_ids])
        means = leave_one_out(vectors, collection.store.column_values("label", row_ids)).means()
        text += f" Over all objects the first answer is of the same kind in {means['NN']:.0%} of cases (mAP {means['mAP']:.2f})."
    return text


def _rows(collection: Collection, options: Options) -> list[ResultRow]:
    """One question by object for each kind, two by a single picture, one mixture with a minus term."""
    chosen = _one_of_each(collection)
    queries = [Query(id=object_id) for object_id in chosen]
    for object_id in chosen[1:10:6]:
        picture = view_thumbnail(collection.session, collection.session.row_id_of(object_id), 1)
        if picture is not None:
            # A picture as somebody might hand it in: another size, on grey paper, off the middle.
            paper = Image.new("RGB", (400, 300), (222, 222, 222))
            array = np.asarray(picture.resize((224, 224)))
            mask = Image.fromarray(((array < 250).any(axis=2) * 255).astype(np.uint8))
            paper.paste(picture.resize((224, 224)), (120, 40), mask)
            file = options.out / f"picture-of-{Path(object_id).stem}.png"
            paper.save(file)
            queries.append(Query(images=[file]))
    if len(chosen) >= 2:
        queries.append(Query(terms=[Term("id", chosen[0], 1.0), Term("id", chosen[1], 1.0)]))
        queries.append(Query(terms=[Term("id", chosen[-1], 1.0), Term("id", chosen[0], -0.5)]))
    rows = []
    for query in queries:
        result = search(collection.session, query, SearchOptions(options.k))
        rows.append(result_row(collection.session, result))
    return rows


def _one_of_each(collection: Collection, limit: int = 12) -> list[str]:
    """One object of each label, or evenly spread ones where there are no labels."""
    row_ids = [int(n) for n in collection.store.select(None)]
    records = collection.store.records(row_ids)
    if "label" in collection.store.metadata_columns():
        kinds: dict[str, list[str]] = defaultdict(list)
        for row_id in row_ids:
            kinds[str(records[row_id].metadata.get("label"))].append(records[row_id].id)
        return [ids[len(ids) // 3] for ids in list(kinds.values())[:limit]]
    picked = np.linspace(0, len(row_ids) - 1, min(limit, len(row_ids))).astype(int)
    return [records[row_ids[i]].id for i in picked]
