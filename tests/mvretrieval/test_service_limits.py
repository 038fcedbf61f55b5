"""A service under slow clients, large and costly requests, and a stop signal."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Response
from made_meshes import SMALL, write_shapes
from serving import served
from waiting import PATIENCE_S, wait_for

from mvretrieval.api import Collection, OpenOptions
from mvretrieval.service.app import create_app
from mvretrieval.service.limits import FairLimiter
from mvretrieval.service.problems import ProblemError
from mvretrieval.service.server import server_of
from mvretrieval.service.settings import ServiceSettings
from mvretrieval.service.uploads import Incoming

QUERY = {"terms": [{"id": "shape-001.ply"}]}
HEAD = b"POST /api/search HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
UPLOAD = (
    b"POST /api/search/upload HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    b"Content-Length: 100000\r\n\r\n"
)
PART = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.ply"\r\n\r\n' + bytes(40_000)


@contextmanager
def connected(url: str, data: bytes) -> Iterator[socket.socket]:
    """A connection that has sent something."""
    with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=PATIENCE_S) as raw:
        raw.sendall(data)
        yield raw


@contextmanager
def serving(app: FastAPI, listener: socket.socket) -> Iterator[None]:
    """Run an application on a socket that clients may have connected to before."""
    server = server_of(app, 20)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def is_closed(raw: socket.socket) -> bool:
    try:
        return raw.recv(1) == b""
    except ConnectionError:
        return True


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def test_half_sent_heads_do_not_keep_others_out(things: Collection) -> None:
    with served(things, max_connections=20) as url:
        raw = [
            socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=PATIENCE_S) for _ in range(60)
        ]
        for one in raw:
            one.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nX-")
        assert httpx.get(f"{url}/health").status_code == 200
        assert httpx.post(f"{url}/api/search", json=QUERY).status_code == 200
        assert all(is_closed(one) for one in raw[:20])  # the oldest were closed
        raw[-1].sendall(b"Y: 1\r\n\r\n")  # the latest may still finish
        assert raw[-1].recv(12) == b"HTTP/1.1 200"
        for one in raw:
            one.close()


def test_requests_in_progress_are_not_closed_for_others(things: Collection) -> None:
    body = json.dumps(QUERY).encode()
    head = (HEAD % len(body)).removesuffix(b"\r\n") + b"Expect: 100-continue\r\n\r\n"
    with served(things, max_connections=3) as url, ExitStack() as stack:
        started = [stack.enter_context(connected(url, head)) for _ in range(3)]
        for one in started:
            assert one.recv(100).startswith(b"HTTP/1.1 100 ")  # the service waits for the body
        with connected(url, b"GET /hea") as fourth:
            assert is_closed(fourth)
        for one in started:
            one.sendall(body)
            assert one.recv(12) == b"HTTP/1.1 200"


def test_a_head_has_to_arrive_in_time(things: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvretrieval.service.connections.HEAD_TIMEOUT_S", 0.2)
    body = json.dumps(QUERY).encode()
    with served(things) as url:
        with connected(url, b"GET /health HTTP/1.1\r\nX-") as raw:
            assert is_closed(raw)
    # It is sent before the service starts, so that no time passes between the connection and the head.
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with connected(url, HEAD % len(body)) as raw, serving(create_app(things), listener):
        time.sleep(0.6)  # the body has a limit of its own
        raw.sendall(body)
        assert raw.recv(12) == b"HTTP/1.1 200"
        while not is_closed(raw):  # also after a response
            pass


def test_a_body_that_trickles_in_is_refused(things: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvretrieval.service.limits._BODY_GRACE_S", 0.0)
    with served(things) as url, connected(url, HEAD % 99 + b"{") as raw:
        time.sleep(0.1)
        raw.sendall(b'"')
        response = raw.makefile("rb").read()
    assert response.startswith(b"HTTP/1.1 408") and b"body_timeout" in response and b"10 kB/s" in response


def test_bytes_under_way_are_limited(things: Collection) -> None:
    body = json.dumps(QUERY).encode()
    with served(things, ServiceSettings(max_bytes_under_way=len(PART) + 10)) as url:

        def search() -> httpx.Response:
            return httpx.post(f"{url}/api/search", content=body, headers={"Content-Type": "application/json"})

        assert search().status_code == 200
        with connected(url, UPLOAD + PART):
            wait_for(lambda: search().status_code == 503)
            response = search()
            assert code_of(response) == (503, "uploads_full") and response.headers["Retry-After"] == "5"
            assert httpx.get(f"{url}/health").status_code == 200
        wait_for(lambda: search().status_code == 200)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({f"n{i}": i for i in range(50_000)}, "50,000 names"),
        ({"terms": [{"id": "a", **{f"n{i}": i for i in range(50_000)}}]}, "50,001 names"),
        ({"terms": [{"vector": ["a"] * 60_000}]}, "must be a number"),
        ({"terms": [{"vector": [0.0] * 70_000}]}, "65536"),
        ({"terms": [{"id": "a"}] * 20_000}, "more than 16 entries"),
    ],
    ids=["names", "names of a term", "wrong numbers", "many numbers", "many terms"],
)
def test_a_costly_request_has_one_short_answer(body: object, expected: str, things: Collection) -> None:
    with served(things) as url:
        response = httpx.post(f"{url}/api/search", json=body)
        uploaded = httpx.post(
            f"{url}/api/search/upload", data={"query": json.dumps(body)}, files={"files": ("a.ply", b"ply")}
        )
    for found in (response, uploaded):
        assert code_of(found) == (422, "bad_request")
        assert expected in found.json()["message"] and len(found.content) < 400


@pytest.mark.parametrize("deep", ['{"terms":' * 5000, "[" * 100_000, '{"terms": [{"vector": ' + "[" * 50_000])
def test_deep_nesting_is_refused(deep: str, things: Collection) -> None:
    with served(things) as url:
        response = httpx.post(f"{url}/api/search", content=deep, headers={"Content-Type": "application/json"})
        uploaded = httpx.post(f"{url}/api/search/upload", data={"query": deep}, files={"files": ("a.ply", b"ply")})
        assert httpx.get(f"{url}/health").status_code == 200
    assert response.status_code in (400, 422) and uploaded.status_code in (400, 422)
    assert response.json()["code"] and uploaded.json()["code"]


def test_a_stopping_service_refuses_those_that_wait() -> None:
    limiter = FairLimiter(1, 5, PATIENCE_S)
    refused: list[str] = []

    def wait() -> None:
        try:
            with limiter.turn():
                refused.append("turn")
        except ProblemError as error:
            refused.append(error.code)

    with limiter.turn():
        threads = [threading.Thread(target=wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        wait_for(lambda: limiter.n_entered == 4)
        limiter.close()
        for thread in threads:
            thread.join()
        assert refused == ["stopping"] * 3 and limiter.n_entered == 1
    with pytest.raises(ProblemError, match="stopping"), limiter.turn():
        pass
    assert limiter.n_entered == 0


def test_every_query_is_answered_when_the_service_is_told_to_stop(tmp_path: Path) -> None:
    files = write_shapes(tmp_path / "meshes", range(4))
    with Collection.create(tmp_path / "c", SMALL, OpenOptions(workers=1)) as collection:
        collection.add_folder(tmp_path / "meshes")
    command = [sys.executable, "-m", "mvretrieval", "serve", str(tmp_path / "c"), "--port", "0", "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stderr is not None
    found = re.search(r"at (http://\S+)", process.stderr.readline())
    assert found, process.stderr.read()
    url, mesh = found[1], files[0].read_bytes()
    wait_for(lambda: httpx.get(f"{url}/ready").status_code == 200)
    n_answered = 0

    def search(_: int) -> httpx.Response:
        nonlocal n_answered
        query = {"terms": [{"mesh": "a.ply"}]}
        with httpx.Client(timeout=PATIENCE_S) as client:
            response = client.post(
                f"{url}/api/search/upload", data={"query": json.dumps(query)}, files={"files": ("a.ply", mesh)}
            )
        n_answered += 1
        return response

    with ThreadPoolExecutor(24) as threads:
        responses = [threads.submit(search, i) for i in range(24)]
        wait_for(lambda: n_answered > 0)
        process.send_signal(signal.SIGTERM)
        statuses = []
        for future in responses:
            try:
                response = future.result()
            except httpx.ConnectError:  # not sent before the service ended
                continue
            statuses.append(response.status_code)
            if response.status_code != 200:
                assert code_of(response) == (503, "stopping") and response.headers["Retry-After"]
    assert process.wait(PATIENCE_S) == 0 and process.stderr.read() == ""
    assert 200 in statuses


def test_files_of_a_killed_service_are_deleted_at_the_next_start(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c", SMALL, OpenOptions(workers=1)) as collection:
        write_shapes(tmp_path / "meshes", range(2))
        collection.add_folder(tmp_path / "meshes")
        first, second = Incoming(collection.folder), Incoming(collection.folder)  # a second service does no harm
        killed = Path(shutil.copytree(first.folder, tmp_path / "c" / "incoming" / "service-killed"))
        (killed / "request-1").mkdir()
        with served(collection):
            assert not killed.exists() and first.folder.exists() and second.folder.exists()
            assert len(list((tmp_path / "c" / "incoming").iterdir())) == 3
        first.close()
        second.close()
        assert not (tmp_path / "c" / "incoming").exists()


def test_uploads_leave_nothing_behind(things: Collection, shapes: Path) -> None:
    with served(things) as url:
        query, mesh = {"terms": [{"mesh": "a.ply"}]}, (shapes / "shape-001.ply").read_bytes()
        found = httpx.post(
            f"{url}/api/search/upload", data={"query": json.dumps(query)}, files={"files": ("a.ply", mesh)}
        )
        (own,) = (things.folder / "incoming").iterdir()
        assert found.status_code == 200 and [path.name for path in own.iterdir()] == ["service.lock"]


def test_a_slow_reader_receives_the_whole_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvretrieval.service.connections.HEAD_TIMEOUT_S", 0.2)
    size = 30_000_000
    app = FastAPI()
    app.state.stop = lambda: None
    app.add_api_route("/large", lambda: Response(bytes(size)))
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with connected(url, b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n") as raw, serving(app, listener):
        time.sleep(0.8)  # the response is complete for the service, and the time of the next head is over
        with raw.makefile("rb") as reader:
            while reader.readline().strip():
                pass
            assert len(reader.read(size)) == size
