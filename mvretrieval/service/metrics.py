"""Metrics for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mvretrieval.service.search_service import SearchService

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Metrics of one service, in a registry of its own: a process may run several services."""

    def __init__(self, service: SearchService) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter("mvr_requests", "Requests", ["method", "route", "status"], registry=self._registry)
        self._seconds = Histogram(
            "mvr_request_seconds",
            "Duration of requests",
            ["method", "route"],
            registry=self._registry,
            buckets=_BUCKETS_S,
        )
        self._registry.register(_ServiceState(service))

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(method, route, str(int(status))).inc()  # Python 3.10 writes names of HTTPStatus
        self._seconds.labels(method, route).observe(seconds)

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self._registry)


class RequestMetrics:
    """Middleware that counts and times requests by route. Paths contain ids and would give one series per object."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = 500, time.perf_counter()

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note_status)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.count(method, route, status, time.perf_counter() - started)


class _ServiceState(Collector):
    """Gauges of the current state."""

    def __init__(self, service: SearchService) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        service = self._service
        yield GaugeMetricFamily("mvr_objects", "Objects in the collection", len(service.collection))
        yield GaugeMetricFamily(
            "mvr_waiting", "Requests that are rendered and encoded, or wait for it", service.limiter.n_entered
        )
        yield GaugeMetricFamily("mvr_ready", "1 if the encoder and the index are loaded", float(service.is_ready))
        yield GaugeMetricFamily("mvr_jobs_running", "1 while a folder is being indexed", float(service.jobs.is_busy))
