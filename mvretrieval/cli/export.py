"""Write the object vectors of a collection as a FAISS index, for use without mvretrieval.

Beside FILE, FILE.json holds the ids of the objects in the order of the vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from mvretrieval.api import Collection
from mvretrieval.console import counted, print_json
from mvretrieval.index.kinds import IndexKind, NamedKind
from mvretrieval.ingest.export_faiss import IDS_SUFFIX, export_faiss


@dataclass(frozen=True)
class Options:
    """Options of `mvr export`.

    Attributes:
        collection: folder of the collection.
        faiss: file of the index.
        index: kind of index: auto, exact, hnsw, ivf, cagra or a FAISS factory string.
        where: filter of the objects, such as "label = 'chair'". Default: all.
        json: print one JSON object: the files and the number of vectors.
    """

    collection: tyro.conf.Positional[Path]
    faiss: Path
    index: NamedKind | IndexKind = "exact"
    where: str | None = None
    json: bool = False


def run(options: Options) -> int:
    """Export and print what was written."""
    with Collection.open(options.collection) as collection:
        count = export_faiss(collection.session, options.faiss, options.index, options.where)
    if options.json:
        ids = options.faiss.with_name(options.faiss.name + IDS_SUFFIX)
        print_json({"faiss": str(options.faiss), "ids": str(ids), "vectors": count})
        return 0
    print(f"{options.faiss}: {counted(count, 'vector')}; ids in {options.faiss.name}{IDS_SUFFIX}")
    return 0
