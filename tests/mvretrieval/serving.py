"""A service over a collection of a test's own, behind a real socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from waiting import be_patient_over_http, wait_for

from mvretrieval.api import Collection
from mvretrieval.service.settings import ServiceSettings

uvicorn = pytest.importorskip("uvicorn", reason="the service is not installed: pip install 'mvretrieval[serve]'")
be_patient_over_http(httpx)


@contextmanager
def served(collection: Collection, settings: ServiceSettings | None = None) -> Iterator[str]:
    """Its address."""
    from mvretrieval.service.app import create_app

    server = uvicorn.Server(uvicorn.Config(create_app(collection, settings), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started or not thread.is_alive())
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
