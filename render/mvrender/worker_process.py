"""The pool's side of one worker process: starts it, sends it files, and turns crashes and timeouts into failures."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mvrender.errors import BackendError
from mvrender.jobs import Converted, Failed, Opened, Operation, Rendered, RenderJob, RenderSpec
from mvrender.renderer import Views
from mvrender.wire import receive, send

_START_TIMEOUT_S = 180.0
"""Opening a renderer takes about 1 s; 10 s with compilation, the first time on a machine, and longer on a busy one."""

# Escape sequences of terminals, and control characters but line breaks.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x09\x0b-\x1f\x7f-\x9f]")

_Result = TypeVar("_Result")
_PACKAGE_ROOT = Path(__file__).parent.parent


class _WorkerDied(Exception):
    """The worker ended during a request."""


class WorkerProcess:
    """One worker process. It is started when needed, and again after it died."""

    def __init__(self, spec: RenderSpec) -> None:
        """Prepare; the process starts with the first file or `warm_up`."""
        self._spec = spec
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._stderr: IO[bytes] | None = None
        self._stderr_start = 0
        self._lifeline = -1
        """A pipe that closes when this process ends, in whatever way; the worker ends then."""
        # Held for a whole file: messages of two threads would mix in the pipe.
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Process id; None if the process is not started."""
        return None if self._process is None else self._process.pid

    def warm_up(self) -> None:
        """Start the process without waiting for it, unless another thread uses it."""
        if self._lock.acquire(blocking=False):
            try:
                self._start()
            finally:
                self._lock.release()

    def process(
        self, job: RenderJob, needs_views: Callable[[Opened], bool], op: Operation
    ) -> Rendered | Converted | Failed:
        """Load one file, and render or convert it.

        Raises:
            BackendError: the renderer cannot start.
        """
        return self._with_timeout(job, lambda process: self._process_file(process, job, needs_views, op))

    def decode_image(self, path: Path, side: int) -> NDArray[np.uint8] | Failed:
        """Pixels of an image (see `image_formats.small_rgba`).

        Raises:
            BackendError: the renderer cannot start.
        """
        job = RenderJob(path)

        def exchange(process: subprocess.Popen[bytes]) -> NDArray[np.uint8] | Failed:
            head, body = _exchange(process, {"op": "image", "path": str(path.absolute()), "side": side})
            if "code" in head:
                return self._failed(job, head)
            return np.frombuffer(body, np.uint8).reshape(head["shape"])

        return self._with_timeout(job, exchange)

    def stop(self) -> None:
        """Kill the process."""
        # Taken at once: two threads may stop it at the same time.
        process, self._process = self._process, None
        lifeline, self._lifeline = self._lifeline, -1
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        if lifeline >= 0:
            os.close(lifeline)
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None

    def _start(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                return
            self.stop()  # it died between two files (out of memory, for instance): the next file is not the cause
        environment = dict(
            os.environ,
            PYTHONPATH=os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")])),
            OMP_NUM_THREADS="1",
            OPENBLAS_NUM_THREADS="1",
        )
        self._stderr = tempfile.TemporaryFile()
        self._stderr_start = 0
        lifelines = self._new_lifeline()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mvrender.worker", *map(str, lifelines)],
                pass_fds=lifelines,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=environment,
                # `-m` puts the working folder first on the path: a user's numpy.py must not be imported.
                cwd=_PACKAGE_ROOT,
                start_new_session=True,  # Ctrl-C reaches only the caller, who ends the workers
            )
        except BaseException:
            self.stop()
            raise
        finally:
            for their_end in lifelines:
                os.close(their_end)
        self._ready = False
        self._open()

    def _new_lifeline(self) -> list[int]:
        """The worker's end of a new lifeline; none where the kernel does not signal that a pipe was closed."""
        if sys.platform != "linux":
            return []
        their_end, self._lifeline = os.pipe()
        return [their_end]

    def _open(self) -> None:
        """Send the specification; `_await_ready` receives the reply."""
        assert self._process is not None and self._process.stdin is not None
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
        with contextlib.suppress(OSError):  # it died at once; `_await_ready` reports the cause
            send(self._process.stdin, head)  # type: ignore[arg-type]

    def _await_ready(self) -> None:
        process = self._process
        assert process is not None and process.stdout is not None
        # A broken GL driver may hang instead of failing. Then only the worker hangs.
        timer = threading.Timer(_START_TIMEOUT_S, process.kill)
        timer.daemon = True
        timer.start()
        try:
            head, _ = receive(process.stdout)  # type: ignore[arg-type]
        except EOFError:
            timed_out = not timer.is_alive()
            exit_code = process.wait()
            tail = self._stderr_tail()
            self.stop()
            raise self._start_error(timed_out, exit_code, tail) from None
        finally:
            timer.cancel()
        if "code" in head:
            self.stop()
            raise BackendError(head["message"], code=head["code"])
        self._ready = True

    def _start_error(self, timed_out: bool, exit_code: int, tail: str) -> BackendError:
        if timed_out:
            problem = f"was not ready after {_START_TIMEOUT_S:g} s (the machine may be too busy)"
        else:
            problem = f"ended before it was ready (exit code {exit_code}){tail}"
        return BackendError(
            f"the worker of backend '{self._spec.backend}' {problem}: run 'mvr doctor' to check the renderers",
            code="worker_start_timeout" if timed_out else "worker_start_failed",
        )

    def _with_timeout(self, job: RenderJob, run: Callable[[subprocess.Popen[bytes]], _Result]) -> _Result | Failed:
        """The result of some requests about one file, or why there is none. Starts the process if it is not running."""
        with self._lock:
            self._start()
            if not self._ready:
                self._await_ready()
            return self._with_timer(job, run)

    def _with_timer(self, job: RenderJob, run: Callable[[subprocess.Popen[bytes]], _Result]) -> _Result | Failed:
        process = self._process
        assert process is not None
        timed_out = threading.Event()
        if self._stderr is not None:
            self._stderr_start = os.fstat(self._stderr.fileno()).st_size

        def kill() -> None:
            timed_out.set()
            process.kill()

        timer = threading.Timer(self._spec.limits.seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            return run(process)
        except _WorkerDied:
            exit_code = process.wait()
            tail = self._stderr_tail()
            self.stop()
            return self._failure(job, timed_out.is_set(), exit_code, tail)
        except BaseException:
            self.stop()  # in the middle of a request: its reply would be taken for that of the next file
            raise
        finally:
            timer.cancel()
            timer.join()
            if timed_out.is_set():
                self.stop()  # even if the reply came first: the next file needs a living worker

    def _failure(self, job: RenderJob, timed_out: bool, exit_code: int, tail: str) -> Failed:
        if timed_out:
            limit = f"{self._spec.limits.seconds:g} s"
            return Failed(job, "timeout", f"took longer than {limit}; raise --max-seconds and give --retry")
        cause = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
        return Failed(job, "renderer_crash", f"the worker crashed ({cause}){tail}; the file is probably damaged")

    def _process_file(
        self, process: subprocess.Popen[bytes], job: RenderJob, needs_views: Callable[[Opened], bool], op: Operation
    ) -> Rendered | Converted | Failed:
        # Absolute paths: the worker has its own working folder.
        root = str(job.root.absolute()) if job.root else None
        head, _ = _exchange(process, {"op": "load", "path": str(job.path.absolute()), "root": root, "up": job.up})
        if "code" in head:
            return self._failed(job, head)
        opened = Opened(
            job, head["content_hash"], tuple(head["references"]), head["up"], head["facts"], tuple(head["notes"])
        )
        if not needs_views(opened):
            return Rendered(opened, None)
        head, body = _exchange(process, {"op": op})
        if "code" in head:
            return self._failed(job, head)
        if op == "glb":
            return Converted(opened, body)
        strip_length = head["strip"]
        images = np.frombuffer(body, np.uint8, offset=strip_length).reshape(head["shape"])
        views = Views(images, np.array(head["mask"], bool), self._spec.rig.cam_to_world)
        return Rendered(opened, views, body[:strip_length])

    def _failed(self, job: RenderJob, head: dict[str, Any]) -> Failed:
        if head["code"] == "out_of_memory":
            self.stop()  # not all of its memory was freed, and the next file would have less
        return Failed(job, head["code"], head["message"])

    def _stderr_tail(self) -> str:
        """The last line that libraries printed about the current file, without control characters."""
        if self._stderr is None:
            return ""
        self._stderr.seek(self._stderr_start)
        text = _CONTROL.sub("", self._stderr.read().decode(errors="replace"))
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return f": {lines[-1][:200]}" if lines else ""


def _exchange(process: subprocess.Popen[bytes], request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Send a request and receive the reply."""
    assert process.stdin is not None and process.stdout is not None
    try:
        send(process.stdin, request)  # type: ignore[arg-type]
        return receive(process.stdout)  # type: ignore[arg-type]
    except (EOFError, OSError, ValueError) as error:  # ValueError: another thread closed the pipe
        raise _WorkerDied from error
