"""Connections of the service: how many there are, and how long a request's head may take."""

from __future__ import annotations

import asyncio
import resource

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_TIMEOUT_S = 10.0
_MAX_CONNECTIONS = 4000
_OTHER_FILES = 256  # database, index, pipes of workers, uploads
BACKLOG = 32
"""Connections that are accepted at once. Some four times as many are open before the first of them can be closed; without a free
file, asyncio accepts none for a second."""


def raise_file_limit() -> int:
    """Let this process open as many files as the system allows; returns the number of connections that leaves room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_CONNECTIONS + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return _MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(_MAX_CONNECTIONS, soft - _OTHER_FILES))


def limited_protocol(max_connections: int) -> type[H11Protocol]:
    """A protocol of uvicorn for at most so many connections at once.

    A connection without a complete head of a request is closed after `HEAD_TIMEOUT_S`, and earlier, the oldest first, if there
    would be too many. One is refused only if all others are in the middle of a request.
    """
    idle: dict[LimitedProtocol, None] = {}  # connections without a request in progress, the oldest first

    class LimitedProtocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._await_head()
            if len(self.connections) > max_connections:
                next(iter(idle)).close()  # perhaps this one

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def handle_events(self) -> None:
            super().handle_events()
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()

        def on_response_complete(self) -> None:
            self._await_head()
            super().on_response_complete()

        def close(self) -> None:
            """Close; a response that the client is still reading is sent to its end."""
            self._stop_waiting()
            if self.transport.get_write_buffer_size():
                self.transport.close()
            else:
                self.connections.discard(self)
                self.transport.abort()

        def _await_head(self) -> None:
            self._stop_waiting()
            idle[self] = None
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self.close)

        def _stop_waiting(self) -> None:
            idle.pop(self, None)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return LimitedProtocol
