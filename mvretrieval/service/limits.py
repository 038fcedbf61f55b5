"""Limits of requests: bytes, pauses within a body, and requests at the same time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mvretrieval.service.problems import ProblemError
from mvretrieval.service.settings import ServiceSettings

_BODY_PAUSE_S = 30.0


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
    """Middleware that stops reading a body that is too long, whatever its header says, or that stalls."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        n_bytes, limit, is_complete = 0, _max_bytes(scope, self._settings), False

        async def limited() -> Message:
            nonlocal n_bytes, is_complete
            if is_complete:  # the next message is the end of the connection
                return await receive()
            try:
                with anyio.fail_after(_BODY_PAUSE_S):
                    message = await receive()
            except TimeoutError:
                raise ProblemError("body_timeout", f"no data for {_BODY_PAUSE_S:g} s: send the request again") from None
            n_bytes += len(message.get("body", b""))
            is_complete = not message.get("more_body", False)
            if n_bytes > limit:
                raise _too_large(limit)
            return message

        await self._app(scope, limited, send)


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
        self._waiting: deque[threading.Event] = deque()
        self._lock = threading.Lock()
        self._n_entered = 0

    @property
    def n_entered(self) -> int:
        """Number of threads that run or wait."""
        return self._n_entered

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn; it ends with the block.

        Raises:
            ProblemError: too many threads wait already, or the wait took too long.
        """
        with self._lock:
            if self._n_entered >= self.capacity:
                raise ProblemError("queue_full", f"{self._n_entered} requests are waiting: try again in a moment", 1)
            self._n_entered += 1
            my_turn = None if self._free else threading.Event()
            if my_turn is None:
                self._free -= 1
            else:
                self._waiting.append(my_turn)
        if my_turn is not None:
            self._wait(my_turn)
        try:
            yield
        finally:
            with self._lock:
                self._n_entered -= 1
                self._wake_next()

    def _wait(self, my_turn: threading.Event) -> None:
        if my_turn.wait(self._queue_timeout_s):
            return
        with self._lock:
            self._n_entered -= 1
            if my_turn.is_set():  # it came just after the timeout
                self._wake_next()
            else:
                self._waiting.remove(my_turn)
        raise ProblemError("queue_timeout", f"no free place within {self._queue_timeout_s:g} s: try again later", 10)

    def _wake_next(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._free += 1
