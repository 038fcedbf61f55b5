"""A service over a collection of a test's own, behind a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from waiting import be_patient_over_http, wait_for

from mvretrieval.api import Collection
from mvretrieval.service.settings import ServiceSettings

pytest.importorskip("uvicorn", reason="the service is not installed: pip install 'mvretrieval[serve]'")
be_patient_over_http(httpx)


@contextmanager
def served(
    collection: Collection, settings: ServiceSettings | None = None, max_connections: int = 500
) -> Iterator[str]:
    """Its address."""
    from mvretrieval.service.app import create_app
    from mvretrieval.service.server import server_of

    server = server_of(create_app(collection, settings), max_connections)
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    wait_for(lambda: server.started or not thread.is_alive())
    assert server.started
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join()
