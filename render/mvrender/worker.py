"""A process that loads and renders one file at a time: `python -m mvrender.worker`, controlled through its pipes.

It is started as a module instead of forked: users' scripts need no main guard, and no GL context crosses a fork (which hangs).
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mvrender.backends.selection import open_renderer
from mvrender.cameras import Rig, parse_rig
from mvrender.errors import MeshError, MvrenderError
from mvrender.image_formats import small_rgba
from mvrender.loading import Loaded, load
from mvrender.mesh import Limits, normalize
from mvrender.renderer import Renderer
from mvrender.shading import Style, check_style
from mvrender.strips import thumbnail_strip
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

    def handle(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Head and body of the reply to an `image`, `load`, `render` or `glb` request."""
        if request["op"] == "image":
            return self._image(Path(request["path"]), request["side"])
        if request["op"] == "load":
            return self._load(request), b""
        assert request["op"] in ("render", "glb") and self.loaded is not None
        mesh, self.loaded = self.loaded.mesh, None
        if request["op"] == "glb":
            from mvrender.glb import to_glb  # late: trimesh takes half of a worker's start

            return {}, to_glb(mesh)
        views = self.renderer.render(normalize(mesh, self.rig.fit), self.rig, self.styles, self.size)
        if not views.mask.any():
            raise MeshError("nothing_visible", "the mesh is not visible from any camera")
        strip = thumbnail_strip(views, self.strip_size) if self.strip_size else b""
        head = {"shape": views.images.shape, "mask": views.mask.tolist(), "strip": len(strip)}
        return head, strip + views.images.tobytes()

    def _image(self, path: Path, side: int) -> tuple[dict[str, Any], bytes]:
        limit_cpu(self.limits.seconds)
        try:
            pixels = small_rgba(path, side)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's plugins raise anything on a damaged file
            raise MeshError("unreadable", f"{path.name} is not a readable image ({error})") from error
        return {"shape": pixels.shape}, pixels.tobytes()

    def _load(self, request: dict[str, Any]) -> dict[str, Any]:
        self.loaded = None
        limit_cpu(self.limits.seconds)
        root = Path(request["root"]) if request["root"] else None
        self.loaded = load(Path(request["path"]), root=root, up=request["up"], limits=self.limits)
        return {
            "content_hash": self.loaded.content_hash,
            "references": self.loaded.references,
            "up": self.loaded.up,
            "facts": self.loaded.facts,
            "notes": self.loaded.mesh.notes,
        }


def limit_memory(extra_bytes: int) -> None:
    """Limit this process to `extra_bytes` more memory than it uses now. Only on Linux."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return
    import resource

    used = int(status.read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + extra_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def limit_cpu(seconds: float) -> None:
    """End this process if it computes for `seconds` more on every core: the caller's time limit ends with the caller."""
    if not hasattr(os, "fork"):
        return
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = math.ceil(usage.ru_utime + usage.ru_stime + seconds * (os.cpu_count() or 1)) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def end_with(lifeline: int) -> None:
    """End this process when the caller ends, whatever it is doing then.

    Args:
        lifeline: a pipe that the caller holds open and never writes to. The kernel signals that it was closed. Linux only.
    """
    import fcntl
    import signal

    signal.signal(signal.SIGIO, signal.SIG_DFL)  # ends the process
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        if os.read(lifeline, 1) == b"":  # the caller had ended before
            os._exit(1)


def lower_priority() -> None:
    """Give the caller's threads priority: they wait for one another, so that one delayed thread delays all.

    Measured on two cores with an encoder on both: 10 % less time in total. Rendering is not slower where the caller waits for
    the views.
    """
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    # Linux may first divide the cores among sessions, and a worker has its own session.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_NICENESS))


def _open(request: dict[str, Any], before: _Worker | None) -> _Worker:
    keeps_renderer = before is not None and before.renderer.name == request["backend"]
    worker = _Worker(
        renderer=before.renderer if before and keeps_renderer else open_renderer(request["backend"]),
        rig=parse_rig(request["rig"]),
        styles=[check_style(style) for style in request["styles"]],
        size=request["size"],
        limits=Limits(**request["limits"]),
        strip_size=request["strip_size"],
    )
    limit_memory(worker.limits.memory_bytes)
    return worker


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Reply to requests until the input ends: first `open`, which may come again with another specification."""
    worker: _Worker | None = None
    while True:
        try:
            request, _ = receive(requests)
        except EOFError:
            return
        head: dict[str, Any] = {}
        body: bytes = b""
        try:
            if request["op"] == "open":
                is_start = worker is None
                worker = _open(request, worker)
                if is_start:
                    lower_priority()  # not earlier: compilation takes seconds, and at low priority minutes on a busy machine
            else:
                assert worker is not None
                head, body = worker.handle(request)
        except MeshError as error:
            head = {"code": error.code, "message": error.message}
        except MvrenderError as error:
            # While opening, the pool raises a BackendError of this code; later it is the failure of one file.
            head = {"code": error.code if request["op"] == "open" else "renderer_crash", "message": str(error)}
        except MemoryError:
            if worker is not None:
                worker.loaded = None
            head = {
                "code": "out_of_memory",
                "message": "needs more memory than the limit; raise --max-memory-gb and give --retry",
            }
        send(replies, head, body)


def main() -> None:
    """Run a worker on the pipes of this process. The argument, if any, is the number of the lifeline."""
    if len(sys.argv) > 1:
        end_with(int(sys.argv[1]))
    # Libraries may print to stdout: redirect it to stderr, and keep the pipe for replies.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
