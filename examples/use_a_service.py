"""Start a service and search, add, label and remove objects over HTTP.

python examples/use_a_service.py [FOLDER]
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mvretrieval import Client, Collection, DescriberConfig, IndexOptions, Query
from mvretrieval.procedural_shapes import make_object, write_objects


def main(folder: Path) -> None:
    meshes, things = folder / "meshes", folder / "things"
    write_objects(meshes, per_class=2)
    with Collection.create(things, DescriberConfig(encoder="builtin:", size=128)) as collection:
        collection.add_folder(meshes, options=IndexOptions(labels=meshes / "labels.csv"))

    token = secrets.token_hex(16)
    with service(things, token) as address, Client(address, token=token) as client:
        print(f"{len(client)} objects")

        mesh = folder / "new-mug.glb"
        mesh.write_bytes(make_object("mug", seed=100).export(file_type="glb"))
        for hit in client.search(Query(mesh=mesh), k=2):  # the file is sent along
            print(hit.rank, hit.id, f"{hit.score:.3f}")

        added = client.add(mesh, metadata={"label": "mug"})  # found by the next search
        print(client.search(Query(id="mug/mug_00.glb"), k=3, where=f"id = '{added}'")[0].id)
        print(client.remove(added), "removed")


@contextmanager
def service(things: Path, token: str) -> Iterator[str]:
    """`mvr serve` on a free port; yields its address."""
    command = [sys.executable, "-m", "mvretrieval", "serve", str(things), "--port", "0"]
    environment = {**os.environ, "MVR_TOKEN": token}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if found := re.search(r"http://\S+:\d+", line):
                    yield found[0]
                    break
            else:
                raise RuntimeError(f"the service ended with exit code {process.wait()}")
        finally:
            process.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("example"))
