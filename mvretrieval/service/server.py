"""Runs the application on a socket until the process receives a stop signal."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from mvretrieval.errors import ServiceError
from mvretrieval.service.connections import BACKLOG, limited_protocol, raise_file_limit

_WAITING_CONNECTIONS = 1024  # beyond them, clients try again a second later
_SHUTDOWN_S = 5  # for requests in progress; Docker kills after ten, and the collection is closed before
# Interval after which Python switches threads, a tenth of the default. With 32 clients and all cores busy, the p99 of vector
# queries is 10 % lower.
_SWITCH_INTERVAL_S = 0.0005


def serve(app: FastAPI, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM. Requests in progress are completed first; those that wait for their turn are refused.

    Args:
        app: see `create_app`.
        host: address to listen on.
        port: port; 0 for a free one.
        announce: called with the URL once the socket is open.

    Raises:
        ServiceError: the address cannot be used.
    """
    listener = _listen(host, port)
    all_interfaces = {"0.0.0.0", "::", ""}
    name = socket.gethostname() if host in all_interfaces else f"[{host}]" if ":" in host else host
    announce(f"http://{name}:{listener.getsockname()[1]}")
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    # uvicorn raises the signal again after its shutdown, which would end the process before the collection is closed.
    handlers = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server_of(app, raise_file_limit()).run(sockets=[listener])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        listener.close()


def server_of(app: FastAPI, max_connections: int) -> uvicorn.Server:
    """A server for an application from `create_app`."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        timeout_graceful_shutdown=_SHUTDOWN_S,
        server_header=False,
        http=limited_protocol(max_connections),
        ws="none",
        backlog=BACKLOG,
    )
    return _Server(config, app.state.stop)


class _Server(uvicorn.Server):
    """Calls a function when the process is told to stop."""

    def __init__(self, config: uvicorn.Config, stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():  # asyncio has one number for those that wait and those that it accepts at once
            listener.listen(_WAITING_CONNECTIONS)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # In a thread: a signal handler interrupts code that may hold the locks.
        threading.Thread(target=self._stop, daemon=True).start()
        super().handle_exit(sig, frame)


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port < 1 << 16:  # the socket API takes larger ones modulo 65536
        raise ServiceError(f"the port is {port}, and must be from 0 to 65535", code="bad_port")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ServiceError(
            f"cannot listen on {host}, port {port} ({error}): choose another with --host and --port",
            code="cannot_listen",
        ) from error
    listener.listen(_WAITING_CONNECTIONS)  # from now on clients wait instead of being refused
    return listener
