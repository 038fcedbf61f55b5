"""Render workers that outlive their pool: the next test takes them instead of starting others.

Starting a worker costs two seconds of CPU, rendering a test's meshes a few milliseconds. A pool that is closed therefore
parks its idle workers, by backend, limits and environment; a worker that is taken receives the specification of its new
pool. Workers that are busy, dead or out of step end as they always do.
"""

from __future__ import annotations

import os
import subprocess
import threading
from dataclasses import dataclass
from typing import IO, Any

from mvrender.pool import RenderPool
from mvrender.wire import receive
from mvrender.worker_process import WorkerProcess

_MOST = 4
"""Parked processes; each holds some hundred megabytes."""


@dataclass(eq=False)
class _Parked:
    key: object
    process: subprocess.Popen[bytes]
    errors: IO[bytes] | None
    lifeline: int
    is_ready: bool


class ParkedWorkers:
    """While `is_on`, workers are parked and taken."""

    def __init__(self) -> None:
        self.is_on = False
        self._parked: list[_Parked] = []
        self._lock = threading.Lock()  # several threads of a pool start their workers at once
        self._start, self._close = WorkerProcess._start, RenderPool.close

    def install(self) -> None:
        parking = self

        def start(worker: WorkerProcess) -> None:
            if parking.is_on and worker._process is None:
                parking._take(worker)
            parking._start(worker)

        def close(pool: RenderPool) -> None:
            if parking.is_on:
                for worker in pool._workers:
                    parking._park(worker)
            parking._close(pool)

        WorkerProcess._start = start  # type: ignore[assignment, method-assign]
        RenderPool.close = close  # type: ignore[assignment, method-assign]

    def uninstall(self) -> None:
        WorkerProcess._start, RenderPool.close = self._start, self._close  # type: ignore[method-assign]
        while self._parked:
            self._end(self._parked.pop())

    def _take(self, worker: WorkerProcess) -> None:
        key = _key(worker)
        with self._lock:
            found = next((each for each in self._parked if each.key == key and each.process.poll() is None), None)
            if found is not None:
                self._parked.remove(found)
        if found is None:
            return
        if not found.is_ready:
            try:
                receive(found.process.stdout)  # type: ignore[arg-type]  # the reply to its first specification
            except EOFError:
                self._end(found)
                return
        worker._process, worker._stderr, worker._ready = found.process, found.errors, False
        worker._lifeline = found.lifeline
        worker._open()

    def _park(self, worker: WorkerProcess) -> None:
        if not worker._lock.acquire(blocking=False):
            return
        try:
            process = worker._process
            if process is None or process.poll() is not None:
                return
            with self._lock:
                self._parked.append(_Parked(_key(worker), process, worker._stderr, worker._lifeline, worker._ready))
                surplus = [self._parked.pop(0) for _ in range(len(self._parked) - _MOST)]
            worker._process, worker._stderr, worker._lifeline = None, None, -1
        finally:
            worker._lock.release()
        for parked in surplus:
            self._end(parked)

    @staticmethod
    def _end(parked: _Parked) -> None:
        parked.process.kill()
        parked.process.wait()
        for file in (parked.process.stdin, parked.process.stdout, parked.errors):
            if file is not None:
                file.close()
        if parked.lifeline >= 0:
            os.close(parked.lifeline)


def _key(worker: WorkerProcess) -> Any:
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return worker._spec.backend, worker._spec.limits, environment
