"""Search with several weighted terms, a minus term, re-ranking and a minimum confidence.

python examples/search_with_a_mixture.py [FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path

from mvretrieval import Collection, DescriberConfig, Hit, IndexOptions, Query, RerankOptions, Term
from mvretrieval.procedural_shapes import write_objects


def main(folder: Path) -> None:
    meshes = folder / "meshes"
    write_objects(meshes, per_class=4)
    with Collection.create(folder / "things", DescriberConfig(encoder="builtin:", size=128)) as things:
        things.add_folder(meshes, options=IndexOptions(labels=meshes / "labels.csv"))

        # Like a table and like a lamp. Each cosine is z-scored over the collection, then weighted and summed.
        both = Query(terms=[Term("id", "table/table_00.glb", 1.0), Term("id", "lamp/lamp_00.glb", 1.0)])
        show("table and lamp", things.search(both, k=4))

        # Like a lamp, unlike a tree.
        minus = Query(terms=[Term("id", "lamp/lamp_00.glb", 1.0), Term("id", "tree/tree_00.glb", -0.5)])
        show("lamp without tree", things.search(minus, k=4))

        # Alpha query expansion over 3 neighbours, then late interaction on the best 20.
        refined = things.search(Query(id="plane/plane_00.glb"), k=4, rerank=RerankOptions(expand=3, rerank_views=20))
        show("plane, expanded and re-ranked", refined)

        # Confidence: the probability that a hit belongs to the query's class.
        things.calibrate("label")
        hits = things.search(Query(id="gear/gear_00.glb"), k=6, min_confidence=0.5)
        print("gear, confidence from 0.5:", ", ".join(f"{hit.id} {hit.confidence:.2f}" for hit in hits))


def show(title: str, hits: list[Hit]) -> None:
    print(f"{title}: " + ", ".join(f"{hit.id} {hit.score:.2f}" for hit in hits))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("example"))
