"""Build a collection of procedural shapes (or of your own meshes) and a page of searches: queries left, hits right."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image

from mvrender.backends.selection import choose_backend
from mvrender.renderer import BackendName, NamedBackend
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.console import progress, say, say_error
from mvretrieval.describe import DescriberConfig
from mvretrieval.evaluation.metrics import leave_one_out
from mvretrieval.ingest.index_report import IndexOptions
from mvretrieval.procedural_shapes import PER_CLASS, write_objects
from mvretrieval.search.options import SearchOptions
from mvretrieval.search.page import ResultRow, result_row, write_page
from mvretrieval.search.pipeline import search
from mvretrieval.search.query import Query, Term
from mvretrieval.search.thumbnails import view_thumbnail
from mvretrieval.session.session import Session
from mvretrieval.store.schema import FILE


@dataclass(frozen=True)
class Options:
    """Options of `mvr demo`.

    Attributes:
        out: folder for the objects, the collection and the page.
        meshes: folder of your own meshes instead of procedural shapes.
        encoder: view encoder; `builtin:` needs no weights and no network.
        backend: renderer. Default: the best one available.
        k: hits per query.
    """

    out: Path = Path("demo")
    meshes: Path | None = None
    encoder: str = "builtin:"
    backend: NamedBackend | BackendName | None = None
    k: Annotated[int, tyro.conf.arg(aliases=["-k"])] = 8


def run(options: Options) -> int:
    """Build the collection and the page, and print their places."""
    started = time.monotonic()
    if options.meshes is None:
        folder = options.out / "objects"
        say(f"{write_objects(folder)} objects, {PER_CLASS} per class, in {folder}")
        labels: Path | None = folder / "labels.csv"
    else:
        folder, labels = options.meshes, None
    place = options.out / ("things" if options.meshes is None else "my-things")
    with _open(place, options) as collection:
        backend, reason = choose_backend(options.backend)
        say(f"views: {backend} ({reason}); encoder: {collection.describer.encoder.id}")
        with progress("mesh") as step:
            report = collection.add_folder(folder, options=IndexOptions(labels=labels, prune=True, progress=step))
        for path, code, message in report.failures:
            say_error(f"{path}: {message} ({code})")
        rows = _rows(collection.session, options)
        page = options.out / "index.html"
        write_page(page, "Open-set retrieval of 3D objects", rows, _lead(collection.session, labels is not None))
    print(f"{page}  ({len(rows)} queries of {place}, {time.monotonic() - started:.0f} s)")
    print(f"next: mvr search {place} --mesh FILE      or: mvr index things/ ~/my-meshes")
    return 0


def _open(place: Path, options: Options) -> Collection:
    open_options = OpenOptions(backend=options.backend)
    if (place / FILE).exists():
        return Collection.open(place, open_options, write=True)
    return Collection.create(place, DescriberConfig(encoder=options.encoder), open_options)


def _lead(session: Session, labeled: bool) -> str:
    text = f"Left: the query. Right: the nearest of {len(session)} objects, each with its best view and its score."
    if labeled:
        row_ids = session.store.select(None).tolist()
        vectors = np.stack([session.store.vector_of(row_id) for row_id in row_ids])
        means = leave_one_out(vectors, session.store.column_values("label", row_ids)).means()
        text += f" Leave-one-out over all objects: nearest neighbour {means['NN']:.0%}, mAP {means['mAP']:.2f}."
    return text


def _rows(session: Session, options: Options) -> list[ResultRow]:
    """One query by id for each class, two by a single image, and two mixtures, one of them with a negative term."""
    chosen = _one_per_class(session)
    queries = [Query(id=object_id) for object_id in chosen]
    for object_id in chosen[1:10:6]:
        view = view_thumbnail(session, session.row_id_of(object_id), 1)
        if view is not None:
            file = options.out / f"image-of-{Path(object_id).stem}.png"
            _on_grey_paper(view).save(file)
            queries.append(Query(images=[file]))
    if len(chosen) >= 2:
        queries.append(Query(terms=[Term("id", chosen[0], 1.0), Term("id", chosen[1], 1.0)]))
        queries.append(Query(terms=[Term("id", chosen[-1], 1.0), Term("id", chosen[0], -0.5)]))
    found = SearchOptions(options.k)
    return [result_row(session, search(session, query, found)) for query in queries]


def _on_grey_paper(view: Image.Image) -> Image.Image:
    """A view as a user's image may look: another size, grey background, off-centre."""
    paper = Image.new("RGB", (400, 300), (222, 222, 222))
    view = view.resize((224, 224))
    mask = Image.fromarray(((np.asarray(view) < 250).any(axis=2) * 255).astype(np.uint8))
    paper.paste(view, (120, 40), mask)
    return paper


def _one_per_class(session: Session, limit: int = 12) -> list[str]:
    """One object for each label, or evenly spaced objects if there are no labels."""
    row_ids = session.store.select(None).tolist()
    records = session.store.records(row_ids)
    if "label" in session.store.metadata_columns():
        classes: dict[str, list[str]] = defaultdict(list)
        for row_id in row_ids:
            classes[str(records[row_id].metadata.get("label"))].append(records[row_id].id)
        return [sorted(classes[name])[len(classes[name]) // 3] for name in sorted(classes)[:limit]]
    ids = sorted(record.id for record in records.values())
    return [ids[i] for i in np.linspace(0, len(ids) - 1, min(limit, len(ids))).astype(int)]
