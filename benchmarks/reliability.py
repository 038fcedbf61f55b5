"""Benchmarks of the group `reliability`: a service under slow clients, and when it is told to stop."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks import data
from benchmarks.benchmark import Benchmark
from benchmarks.commands import fresh
from benchmarks.service import running
from mvretrieval.api import Collection
from mvretrieval.describe import DescriberConfig

_HEADS, _BODIES, _OPEN_FILES = 1100, 50, 1024
_PROBES = 20
_QUERIES = 40


def slow_clients() -> dict[str, float]:
    """Longest time of /health while 1,100 clients send half a head and 50 send bodies without an end.

    The service may open 1,024 files, as many systems allow.
    """
    with running(_small_collection(), files=_OPEN_FILES) as (url, pid):
        done = threading.Event()
        heads = [_connected(url, b"GET /health HTTP/1.1\r\nHost: a\r\nX-") for _ in range(_HEADS)]
        bodies = [threading.Thread(target=_endless_body, args=(url, done)) for _ in range(_BODIES)]
        for thread in bodies:
            thread.start()
        took = [_seconds_of_health(url) for _ in range(_PROBES)]
        memory = psutil.Process(pid).memory_info().rss / 1e6
        done.set()
        for thread in bodies:
            thread.join()
        for head in heads:
            head.close()
        after = _seconds_of_health(url)
    return {"health s": max(took), "median s": sorted(took)[_PROBES // 2], "afterwards s": after, "service MB": memory}


def sigterm() -> dict[str, float]:
    """Responses to 40 mesh queries that wait when the service is told to stop: those that are neither hits nor a problem 503."""
    import httpx

    mesh = sorted(data.fixed_psb(20).iterdir())[0]
    with running(_small_collection(), "--workers", "1") as (url, pid), ThreadPoolExecutor(_QUERIES) as threads:

        def search(_: int) -> httpx.Response:
            query = json.dumps({"terms": [{"mesh": mesh.name}]})
            with httpx.Client(timeout=120) as client:
                files = {"files": (mesh.name, mesh.read_bytes())}
                return client.post(f"{url}/api/search/upload", data={"query": query}, files=files)

        pending = [threads.submit(search, i) for i in range(_QUERIES)]
        while _n_waiting(httpx.get(f"{url}/api/metrics").text) + sum(one.done() for one in pending) < _QUERIES:
            time.sleep(0.01)
        started = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        psutil.Process(pid).wait(60)
        seconds = time.monotonic() - started
        responses = [one.result() for one in pending]
    refused = [
        r for r in responses if r.status_code == 503 and r.json()["code"] == "stopping" and "Retry-After" in r.headers
    ]
    found = [r for r in responses if r.status_code == 200]
    return {
        "other responses": len(responses) - len(refused) - len(found),
        "end s": seconds,
        "hits": len(found),
        "refused": len(refused),
    }


def _small_collection() -> Path:
    folder = fresh("reliability")
    with Collection.create(folder, DescriberConfig("builtin:", rig="ring:3@30", size=64)) as collection:
        collection.add_folder(data.fixed_psb(20))
    return folder


def _connected(url: str, content: bytes) -> socket.socket:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * _HEADS)), hard))
    place = urlsplit(url)
    assert place.port
    connection = socket.create_connection((place.hostname, place.port), timeout=60)
    connection.sendall(content)
    return connection


def _endless_body(url: str, done: threading.Event) -> None:
    """Send a body of unlimited length in small parts; again, when the service has closed the connection."""
    head = b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    while not done.is_set():
        try:
            with _connected(url, head) as connection:
                while not done.wait(0.05):
                    connection.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
        except OSError:
            continue


def _seconds_of_health(url: str) -> float:
    import httpx

    started = time.monotonic()
    httpx.get(f"{url}/health", timeout=60).raise_for_status()
    return time.monotonic() - started


def _n_waiting(metrics: str) -> int:
    found = re.search(r"^mvr_waiting (\S+)", metrics, re.MULTILINE)
    assert found
    return int(float(found[1]))


BENCHMARKS = (
    Benchmark(
        "slow-clients", "reliability", "1,100 half-sent heads and 50 endless bodies at 1,024 open files: longest time of /health",
        {"health s": 1}, slow_clients, at_most=True,
    ),
    Benchmark(
        "sigterm", "reliability", "40 mesh queries waiting at SIGTERM: neither hits nor a 503 as JSON; seconds to the end",
        {"other responses": 0, "end s": 8}, sigterm, at_most=True,
    ),
)  # fmt: skip
