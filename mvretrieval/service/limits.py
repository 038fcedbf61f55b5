"""Limits of requests: bytes, the time of a body, and requests at the same time."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mvretrieval.service.problems import ProblemError, problem_response
from mvretrieval.service.settings import ServiceSettings

_BODY_PAUSE_S = 30.0
_BODY_GRACE_S, _SLOWEST_BYTES_PER_S = 30.0, 10_000
_RETRY_S = 5


def check_content_length(request: Request, settings: ServiceSettings) -> None:
    """Refuse a request whose header announces too many bytes."""
    length, limit = request.headers.get("content-length", ""), _max_bytes(request.scope, settings)
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)


def _max_bytes(scope: Scope, settings: ServiceSettings) -> int:
    """Limit of the body. JSON has a lower one: it is parsed in one go, and blocks all other requests meanwhile."""
    is_multipart = Headers(scope=scope).get("content-type", "").lower().startswith("multipart/form-data")
    return settings.max_upload_bytes if is_multipart else min(settings.max_json_bytes, settings.max_upload_bytes)


def _too_large(limit: int) -> ProblemError:
    return ProblemError("too_large", f"the request has more than {limit / 2**20:.3g} MiB")


class BodyLimit:
    """Middleware that stops reading a body that is too long, whatever its header says, or that arrives too slowly.

    It also limits the bytes of all requests in progress, which are kept in memory and in temporary files.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        self._settings = settings
        self._n_under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        n_bytes, limit, is_complete, started = 0, _max_bytes(scope, self._settings), False, time.monotonic()

        async def limited() -> Message:
            nonlocal n_bytes, is_complete
            if is_complete:  # the next message is the end of the connection
                return await receive()
            try:
                with anyio.fail_after(_BODY_PAUSE_S):
                    message = await receive()
            except TimeoutError:
                raise ProblemError("body_timeout", f"no data for {_BODY_PAUSE_S:g} s: send the request again") from None
            size = len(message.get("body", b""))
            n_bytes += size
            self._n_under_way += size
            is_complete = not message.get("more_body", False)
            if n_bytes > limit:
                raise _too_large(limit)
            if self._n_under_way > self._settings.max_bytes_under_way:
                raise ProblemError("uploads_full", "many files are being uploaded: try again in a moment", _RETRY_S)
            if time.monotonic() - started > _BODY_GRACE_S + n_bytes / _SLOWEST_BYTES_PER_S:
                rate = f"{_SLOWEST_BYTES_PER_S // 1000} kB/s"
                raise ProblemError(
                    "body_timeout", f"the body arrives at less than {rate}: send it faster, or less of it"
                )
            return message

        try:
            await self._app(scope, limited, send)
        finally:
            self._n_under_way -= n_bytes


class StoppedRequests:
    """Middleware that responds to requests which are still in progress when the service ends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        has_started = False

        async def noting(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:
            if scope["type"] != "http" or has_started:
                raise
            problem = stopping()
            response = problem_response(
                problem.status_code, problem.code, str(problem.detail), dict(problem.headers or {})
            )
            await response(scope, receive, send)


def stopping() -> ProblemError:
    """The error of requests that a stopping service refuses."""
    return ProblemError("stopping", "the service is stopping: try again in a moment", _RETRY_S)


@dataclass
class _Ticket:
    """A thread that waits: its turn has come, or it is refused."""

    is_called: threading.Event = field(default_factory=threading.Event)
    is_refused: bool = False


class FairLimiter:
    """Limits how many threads run at once and how many wait; those that wait run in the order of their arrival."""

    def __init__(self, max_running: int, max_waiting: int, queue_timeout_s: float) -> None:
        """Nothing runs yet.

        Args:
            max_running: threads that run at the same time.
            max_waiting: threads that wait; more are refused.
            queue_timeout_s: time after which a waiting thread is refused.
        """
        self.capacity = max_running + max_waiting
        self._free = max_running
        self._queue_timeout_s = queue_timeout_s
        # Not a semaphore: it wakes any waiting thread. Among 32 clients one waited for half a minute.
        self._waiting: deque[_Ticket] = deque()
        self._lock = threading.Lock()
        self._n_entered = 0
        self._is_closed = False

    @property
    def n_entered(self) -> int:
        """Number of threads that run or wait."""
        return self._n_entered

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn; it ends with the block.

        Raises:
            ProblemError: too many threads wait already, the wait took too long, or the service is stopping.
        """
        with self._lock:
            if self._is_closed:
                raise stopping()
            if self._n_entered >= self.capacity:
                raise ProblemError("queue_full", f"{self._n_entered} requests are waiting: try again in a moment", 1)
            self._n_entered += 1
            ticket = None if self._free else _Ticket()
            if ticket is None:
                self._free -= 1
            else:
                self._waiting.append(ticket)
        if ticket is not None:
            self._wait(ticket)
        try:
            yield
        finally:
            with self._lock:
                self._n_entered -= 1
                self._wake_next()

    def close(self) -> None:
        """Refuse all that wait, and all that come."""
        with self._lock:
            self._is_closed = True
            while self._waiting:
                ticket = self._waiting.popleft()
                ticket.is_refused = True
                ticket.is_called.set()

    def _wait(self, ticket: _Ticket) -> None:
        is_in_time = ticket.is_called.wait(self._queue_timeout_s)
        with self._lock:
            if is_in_time and not ticket.is_refused:
                return
            self._n_entered -= 1
            if ticket.is_refused:
                raise stopping()
            if ticket.is_called.is_set():  # its turn came just after the timeout
                self._wake_next()
            else:
                self._waiting.remove(ticket)
        raise ProblemError("queue_timeout", f"no free place within {self._queue_timeout_s:g} s: try again later", 10)

    def _wake_next(self) -> None:
        if self._waiting:
            self._waiting.popleft().is_called.set()
        else:
            self._free += 1
