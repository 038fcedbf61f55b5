"""Whether the service lives, what it serves, and numbers for those who watch it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel

from mvretrieval.service.guard import guarded
from mvretrieval.service.metrics import Metrics
from mvretrieval.service.models import CollectionModel
from mvretrieval.service.problems import ProblemError, refusals
from mvretrieval.service.search_service import SearchService


class State(BaseModel):
    """How the service is."""

    status: Literal["ok"] = "ok"


def open_routes(served: SearchService) -> APIRouter:
    """Routes that need no token."""
    router = APIRouter(tags=["system"])

    @router.get("/health")
    async def health() -> State:  # needs no thread: it lives as well when all have one
        """It lives."""
        return State()

    @router.get("/ready", responses=refusals(503))
    def ready() -> State:
        """It can answer at once."""
        if not served.is_ready:
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", served.why_not_ready, 2)
        return State()

    return router


def guarded_routes(served: SearchService, metrics: Metrics) -> APIRouter:
    """What is served, and how it goes."""
    router = guarded(served.settings, "system")

    @router.get("/collection")
    def collection() -> CollectionModel:
        """What is served, and what it can be asked with."""
        return served.about()

    @router.get(
        "/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}, "description": "numbers"}}
    )
    def numbers() -> Response:
        """Numbers for Prometheus."""
        return Response(metrics.text(), media_type="text/plain")

    return router
