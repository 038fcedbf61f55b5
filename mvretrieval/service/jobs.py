"""Long work with progress: indexing a folder of those that the service was started with."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Literal

from mvrender.errors import MvrenderError
from mvrender.mesh import Limits
from mvretrieval.api import Collection
from mvretrieval.errors import MvrError
from mvretrieval.ingest.index_report import IndexOptions, IndexReport
from mvretrieval.service.problems import ProblemError, told

_KEPT = 100
_WAITING = 16
_log = logging.getLogger("mvretrieval.service")
JobState = Literal["waiting", "running", "done", "failed", "stopped"]


class Job:
    """One folder that is indexed, was or will be."""

    def __init__(self, number: int, folder: str, path: Path, retry: bool, prune: bool) -> None:
        """Ask for it; `Jobs` does it."""
        self.number, self.folder, self.path, self.retry, self.prune = number, folder, path, retry, prune
        self.state: JobState = "waiting"
        self.done = self.total = 0
        self.message = ""
        self.should_stop = False

    @property
    def is_over(self) -> bool:
        """Nothing more will happen."""
        return self.state not in ("waiting", "running")


class _Stopped(Exception):
    pass


class Jobs:
    """Done one after the other, by one thread. What is indexed stays so when a job is stopped."""

    def __init__(self, collection: Collection, writing: threading.Lock) -> None:
        """Nothing to do yet.

        Args:
            collection: open for writing, if there will be jobs.
            writing: held while a job writes.
        """
        self._collection = collection
        self._writing = writing
        self._jobs: dict[int, Job] = {}
        self._last = 0
        self._lock = threading.Lock()
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        """A job runs or waits."""
        return any(not job.is_over for job in self.all())

    def all(self) -> list[Job]:
        """The latest jobs, newest first."""
        with self._lock:
            return list(self._jobs.values())[::-1]

    def get(self, number: int) -> Job:
        """One of them.

        Raises:
            ProblemError: there is none, or it was long ago.
        """
        with self._lock:
            if number not in self._jobs:
                raise ProblemError(
                    HTTPStatus.NOT_FOUND, "no_such_job", f"no job {number}: GET /api/jobs lists the latest"
                )
            return self._jobs[number]

    def start(self, folder: str, path: Path, retry: bool, prune: bool) -> Job:
        """Index a folder when it is its turn.

        Raises:
            ProblemError: too many jobs wait.
        """
        with self._lock:
            if sum(not job.is_over for job in self._jobs.values()) >= _WAITING:
                raise ProblemError(
                    HTTPStatus.TOO_MANY_REQUESTS, "too_many", f"{_WAITING} jobs wait already: try again later", 60
                )
            self._last += 1
            job = self._jobs[self._last] = Job(self._last, folder, path, retry, prune)
            for old in [number for number, other in self._jobs.items() if other.is_over][
                : max(0, len(self._jobs) - _KEPT)
            ]:
                del self._jobs[old]
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
        self._queue.put(job)
        return job

    def stop(self, job: Job) -> None:
        """End a job soon; what it has indexed stays."""
        with self._lock:
            job.should_stop = True
            if job.state == "waiting":
                job.state = "stopped"

    def close(self) -> None:
        """Stop all jobs and wait until the one that runs has written what it has."""
        for job in self.all():
            if not job.is_over:
                self.stop(job)
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            with self._lock:
                if job.should_stop:
                    continue
                job.state = "running"
            state, message = self._index(job)
            with self._lock:
                job.state, job.message = state, message

    def _index(self, job: Job) -> tuple[JobState, str]:
        options = IndexOptions(retry=job.retry, prune=job.prune, limits=Limits(), progress=_progress_of(job))
        try:
            with self._writing:
                return "done", _counted(self._collection.add_folder(job.path, options=options))
        except _Stopped:
            return "stopped", f"stopped after {job.done} of {job.total} files; what was indexed stays"
        except (MvrError, MvrenderError) as error:
            _log.error("job %d: %s", job.number, error)
            return "failed", told(str(error), self._collection.folder)
        except Exception:  # a job that dies must not take those behind it along
            _log.exception("job %d", job.number)
            return "failed", "something went wrong here; the server's log tells what"


def _progress_of(job: Job) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        job.done, job.total = done, total
        if job.should_stop:
            raise _Stopped

    return progress


def _counted(report: IndexReport) -> str:
    counts = {
        "added": report.added,
        "replaced": report.replaced,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "failed": sum(report.failed.values()),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "no meshes there"
