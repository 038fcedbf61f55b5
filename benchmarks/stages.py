"""Cost of the stages of indexing, each run separately: `python -m benchmarks.stages FOLDER ENCODER` prints JSON.

In core-seconds: loading and rendering, and writing, use one core; encoding uses all.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from mvrender.jobs import Rendered, RenderJob
from mvretrieval.api import Collection
from mvretrieval.describe import DescriberConfig
from mvretrieval.ingest.add import new_objects
from mvretrieval.session.options import OpenOptions


def main() -> None:
    """Run each stage once over all meshes of a folder."""
    folder, encoder = Path(sys.argv[1]), sys.argv[2]
    jobs = [RenderJob(file) for file in sorted(folder.iterdir())]
    with (
        tempfile.TemporaryDirectory() as place,
        Collection.create(place, DescriberConfig(encoder), OpenOptions(workers=1)) as collection,
    ):
        pool = collection.session.render_pool()
        pool.render(jobs[0])  # starts the worker
        started = time.monotonic()
        rendered = [result for result in pool.run(jobs) if isinstance(result, Rendered)]
        render = time.monotonic() - started

        batch_size = collection.describer.encoder.batch_size // collection.describer.rig.n_views
        batches = [rendered[start : start + batch_size] for start in range(0, len(rendered), batch_size)]
        new_objects(collection.session, batches[0], [""] * len(batches[0]))
        started = time.monotonic()
        described = [
            new_objects(collection.session, batch, [item.opened.job.path.name for item in batch]) for batch in batches
        ]
        encode = time.monotonic() - started

        started = time.monotonic()
        for batch in described:
            with collection.session.store.transaction():
                change = collection.session.store.next_sequence()
                for new in batch:
                    collection.session.store.put(new, change)
        write = time.monotonic() - started
    cores = os.cpu_count() or 1
    print(json.dumps({"render": render, "encode": encode * cores, "write": write, "meshes": len(rendered)}))


if __name__ == "__main__":
    main()
