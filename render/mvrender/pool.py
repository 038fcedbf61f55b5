"""A pool of worker processes. Every file ends as one result, also if its worker crashes."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from mvrender.cameras import parse_rig
from mvrender.errors import MeshError, RigError
from mvrender.jobs import Converted, Failed, Opened, Operation, Rendered, RenderJob, RenderSpec, always
from mvrender.renderer import check_size
from mvrender.worker_process import WorkerProcess


class RenderPool:
    """Worker processes for one `RenderSpec`. Use as a context manager, or call `close`."""

    def __init__(self, spec: RenderSpec, n_workers: int | None = None) -> None:
        """Prepare workers; each starts with its first file.

        Args:
            spec: how files become views.
            n_workers: number of processes; one per core by default.

        Raises:
            RigError: the view size or the number of workers is out of range, or the rig differs from that of its name.
        """
        check_size(spec.size)
        if n_workers is not None and n_workers < 1:
            raise RigError(f"{n_workers} workers are too few: give at least 1", code="bad_worker_count")
        named = parse_rig(spec.rig.name)  # workers receive only the name
        if named.fov_y_deg != spec.rig.fov_y_deg or not np.array_equal(named.cam_to_world, spec.rig.cam_to_world):
            raise RigError(
                f"the cameras differ from those of rig '{named.name}': workers support only rigs made by parse_rig",
                code="rig_mismatch",
            )
        self.spec = spec
        self._workers = [WorkerProcess(spec) for _ in range(n_workers or os.cpu_count() or 1)]
        # Last in, first out: consecutive single renders use the same worker, and the others are not started.
        self._free: queue.LifoQueue[WorkerProcess] = queue.LifoQueue()
        for worker in reversed(self._workers):
            self._free.put(worker)

    def run(
        self, jobs: Iterable[RenderJob], needs_views: Callable[[Opened], bool] = always
    ) -> Iterator[Rendered | Failed]:
        """Load and render files; results come in order of completion.

        Args:
            jobs: read one by one as workers become free; may be endless.
            needs_views: called for each loaded file, from several threads; False skips rendering.

        Raises:
            BackendError: the renderer cannot start.
        """
        source = iter(jobs)
        source_lock = threading.Lock()
        # Bounded: a slow reader makes the workers wait instead of filling the memory.
        results: queue.Queue[Rendered | Failed | BaseException | None] = queue.Queue(2 * len(self._workers))
        stop = threading.Event()

        def put(item: Rendered | Failed | BaseException | None) -> None:
            while not stop.is_set():
                try:
                    results.put(item, timeout=0.1)
                    return
                except queue.Full:
                    continue

        def work(worker: WorkerProcess) -> None:
            try:
                while not stop.is_set():
                    with source_lock:
                        job = next(source, None)
                    if job is None:
                        break
                    result = worker.process(job, needs_views, "render")
                    assert not isinstance(result, Converted)
                    put(result)
            except BaseException as error:  # raised by the reader
                put(error)
            finally:
                put(None)

        threads = [threading.Thread(target=work, args=(worker,), daemon=True) for worker in self._workers]
        for thread in threads:
            thread.start()
        n_running = len(threads)
        try:
            while n_running:
                item = results.get()
                if item is None:
                    n_running -= 1
                elif isinstance(item, BaseException):
                    raise item
                else:
                    yield item
        finally:
            stop.set()
            self._join(threads, kill=n_running > 0)

    def _join(self, threads: Iterable[threading.Thread], kill: bool) -> None:
        """Wait for threads; with `kill` (the reader left early) do not wait for slow files."""
        if kill:
            self.close()
        for thread in threads:
            thread.join()
        if kill:
            self.close()  # a thread may have started another worker meanwhile

    def render(self, job: RenderJob) -> Rendered:
        """Load and render one file. Thread-safe: each call uses a free worker.

        Raises:
            MeshError: the file cannot be rendered; the code is that of the failure.
            BackendError: the renderer cannot start.
        """
        result = self._process(job, "render")
        assert isinstance(result, Rendered)
        return result

    def convert(self, job: RenderJob) -> Converted:
        """Load one file and convert it to GLB. Thread-safe.

        Raises:
            MeshError: the file cannot be converted; the code is that of the failure.
            BackendError: the renderer cannot start.
        """
        result = self._process(job, "glb")
        assert isinstance(result, Converted)
        return result

    def decode_image(self, path: Path, side: int) -> NDArray[np.uint8]:
        """Pixels (h, w, 4) of an image, upright and at most `side` wide and high, decoded in a worker. Thread-safe.

        Raises:
            MeshError: it cannot be decoded within the limits; the code is that of the failure.
            BackendError: the renderer cannot start.
        """
        with self._free_worker() as worker:
            result = worker.decode_image(path, side)
        if isinstance(result, Failed):
            raise _error_of(result)
        return result

    def _process(self, job: RenderJob, op: Operation) -> Rendered | Converted:
        with self._free_worker() as worker:
            result = worker.process(job, always, op)
        if isinstance(result, Failed):
            raise _error_of(result)
        return result

    @contextmanager
    def _free_worker(self) -> Iterator[WorkerProcess]:
        """Wait for a free worker, and use it within the block."""
        free = self._free
        worker = free.get()
        try:
            yield worker
        finally:
            free.put(worker)

    @property
    def n_workers(self) -> int:
        """Number of processes once all are started."""
        return len(self._workers)

    def warm_up(self, count: int | None = None) -> None:
        """Start the first `count` workers (all by default) in the background."""
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


def _error_of(failed: Failed) -> MeshError:
    return MeshError(failed.code, failed.message)  # type: ignore[arg-type]
