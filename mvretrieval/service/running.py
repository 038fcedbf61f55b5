"""The application behind a socket, until it is told to stop."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from mvretrieval.errors import ServiceError

_SECONDS_TO_END = 8  # Docker kills after ten
# A thread that computes in Python gives way to those that answer after so long; by default after ten times that. With 32 clients
# and the cores full, the slowest hundredth of vector questions is a tenth faster.
_SWITCH_SECONDS = 0.0005


def serve(app: FastAPI, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Answer until SIGINT or SIGTERM; requests that have come in are answered first.

    Args:
        app: see `create_app`.
        host: address to listen at.
        port: port; 0 for a free one.
        announce: called with the address once it is listened at.

    Raises:
        ServiceError: the address cannot be had.
    """
    listening = _listen(host, port)
    everywhere = {"0.0.0.0", "::", ""}
    shown = socket.gethostname() if host in everywhere else f"[{host}]" if ":" in host else host
    announce(f"http://{shown}:{listening.getsockname()[1]}")
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_SECONDS_TO_END, server_header=False)
    sys.setswitchinterval(_SWITCH_SECONDS)
    # uvicorn raises the signal again when it has shut down, which would end the process before the collection is closed.
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        listening.close()


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port < 1 << 16:  # others are taken for their remainder
        raise ServiceError(f"a port is a number from 0 to 65535, not {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise ServiceError(
            f"cannot listen at {host}, port {port} ({error}): choose another with --host and --port"
        ) from error
    listening.listen(1024)
    return listening
