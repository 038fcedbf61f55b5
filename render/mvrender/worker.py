"""One process that loads and renders one file at a time: `python -m mvrender.worker`, spoken to over its pipes.

Started as a module of its own rather than forked, so that a user's script needs no main guard and no GL context is
ever carried over a fork (which hangs).
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mvrender.backends.selection import open_renderer
from mvrender.cameras import Rig, parse_rig
from mvrender.errors import MeshError, MvrenderError
from mvrender.glb import to_glb
from mvrender.loading import Loaded, load
from mvrender.mesh import Limits, normalize
from mvrender.renderer import Renderer
from mvrender.shading import Style, check_style
from mvrender.strips import strip_of
from mvrender.wire import receive, send

_NICENESS = 10


@dataclass
class _Worker:
    renderer: Renderer
    rig: Rig
    styles: list[Style]
    size: int
    limits: Limits
    strip_size: int | None
    loaded: Loaded | None = None

    def answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        if request["op"] == "load":
            self.loaded = None
            root = Path(request["root"]) if request["root"] else None
            self.loaded = load(Path(request["path"]), root=root, up=request["up"], limits=self.limits)
            return {
                "content_hash": self.loaded.content_hash,
                "references": self.loaded.references,
                "up": self.loaded.up,
                "facts": self.loaded.facts,
                "notes": self.loaded.mesh.notes,
            }, b""
        assert request["op"] in ("render", "glb") and self.loaded is not None
        mesh, self.loaded = self.loaded.mesh, None
        if request["op"] == "glb":
            return {}, to_glb(mesh)
        views = self.renderer.render(normalize(mesh, self.rig.fit), self.rig, self.styles, self.size)
        if not views.mask.any():
            raise MeshError("nothing_visible", "no camera sees anything of this mesh")
        strip = strip_of(views, self.strip_size) if self.strip_size else b""
        head = {"shape": views.images.shape, "mask": views.mask.tolist(), "strip": len(strip)}
        return head, strip + views.images.tobytes()


def limit_memory(extra_bytes: int) -> None:
    """Let this process allocate `extra_bytes` beyond what it holds now; on Linux alone, elsewhere without limit."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return
    import resource

    held = int(status.read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = held + extra_bytes
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def step_back() -> None:
    """Let the caller's threads have the cores first: they wait for one another, and one that is held up holds up all.

    Measured on two cores, with an encoder on both: a tenth less time for the whole. Whoever waits for views loses nothing.
    """
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    # Linux may share the cores among sessions first, and a worker is a session of its own.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_NICENESS))


def _open(request: dict[str, Any]) -> _Worker:
    worker = _Worker(
        renderer=open_renderer(request["backend"]),
        rig=parse_rig(request["rig"]),
        styles=[check_style(style) for style in request["styles"]],
        size=request["size"],
        limits=Limits(**request["limits"]),
        strip_size=request["strip_size"],
    )
    limit_memory(worker.limits.memory_bytes)
    return worker


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer until the requests end."""
    worker: _Worker | None = None
    while True:
        try:
            request, _ = receive(requests)
        except EOFError:
            return
        body: bytes = b""
        try:
            if worker is None:
                worker = _open(request)
                step_back()  # not before: compiling takes seconds, and a busy machine would make minutes of them
                head: dict[str, Any] = {}
            else:
                head, body = worker.answer(request)
        except MeshError as error:
            head = {"code": error.code, "message": error.message}
        except MvrenderError as error:
            # While opening, any code is the pool's BackendError; later it is a row of this one file.
            head = {"code": "backend" if worker is None else "renderer_crash", "message": str(error)}
        except MemoryError:
            if worker is not None:
                worker.loaded = None
            head = {
                "code": "out_of_memory",
                "message": "needs more memory than a worker may take; raise --max-memory-gb and give --retry",
            }
        send(replies, head, body)


def main() -> None:
    """Run a worker on this process's own pipes."""
    # Libraries may print: what they say goes to stderr, and the pipe stays ours.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
