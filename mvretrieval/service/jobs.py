"""Jobs: folders that are indexed in the background, one after the other."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from mvrender.errors import MvrenderError
from mvrender.mesh import Limits, UpAxis
from mvretrieval.api import Collection
from mvretrieval.errors import MvrError
from mvretrieval.ingest.index_report import IndexOptions, IndexReport
from mvretrieval.service.problems import ProblemError, redact_paths

_MAX_LISTED = 100
_MAX_WAITING = 16
_log = logging.getLogger("mvretrieval.service")
JobState = Literal["waiting", "running", "done", "failed", "stopped"]


class Job:
    """One run over a folder: waiting, running or over.

    Attributes:
        id: from 1, in the order of the requests.
        folder: name of the folder.
        path: of the folder.
        state: of the run.
        done: files so far.
        total: files of the run.
        message: summary, or why it failed.
        code: of the error, if it failed.
        report: counts, once it is done.
    """

    def __init__(
        self, id: int, folder: str, path: Path, retry: bool = False, prune: bool = False, up: UpAxis | None = None
    ) -> None:
        self.id, self.folder, self.path = id, folder, path
        self.retry, self.prune, self.up = retry, prune, up
        self.state: JobState = "waiting"
        self.done = self.total = 0
        self.message = self.code = ""
        self.report: IndexReport | None = None
        self.stop_requested = False

    @property
    def is_over(self) -> bool:
        """Whether it is done, failed or stopped."""
        return self.state not in ("waiting", "running")


class _Stopped(Exception):
    pass


class JobQueue:
    """Runs jobs in one thread. What a job has indexed stays when it is stopped."""

    def __init__(self, collection: Collection, write_lock: threading.Lock) -> None:
        """Nothing to do yet.

        Args:
            collection: open for writing, if there will be jobs.
            write_lock: held while a job runs.
        """
        self._collection = collection
        self._write_lock = write_lock
        self._jobs: dict[int, Job] = {}
        self._last_id = 0
        self._lock = threading.Lock()
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a job runs or waits."""
        return any(not job.is_over for job in self.all())

    def all(self) -> list[Job]:
        """The latest jobs, newest first."""
        with self._lock:
            return list(self._jobs.values())[::-1]

    def get(self, job_id: int) -> Job:
        """One job.

        Raises:
            ProblemError: there is no such job, or it is too old.
        """
        with self._lock:
            if job_id not in self._jobs:
                raise ProblemError("no_such_job", f"no job {job_id}: GET /api/jobs lists the latest")
            return self._jobs[job_id]

    def start(self, folder: str, path: Path, retry: bool = False, prune: bool = False, up: UpAxis | None = None) -> Job:
        """Queue a job.

        Raises:
            ProblemError: too many jobs are waiting.
        """
        with self._lock:
            if sum(not job.is_over for job in self._jobs.values()) >= _MAX_WAITING:
                raise ProblemError("queue_full", f"{_MAX_WAITING} jobs are waiting: try again later", 60)
            self._last_id += 1
            job = self._jobs[self._last_id] = Job(self._last_id, folder, path, retry, prune, up)
            n_extra = max(0, len(self._jobs) - _MAX_LISTED)
            for old in [job_id for job_id, other in self._jobs.items() if other.is_over][:n_extra]:
                del self._jobs[old]
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
        self._queue.put(job)
        return job

    def stop(self, job: Job) -> None:
        """Stop a job soon; what it has indexed stays."""
        with self._lock:
            job.stop_requested = True
            if job.state == "waiting":
                job.state = "stopped"

    def stop_all(self) -> None:
        """Stop all jobs soon."""
        for job in self.all():
            if not job.is_over:
                self.stop(job)

    def close(self) -> None:
        """Stop all jobs, and wait until the running one has written its results."""
        self.stop_all()
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            with self._lock:
                if job.stop_requested:
                    continue
                job.state = "running"
            state, message = self._run(job)
            with self._lock:
                job.state, job.message = state, message

    def _run(self, job: Job) -> tuple[JobState, str]:
        options = IndexOptions(up=job.up, retry=job.retry, prune=job.prune, limits=Limits(), progress=_progress_of(job))
        try:
            with self._write_lock:
                job.report = self._collection.add_folder(job.path, options=options)
            return "done", _summary(job.report)
        except _Stopped:
            return "stopped", f"stopped after {job.done} of {job.total} files; what was indexed stays"
        except (MvrError, MvrenderError) as error:
            _log.error("job %d: %s", job.id, error)
            job.code = error.code
            return "failed", redact_paths(str(error), self._collection.folder)
        except Exception:  # the jobs behind it still run
            _log.exception("job %d", job.id)
            job.code = "internal_error"
            return "failed", "unexpected error: see the log of the service"


def _progress_of(job: Job) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        job.done, job.total = done, total
        if job.stop_requested:
            raise _Stopped

    return progress


def _summary(report: IndexReport) -> str:
    counts = {
        "added": report.added,
        "replaced": report.replaced,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "failed": sum(report.failed.values()),
    }
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no meshes in this folder"
