"""Routes for the state of the service: health, readiness, the collection, metrics."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel

from mvretrieval.service.auth import api_router
from mvretrieval.service.metrics import Metrics
from mvretrieval.service.problems import ProblemError, problem_responses
from mvretrieval.service.schemas import CollectionModel
from mvretrieval.service.search_service import SearchService


class Status(BaseModel):
    """State of the service."""

    status: Literal["ok"] = "ok"


def health_routes(service: SearchService) -> APIRouter:
    """Routes that never need the token."""
    router = APIRouter(tags=["system"])

    @router.get("/health")
    async def health() -> Status:  # async: it responds even if all threads are busy
        """The service runs."""
        return Status()

    @router.get("/ready", responses=problem_responses(503))
    def ready() -> Status:
        """The encoder and the index are loaded."""
        if not service.is_ready:
            raise ProblemError("not_ready", service.not_ready_reason, 2)
        return Status()

    return router


def system_routes(service: SearchService, metrics: Metrics) -> APIRouter:
    """The collection and the metrics."""
    router = api_router(service.settings, "system")

    @router.get("/collection")
    def collection() -> CollectionModel:
        """The collection and what it can be searched with."""
        return service.info()

    @router.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}, "description": "metrics in the text format of Prometheus"}},
    )
    def prometheus_metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(metrics.text(), media_type="text/plain")

    return router
