from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from error_codes import raises_code

from data_scripts import downloads
from data_scripts.downloads import download
from data_scripts.errors import DataError

CONTENT = bytes(range(256)) * 40


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; `breaks` is the number of responses to cut off halfway."""

    content, etag, ranges, breaks, missing = CONTENT, '"one"', True, 0, False
    ranges_requested: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        wanted = self.headers.get("Range")
        server.ranges_requested.append(wanted or "all")
        if server.missing:
            self.send_error(404)
            return
        start = 0
        if wanted and server.ranges and self.headers.get("If-Range") == server.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start > len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", server.etag)
        self.end_headers()
        if server.breaks:
            server.breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.ranges_requested = []
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.shutdown()


def _address(server: Server, name: str = "set.zip?x=1") -> str:
    return f"http://127.0.0.1:{server.server_port}/data/{name}"


def test_a_broken_download_resumes(server: Server, tmp_path: Path) -> None:
    server.breaks = 2
    path = download(_address(server), tmp_path / "new", wait_s=0)
    assert path == tmp_path / "new/set.zip"
    assert path.read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert server.ranges_requested == ["all", f"bytes={half}-", f"bytes={half + half // 2}-"]
    assert [found.name for found in path.parent.iterdir()] == ["set.zip"]


def test_a_later_run_resumes_and_a_complete_file_is_kept(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_ATTEMPTS", 1)
    server.breaks = 1
    with raises_code(DataError, "connection_failed"):
        download(_address(server), tmp_path, wait_s=0)
    assert not (tmp_path / "set.zip").exists()
    assert download(_address(server), tmp_path, wait_s=0).read_bytes() == CONTENT
    assert download(_address(server), tmp_path, wait_s=0).read_bytes() == CONTENT
    assert len(server.ranges_requested) == 2


@pytest.mark.parametrize("change", ["content", "shorter", "no ranges"])
def test_a_changed_file_is_never_mixed_with_the_old_one(
    server: Server, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_ATTEMPTS", 2)
    server.breaks = 2
    with raises_code(DataError, "connection_failed"):
        download(_address(server), tmp_path, wait_s=0)
    if change == "no ranges":
        server.ranges = False
    else:
        server.content = CONTENT[::-1] if change == "content" else CONTENT[:100]
        server.etag = '"two"' if change == "content" else server.etag
    assert download(_address(server), tmp_path, wait_s=0).read_bytes() == server.content


def test_refusals_have_codes(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.missing = True
    with raises_code(DataError, "refused_by_server", "404", "--about"):
        download(_address(server), tmp_path, wait_s=0)
    assert len(server.ranges_requested) == 1
    with raises_code(DataError, "bad_url", "file:///etc/passwd"):
        download("file:///etc/passwd", tmp_path, wait_s=0)
    with raises_code(DataError, "bad_url", "https://example.org/folder/"):
        download("https://example.org/folder/", tmp_path, wait_s=0)
    server.missing = False
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with raises_code(DataError, "disk_full", "GB free"):
        download(_address(server), tmp_path, wait_s=0)
