"""Make a collection of vectors that were computed elsewhere, or add to one.

FILE is an .npz file with the arrays `ids` (N,) and `vectors` (N, D), or a Parquet file with the columns `id` and `vector`. Other
arrays or columns become labels. Vectors are scaled to unit norm. Objects whose ids are in the collection are replaced. An
interrupted import resumes when it is run again. The exit code is 1 if no vector could be imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tyro

from mvretrieval.cli.index_summary import SHOWN_FAILURES, changes_line, failures_line
from mvretrieval.console import counted, print_json, progress, run_record, say
from mvretrieval.index.kinds import IndexKind, NamedKind
from mvretrieval.ingest.import_run import ImportReport, import_table
from mvretrieval.ingest.import_vectors import open_for_import
from mvretrieval.ingest.vector_file import read_vector_file
from mvretrieval.session.options import OpenOptions
from mvretrieval.store.label_columns import FACTS


@dataclass(frozen=True)
class Options:
    """Options of `mvr import`.

    Attributes:
        collection: folder of the collection; created if it does not exist.
        file: vectors, as .npz or Parquet.
        index: kind of index: auto, exact, hnsw, ivf, cagra or a FAISS factory string. auto is exact up to 250,000 objects, then
            hnsw. 'mvr index --index help' tells what to choose.
        encoder: encoder that made the vectors, to query with images and text. Without it, queries are ids, and vectors in
            Python and over REST.
        device: where that encoder runs: cpu, cuda, or auto.
        json: print the report as one JSON object.
    """

    collection: tyro.conf.Positional[Path]
    file: tyro.conf.Positional[Path]
    index: NamedKind | IndexKind | None = None
    encoder: str | None = None
    device: str = "auto"
    json: bool = False


def run(options: Options) -> int:
    """Import and print the report."""
    table = read_vector_file(options.file)
    machine = OpenOptions(options.device)
    with open_for_import(options.collection, table, options.encoder, options.index, machine) as session:
        record = run_record("import", options)
        session.store.add_run(record["time"], record)
        with progress("vector") as step:
            report = import_table(session, table, step)
        count = len(session)
    if hidden := [name for name in table.labels if name in FACTS]:
        say(f"note: in filters, {', '.join(hidden)} is the label and not the fact of the object")
    if options.json:
        print_json({"objects": count, **vars(report)})
    else:
        print("\n  ".join(_summary(options, report, count, table.dim)))
    return 0 if report.added + report.replaced + report.unchanged else 1


def _summary(options: Options, report: ImportReport, count: int, dim: int) -> Iterator[str]:
    yield f"{options.collection}: {counted(count, 'object')}, vectors of {counted(dim, 'number')}"
    yield changes_line(report, ("added", "replaced", "unchanged"))
    if report.labeled:
        yield f"labels of {counted(report.labeled, 'object')} changed"
    if report.augmented:
        yield f"database-side augmentation updated for {counted(report.augmented, 'object')}"
    for name, reason in report.ignored:
        yield f"'{name}' was left out: {reason}"
    if report.failed:
        yield failures_line(report, options.collection)
        for _, code, message in report.failures[:SHOWN_FAILURES]:
            yield f"  {message} ({code})"
