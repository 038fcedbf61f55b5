"""Routes for jobs: folders that are indexed in the background."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as PathParameter

from mvretrieval.errors import did_you_mean
from mvretrieval.ingest.index_report import IndexReport
from mvretrieval.service.auth import api_router
from mvretrieval.service.jobs import Job
from mvretrieval.service.problems import ProblemError, problem_responses
from mvretrieval.service.schemas import FailureModel, JobModel, JobRequest, ReportModel
from mvretrieval.service.search_service import SearchService

_JobId = Annotated[int, PathParameter(ge=1, le=2**31)]


def job_routes(service: SearchService) -> APIRouter:
    """Start, list, show and stop jobs."""
    router = api_router(service.settings, "jobs", "write")
    jobs, folders, show_paths = service.jobs, service.settings.folders, service.settings.show_paths

    @router.post("/jobs", status_code=HTTPStatus.ACCEPTED, responses=problem_responses(404, 422, 429))
    def start_job(request: JobRequest) -> JobModel:
        """Index one of the folders that the service was started with. Files that are unchanged are skipped."""
        if request.folder not in folders:
            raise ProblemError(
                "no_such_folder",
                f"no folder '{request.folder}': {did_you_mean(request.folder, list(folders))}"
                "folders are set when the service is started, with 'mvr serve --folder NAME=PATH'",
            )
        return _job_model(
            jobs.start(request.folder, folders[request.folder], request.retry, request.prune, request.up), show_paths
        )

    @router.get("/jobs")
    def list_jobs() -> list[JobModel]:
        """The latest jobs, newest first."""
        return [_job_model(job, show_paths) for job in jobs.all()]

    @router.get("/jobs/{job_id}", responses=problem_responses(404, 422))
    def get_job(job_id: _JobId) -> JobModel:
        """State and progress of a job."""
        return _job_model(jobs.get(job_id), show_paths)

    @router.delete("/jobs/{job_id}", responses=problem_responses(404, 422))
    def stop_job(job_id: _JobId) -> JobModel:
        """Stop a job. What it has indexed stays."""
        job = jobs.get(job_id)
        jobs.stop(job)
        return _job_model(job, show_paths)

    return router


def _job_model(job: Job, show_paths: bool) -> JobModel:
    return JobModel(
        id=job.id,
        folder=job.folder,
        state=job.state,
        done=job.done,
        total=job.total,
        message=job.message,
        code=job.code,
        report=None if job.report is None else _report_model(job.report, show_paths),
    )


def _report_model(report: IndexReport, show_paths: bool) -> ReportModel:
    failures = [
        FailureModel(file=path if show_paths else Path(path).name, code=code, message=message)
        for path, code, message in report.failures
    ]
    return ReportModel.model_validate({**vars(report), "failures": failures})
