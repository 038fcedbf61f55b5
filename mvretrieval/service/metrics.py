"""Numbers for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mvretrieval.service.search_service import SearchService

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters of one service."""

    def __init__(self, served: SearchService) -> None:
        """Count for a service; several in one process count for themselves."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "mvr_requests", "Requests answered", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "mvr_request_seconds", "Time to answer", ["method", "route"], registry=self._registry, buckets=_SECONDS
        )
        self._registry.register(_State(served))

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request more."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self._registry)


class Meter:
    """Counts requests by route, not by path: ids would make as many series as there are objects."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, timing."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = 500, time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.count(method, route, status, time.perf_counter() - started)


class _State(Collector):
    """What is so at the moment when somebody asks."""

    def __init__(self, served: SearchService) -> None:
        self._served = served

    def collect(self) -> Iterator[Metric]:
        served = self._served
        yield GaugeMetricFamily("mvr_objects", "Objects in the collection", len(served.collection))
        yield GaugeMetricFamily(
            "mvr_waiting", "Requests that are rendered and encoded, or wait for it", served.limiter.inside
        )
        yield GaugeMetricFamily("mvr_ready", "1 when questions are answered at once", float(served.is_ready))
        yield GaugeMetricFamily("mvr_jobs_running", "Folders that are being indexed", float(served.jobs.is_busy))
