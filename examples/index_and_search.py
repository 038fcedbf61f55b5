"""Index a folder of meshes and search it with a mesh, with images and by id.

    python examples/index_and_search.py [FOLDER]

Meshes are generated. The `builtin:` encoder needs no weights and no network.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mvretrieval import Collection, DescriberConfig, IndexOptions, Query
from mvretrieval.procedural_shapes import make_object, write_objects


def main(folder: Path) -> None:
    meshes = folder / "meshes"
    count = write_objects(meshes, per_class=4)  # GLB files and labels.csv
    print(f"{count} meshes in {meshes.name}/")

    config = DescriberConfig(encoder="builtin:", size=128)
    with Collection.create(folder / "things", config) as things:
        report = things.add_folder(meshes, options=IndexOptions(labels=meshes / "labels.csv"))
        print(f"{len(things)} objects, {len(report.failures)} failures")

        # A mesh that is not in the collection.
        query = folder / "query.glb"
        query.write_bytes(make_object("mug", seed=100).export(file_type="glb"))
        for hit in things.search(Query(mesh=query), k=3):
            view = hit.best_view
            print(f"{hit.rank}. {hit.id:<22} {hit.score:.3f}  best view at {view['azimuth_deg']:.0f} degrees")

        # An object of the collection, filtered by label and by number of faces.
        hits = things.search(Query(id="chair/chair_00.glb"), k=3, where="label <> 'chair' and faces < 5000")
        print("most like a chair, but not labeled chair:", ", ".join(hit.id for hit in hits))

    # Open it again: the index is loaded, nothing is rendered.
    with Collection.open(folder / "things") as things:
        print(things.search(Query(id="car/car_00.glb"), k=1)[0].id)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("example"))
