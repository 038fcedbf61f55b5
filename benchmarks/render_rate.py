"""Views per second of one renderer, without loading; prints JSON.

`python -m benchmarks.render_rate plain|BACKEND FOLDER ROUNDS` renders all meshes of the folder ROUNDS times. `plain` is pyrender in
one process; other names are our backends, with one process per core.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

from mvrender.backends.selection import open_renderer
from mvrender.cameras import ring
from mvrender.loading import load
from mvrender.mesh import Mesh, normalize

SIZE = 224
RIG = ring(12, 30.0)


def meshes(folder: Path) -> list[Mesh]:
    """Load and normalize all meshes of a folder."""
    return [normalize(load(file).mesh, RIG.fit) for file in sorted(folder.glob("*.off"))]


def plain(folder: Path, rounds: int) -> float:
    """Seconds of pyrender."""
    from benchmarks.plain_pyrender import PlainPyrender

    loaded = meshes(folder)
    renderer = PlainPyrender(SIZE)
    renderer.draw(loaded[0], RIG)  # compiles shaders
    started = time.monotonic()
    for mesh in loaded * rounds:
        renderer.draw(mesh, RIG)
    return time.monotonic() - started


def _work(backend: str, folder: Path, rounds: int, part: int, of: int, ready: Barrier) -> None:
    own = meshes(folder)[part::of]
    renderer = open_renderer(backend)
    renderer.render(own[0], RIG, ("clay",), SIZE)
    ready.wait()
    for mesh in own * rounds:
        renderer.render(mesh, RIG, ("clay",), SIZE)
    ready.wait()


def ours(backend: str, folder: Path, rounds: int) -> float:
    """Seconds of our backend in parallel processes."""
    count = os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(count + 1)
    workers = [context.Process(target=_work, args=(backend, folder, rounds, i, count, ready)) for i in range(count)]
    for worker in workers:
        worker.start()
    ready.wait()
    started = time.monotonic()
    ready.wait()
    seconds = time.monotonic() - started
    for worker in workers:
        worker.join()
    return seconds


def main() -> None:
    """Measure one renderer."""
    name, folder, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    seconds = plain(folder, rounds) if name == "plain" else ours(name, folder, rounds)
    n_views = len(list(folder.glob("*.off"))) * RIG.n_views * rounds
    print(json.dumps({"views_per_second": n_views / seconds, "views": n_views}))


if __name__ == "__main__":
    main()
