"""Folders indexed over HTTP, as jobs."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path

from mvretrieval.errors import did_you_mean
from mvretrieval.service.guard import guarded
from mvretrieval.service.jobs import Job
from mvretrieval.service.models import JobModel, JobRequest
from mvretrieval.service.problems import ProblemError, refusals
from mvretrieval.service.search_service import SearchService

_Number = Annotated[int, Path(ge=1, le=2**31)]


def routes(served: SearchService) -> APIRouter:
    """Routes of jobs."""
    router = guarded(served.settings, "jobs", writes=True)
    jobs, folders = served.jobs, served.settings.folders

    @router.post("/jobs", status_code=HTTPStatus.ACCEPTED, responses=refusals(404, 429))
    def start(request: JobRequest) -> JobModel:
        """Index a folder of those that the service was started with; files that are there already are passed over."""
        if request.folder not in folders:
            raise ProblemError(
                HTTPStatus.NOT_FOUND,
                "no_such_folder",
                f"no folder '{request.folder}': {did_you_mean(request.folder, list(folders))}"
                "a service indexes those that it was started with, mvr serve --folder NAME=PATH",
            )
        return _told(jobs.start(request.folder, folders[request.folder], request.retry, request.prune))

    @router.get("/jobs")
    def latest() -> list[JobModel]:
        """The latest jobs, newest first."""
        return [_told(job) for job in jobs.all()]

    @router.get("/jobs/{number}", responses=refusals(404))
    def one(number: _Number) -> JobModel:
        """How a job is going."""
        return _told(jobs.get(number))

    @router.delete("/jobs/{number}", responses=refusals(404))
    def stop(number: _Number) -> JobModel:
        """End a job soon; what it has indexed stays."""
        job = jobs.get(number)
        jobs.stop(job)
        return _told(job)

    return router


def _told(job: Job) -> JobModel:
    return JobModel(
        number=job.number, folder=job.folder, state=job.state, done=job.done, total=job.total, message=job.message
    )
