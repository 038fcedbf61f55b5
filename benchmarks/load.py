"""Concurrent clients, as JSON: `python -m benchmarks.load URL MESHES QUERIES.npy SECONDS CLIENTS MESH_SHARE RAMP`.

Each client sends a vector query or, for a fraction MESH_SHARE, a mesh query, waits for the response and continues without a
pause, over one keep-alive connection. Clients start one after the other within RAMP seconds. Implemented on plain streams: a
client library would need as much CPU time as the service.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np


@dataclass
class _Kind:
    """One kind of query, with the times and errors of its requests."""

    name: str
    requests: list[bytes]
    ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> tuple[int, bytes]:
    """Send a request; returns status and body of the response."""
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = int(head.partition("content-length:")[2].split("\r\n")[0])
    return int(head.split(" ")[1]), await reader.readexactly(length)


async def _client(
    host: str, port: int, kinds: list[_Kind], mesh_share: float, until: float, seed: int, wait: float
) -> None:
    rng = random.Random(seed)
    await asyncio.sleep(wait)
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 24)
    while time.monotonic() < until:
        kind = kinds[rng.random() < mesh_share]
        started = time.perf_counter()
        try:
            status, body = await _request(reader, writer, rng.choice(kind.requests))
            kind.ms.append(1000 * (time.perf_counter() - started))
            if status != 200 or len(json.loads(body)["hits"]) != 10:
                kind.errors.append(f"{status} {body[:200]!r}")
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            kind.errors.append(repr(error))
            reader, writer = await asyncio.open_connection(host, port, limit=1 << 24)
    writer.close()


def _post(host: str, path: str, kind: str, body: bytes) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


def _vector_requests(host: str, vectors: np.ndarray) -> list[bytes]:
    bodies = (json.dumps({"terms": [{"vector": [round(float(x), 6) for x in vector]}], "k": 10}) for vector in vectors)
    return [_post(host, "/api/search", "application/json", body.encode()) for body in bodies]


def _mesh_requests(host: str, files: list[Path]) -> list[bytes]:
    def body(file: Path) -> bytes:
        query = json.dumps({"terms": [{"mesh": file.name}], "k": 10})
        return (
            (
                f'--x\r\nContent-Disposition: form-data; name="query"\r\n\r\n{query}\r\n'
                f'--x\r\nContent-Disposition: form-data; name="files"; filename="{file.name}"\r\n\r\n'
            ).encode()
            + file.read_bytes()
            + b"\r\n--x--\r\n"
        )

    return [_post(host, "/api/search/upload", "multipart/form-data; boundary=x", body(file)) for file in files]


async def _load(
    url: str, meshes: Path, queries: Path, seconds: float, clients: int, mesh_share: float, ramp: float
) -> dict[str, object]:
    place = urlsplit(url)
    assert place.hostname and place.port
    kinds = [
        _Kind("vectors", _vector_requests(place.hostname, np.load(queries))),
        _Kind("meshes", _mesh_requests(place.hostname, sorted(meshes.iterdir()))),
    ]
    until = time.monotonic() + seconds
    await asyncio.gather(
        *(
            _client(place.hostname, place.port, kinds, mesh_share, until, seed, ramp * seed / clients)
            for seed in range(clients)
        )
    )
    return {kind.name: {"ms": kind.ms, "errors": kind.errors} for kind in kinds}


if __name__ == "__main__":
    url, meshes, queries, seconds, clients, mesh_share, ramp = sys.argv[1:]
    result = asyncio.run(
        _load(url, Path(meshes), Path(queries), float(seconds), int(clients), float(mesh_share), float(ramp))
    )
    print(json.dumps(result))
