"""Views per second of one renderer, meshes loaded before: `python benchmarks/render_rate.py plain|BACKEND FOLDER` prints JSON.

`plain` is pyrender as its own examples use it: one renderer, kept; a scene for each mesh, a camera that moves. Any other
name is a backend of ours, in as many processes as there are cores.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

os.environ.setdefault("PYOPENGL_PLATFORM", "egl")

import numpy as np

from mvrender.cameras import ring
from mvrender.loading import load
from mvrender.mesh import Mesh, normalise
from mvrender.renderer import open_renderer

SIZE = 224
RIG = ring(12, 30.0)


def meshes(folder: Path) -> list[Mesh]:
    """All of a folder, ready to be rendered."""
    return [normalise(load(file).mesh, RIG.fit) for file in sorted(folder.glob("*.off"))]


def plain(folder: Path) -> float:
    """Seconds of pyrender."""
    import pyrender
    import trimesh

    loaded = [trimesh.Trimesh(mesh.vertices, mesh.faces, process=False) for mesh in meshes(folder)]
    renderer = pyrender.OffscreenRenderer(SIZE, SIZE)
    camera = pyrender.PerspectiveCamera(yfov=np.radians(RIG.fov_y_deg))

    def draw(mesh: trimesh.Trimesh) -> None:
        scene = pyrender.Scene(bg_color=np.ones(4), ambient_light=np.full(3, 0.3))
        scene.add(pyrender.Mesh.from_trimesh(mesh, smooth=False))
        eye = scene.add(camera, pose=np.eye(4))
        light = scene.add(pyrender.DirectionalLight(intensity=3.0), pose=np.eye(4))
        for pose in RIG.cam_to_world:
            scene.set_pose(eye, pose)
            scene.set_pose(light, pose)
            renderer.render(scene)

    draw(loaded[0])  # shaders are compiled
    started = time.monotonic()
    for mesh in loaded:
        draw(mesh)
    return time.monotonic() - started


def _work(backend: str, folder: Path, part: int, of: int, ready: Barrier) -> None:
    own = meshes(folder)[part::of]
    renderer = open_renderer(backend)  # type: ignore[arg-type]
    renderer.render(own[0], RIG, ("clay",), SIZE)
    ready.wait()
    for mesh in own:
        renderer.render(mesh, RIG, ("clay",), SIZE)
    ready.wait()


def ours(backend: str, folder: Path) -> float:
    """Seconds of all processes together."""
    count = os.cpu_count() or 1
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(count + 1)
    workers = [context.Process(target=_work, args=(backend, folder, i, count, ready)) for i in range(count)]
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
    """One renderer on one folder."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    seconds = plain(folder) if name == "plain" else ours(name, folder)
    n_views = len(list(folder.glob("*.off"))) * RIG.n_views
    print(json.dumps({"views_per_second": n_views / seconds, "views": n_views}))


if __name__ == "__main__":
    main()
