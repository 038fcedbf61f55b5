"""A service over a collection of a test's own, behind a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mvretrieval.api import Collection
from mvretrieval.service.settings import ServiceSettings

uvicorn = pytest.importorskip("uvicorn", reason="the service is not installed: pip install 'mvretrieval[serve]'")


@contextmanager
def served(collection: Collection, settings: ServiceSettings | None = None) -> Iterator[str]:
    """Its address."""
    from mvretrieval.service.app import create_app

    server = uvicorn.Server(uvicorn.Config(create_app(collection, settings), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
