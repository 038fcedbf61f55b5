"""Keeps workers busy, replaces those that die, and turns whatever happens to a file into a result."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import numpy as np

import mvrender
from mvrender.backends.selection import choose_backend
from mvrender.cameras import Rig, parse_rig, ring
from mvrender.errors import BackendError, MeshError, RigError
from mvrender.mesh import Limits, UpAxis
from mvrender.renderer import BackendName, Views, check_size
from mvrender.shading import Style
from mvrender.wire import receive, send

_START_SECONDS = 180.0
"""Opening a renderer takes about one; ten where it is compiled, the first time on a machine, and some times that on a busy one."""


@dataclass(frozen=True)
class RenderSpec:
    """How files become views.

    Attributes:
        rig: where the cameras stand.
        styles: one picture per camera and style.
        size: width and height of a picture in pixels.
        backend: renderer by name.
        limits: what one file may cost.
        strip_size: also make a strip of small pictures, this many pixels a view.
    """

    rig: Rig = field(default_factory=ring)
    styles: tuple[Style, ...] = ("texture",)
    size: int = 224
    backend: BackendName = "raster"
    limits: Limits = field(default_factory=Limits)
    strip_size: int | None = None

    @classmethod
    def default(cls) -> RenderSpec:
        """The default views with the best backend of this machine."""
        return cls(backend=choose_backend()[0])


@dataclass(frozen=True)
class Job:
    """One file to look at.

    Attributes:
        path: the file.
        root: folder that its references may not leave; its own folder if None.
        up: axis that is up; the format's convention if None.
    """

    path: Path
    root: Path | None = None
    up: UpAxis | None = None


@dataclass(frozen=True)
class Opened:
    """A file that was loaded (see `loading.Loaded`)."""

    job: Job
    content_hash: str
    references: tuple[str, ...]
    up: UpAxis
    facts: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Rendered:
    """A file that became views; `views` is None where the caller did not want them."""

    opened: Opened
    views: Views | None
    strip: bytes = b""


@dataclass(frozen=True)
class Converted:
    """A file as GLB (see `glb.to_glb`)."""

    opened: Opened
    glb: bytes


@dataclass(frozen=True)
class Failed:
    """A file that did not."""

    job: Job
    code: str
    message: str


Operation = Literal["render", "glb"]
"""What a worker makes of a file that it has loaded."""


def always(_: Opened) -> bool:
    """Every file that loads is wanted."""
    return True


class RenderPool:
    """Worker processes for one `RenderSpec`. Use as a context manager, or call `close`."""

    def __init__(self, spec: RenderSpec, n_workers: int | None = None) -> None:
        """Prepare workers; each starts with its first file.

        Args:
            spec: how files become views.
            n_workers: processes; one per core by default.

        Raises:
            RigError: the picture size or the number of workers is out of range, or the rig is not the one that its name says.
        """
        check_size(spec.size)
        if n_workers is not None and n_workers < 1:
            raise RigError(f"views are rendered by 1 worker or more, not {n_workers}")
        named = parse_rig(spec.rig.name)  # which is all that a worker is told of it
        if named.fov_y_deg != spec.rig.fov_y_deg or not np.array_equal(named.cam_to_world, spec.rig.cam_to_world):
            raise RigError(f"the cameras are not those of '{named.name}'; workers only know rigs made by parse_rig")
        self.spec = spec
        self._workers = [_WorkerProcess(spec) for _ in range(n_workers or os.cpu_count() or 1)]
        # The last one that got free is the first to be asked: a lone question after the other needs one worker.
        self._free: queue.LifoQueue[_WorkerProcess] = queue.LifoQueue()
        for worker in reversed(self._workers):
            self._free.put(worker)

    def run(self, jobs: Iterable[Job], needs_views: Callable[[Opened], bool] = always) -> Iterator[Rendered | Failed]:
        """Load and render files, in the order in which they get done.

        Args:
            jobs: taken one by one as workers get free, so that it may be endless.
            needs_views: asked once a file is loaded, from several threads; False skips rendering.

        Raises:
            BackendError: the renderer cannot start.
        """
        source = iter(jobs)
        source_lock = threading.Lock()
        # Bounded: a slow reader holds the workers back instead of filling memory.
        results: queue.Queue[Rendered | Failed | BaseException | None] = queue.Queue(2 * len(self._workers))
        stop = threading.Event()

        def put(item: Rendered | Failed | BaseException | None) -> None:
            while not stop.is_set():
                try:
                    results.put(item, timeout=0.1)
                    return
                except queue.Full:
                    continue

        def work(worker: _WorkerProcess) -> None:
            try:
                while not stop.is_set():
                    with source_lock:
                        job = next(source, None)
                    if job is None:
                        break
                    result = worker.process(job, needs_views, "render")
                    assert not isinstance(result, Converted)
                    put(result)
            except BaseException as error:  # handed to the reader, who raises it
                put(error)
            finally:
                put(None)

        threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in self._workers]
        for thread in threads:
            thread.start()
        running = len(threads)
        try:
            while running:
                item = results.get()
                if item is None:
                    running -= 1
                elif isinstance(item, BaseException):
                    raise item
                else:
                    yield item
        finally:
            stop.set()
            if running:  # left early: do not wait for slow files
                self.close()
            for thread in threads:
                thread.join()
            if running:
                self.close()  # a thread may have started another worker meanwhile

    def render(self, job: Job) -> Rendered:
        """Load and render one file; several threads may ask at once, each of a worker that is free.

        Raises:
            MeshError: it failed, with the code of the failure.
            BackendError: the renderer cannot start.
        """
        result = self._by_a_free_worker(job, "render")
        assert isinstance(result, Rendered)
        return result

    def convert(self, job: Job) -> Converted:
        """Load one file and make a GLB of it, as `render` renders it.

        Raises:
            MeshError: it failed, with the code of the failure.
            BackendError: the renderer cannot start.
        """
        result = self._by_a_free_worker(job, "glb")
        assert isinstance(result, Converted)
        return result

    def _by_a_free_worker(self, job: Job, op: Operation) -> Rendered | Converted:
        free = self._free
        worker = free.get()
        try:
            result = worker.process(job, always, op)
        finally:
            free.put(worker)
        if isinstance(result, Failed):
            raise MeshError(result.code, result.message)  # type: ignore[arg-type]
        return result

    @property
    def n_workers(self) -> int:
        """Processes, when all are started."""
        return len(self._workers)

    def warm_up(self, count: int | None = None) -> None:
        """Start the workers, all or so many, now while the caller does something else."""
        for worker in self._workers[:count]:
            worker.warm_up()

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.stop()

    def __enter__(self) -> RenderPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _WorkerDied(Exception):
    """No reply will come."""


class _WorkerProcess:
    """One worker, started when needed and again after it died."""

    def __init__(self, spec: RenderSpec) -> None:
        self._spec = spec
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._errors: IO[bytes] | None = None
        # One conversation at a time: two threads' words would mix in the pipe.
        self._talking = threading.Lock()

    def warm_up(self) -> None:
        """Start the process without waiting for it, unless another thread has it in hand."""
        if self._talking.acquire(blocking=False):
            try:
                self._start()
            finally:
                self._talking.release()

    def _start(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                return
            self.stop()  # it died between two files (the system was short of memory): the next one is innocent
        package = Path(mvrender.__file__).parent.parent
        environment = dict(
            os.environ,
            PYTHONPATH=os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH", "")])),
            OMP_NUM_THREADS="1",
            OPENBLAS_NUM_THREADS="1",
        )
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mvrender.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            # `-m` puts the working folder first on the path: a numpy.py of the user's must not be found there.
            cwd=package,
            start_new_session=True,  # Ctrl-C reaches the caller, who ends the workers
        )
        self._ready = False
        spec = self._spec
        head = {
            "op": "open",
            "backend": spec.backend,
            "rig": spec.rig.name,
            "styles": spec.styles,
            "size": spec.size,
            "limits": asdict(spec.limits),
            "strip_size": spec.strip_size,
        }
        assert self._process.stdin is not None
        try:
            send(self._process.stdin, head)  # type: ignore[arg-type]
        except OSError:
            pass  # it died at once; the reply that never comes tells why

    def process(self, job: Job, needs_views: Callable[[Opened], bool], op: Operation) -> Rendered | Converted | Failed:
        with self._talking:
            return self._process_one(job, needs_views, op)

    def _process_one(
        self, job: Job, needs_views: Callable[[Opened], bool], op: Operation
    ) -> Rendered | Converted | Failed:
        self._start()
        if not self._ready:
            self._await_ready()
        process = self._process
        assert process is not None
        timed_out = threading.Event()

        def give_up() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(self._spec.limits.seconds, give_up)
        timer.daemon = True
        timer.start()
        try:
            return self._converse(process, job, needs_views, op)
        except _WorkerDied:
            code = process.wait()
            tail = self._stderr_tail()
            self.stop()
            if timed_out.is_set():
                limit = f"{self._spec.limits.seconds:g} s"
                return Failed(job, "timeout", f"took longer than {limit}; raise --max-seconds and give --retry")
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            return Failed(job, "renderer_crash", f"the worker died on it ({how}){tail}; the file is likely broken")
        except BaseException:
            self.stop()  # in the middle of a conversation: its next reply would be taken for another file's
            raise
        finally:
            timer.cancel()
            timer.join()
            if timed_out.is_set():
                self.stop()  # also where the reply won the race: the next file must not meet a killed worker

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except OSError:
                        pass
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _converse(
        self, process: subprocess.Popen[bytes], job: Job, needs_views: Callable[[Opened], bool], op: Operation
    ) -> Rendered | Converted | Failed:
        # Absolute: the worker has a working folder of its own.
        root = str(job.root.absolute()) if job.root else None
        request = {"op": "load", "path": str(job.path.absolute()), "root": root, "up": job.up}
        head, _ = self._ask(process, request)
        if "code" in head:
            return self._failed(job, head)
        opened = Opened(
            job, head["content_hash"], tuple(head["references"]), head["up"], head["facts"], tuple(head["notes"])
        )
        if not needs_views(opened):
            return Rendered(opened, None)
        head, body = self._ask(process, {"op": op})
        if "code" in head:
            return self._failed(job, head)
        if op == "glb":
            return Converted(opened, body)
        strip = head["strip"]
        images = np.frombuffer(body, np.uint8, offset=strip).reshape(head["shape"])
        views = Views(images, np.array(head["mask"], bool), self._spec.rig.cam_to_world)
        return Rendered(opened, views, body[:strip])

    def _failed(self, job: Job, head: dict[str, Any]) -> Failed:
        if head["code"] == "out_of_memory":
            self.stop()  # what it allocated is not all given back, and the next file would pay for it
        return Failed(job, head["code"], head["message"])

    def _await_ready(self) -> None:
        process = self._process
        assert process is not None
        # A GL driver may hang where it should fail; so does the worker that opens it, but not its caller.
        timer = threading.Timer(_START_SECONDS, process.kill)
        timer.daemon = True
        timer.start()
        try:
            assert process.stdout is not None
            head, _ = receive(process.stdout)  # type: ignore[arg-type]
        except EOFError:
            hung = not timer.is_alive()
            code = process.wait()
            tail = self._stderr_tail()
            self.stop()
            late = f"was not ready after {_START_SECONDS:g} s (on a busy machine: run again when it is less so)"
            how = late if hung else f"ended before it was ready (exit {code}){tail}"
            raise BackendError(
                f"the '{self._spec.backend}' worker {how}: 'mvr doctor' tells which renderers work here"
            ) from None
        finally:
            timer.cancel()
        if "code" in head:
            self.stop()
            raise BackendError(head["message"])
        self._ready = True

    @staticmethod
    def _ask(process: subprocess.Popen[bytes], request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        assert process.stdin is not None and process.stdout is not None
        try:
            send(process.stdin, request)  # type: ignore[arg-type]
            return receive(process.stdout)  # type: ignore[arg-type]
        except (EOFError, OSError, ValueError) as error:  # ValueError: another thread closed the pipe
            raise _WorkerDied from error

    def _stderr_tail(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1][:200]}" if lines else ""
