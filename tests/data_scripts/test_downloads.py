from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_scripts import downloads
from data_scripts.downloads import download
from data_scripts.errors import DataError

CONTENT = bytes(range(256)) * 40


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT; breaks off after some bytes as often as it is told."""

    content, etag, ranges, breaks, missing = CONTENT, '"one"', True, 0, False
    asked: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted or "all")
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
        running.asked = []
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.shutdown()


def _address(server: Server, name: str = "set.zip?x=1") -> str:
    return f"http://127.0.0.1:{server.server_port}/data/{name}"


def test_a_broken_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.breaks = 2
    path = download(_address(server), tmp_path / "new", wait_s=0)
    assert path == tmp_path / "new/set.zip"
    assert path.read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert server.asked == ["all", f"bytes={half}-", f"bytes={half + half // 2}-"]
    assert [found.name for found in path.parent.iterdir()] == ["set.zip"]


def test_a_later_run_goes_on_and_a_complete_file_is_left_alone(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_ATTEMPTS", 1)
    server.breaks = 1
    with pytest.raises(DataError, match="run the same command again"):
        download(_address(server), tmp_path, wait_s=0)
    assert not (tmp_path / "set.zip").exists()
    assert download(_address(server), tmp_path, wait_s=0).read_bytes() == CONTENT
    assert download(_address(server), tmp_path, wait_s=0).read_bytes() == CONTENT
    assert len(server.asked) == 2


@pytest.mark.parametrize("change", ["content", "shorter", "no ranges"])
def test_a_changed_file_is_never_mixed_with_the_old_one(
    server: Server, tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_ATTEMPTS", 2)
    server.breaks = 2
    with pytest.raises(DataError):
        download(_address(server), tmp_path, wait_s=0)
    if change == "no ranges":
        server.ranges = False
    else:
        server.content = CONTENT[::-1] if change == "content" else CONTENT[:100]
        server.etag = '"two"' if change == "content" else server.etag
    assert download(_address(server), tmp_path, wait_s=0).read_bytes() == server.content


def test_refusals_say_what_to_do(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.missing = True
    with pytest.raises(DataError, match=r"404 .*--about"):
        download(_address(server), tmp_path, wait_s=0)
    assert len(server.asked) == 1
    with pytest.raises(DataError, match="http and https"):
        download("file:///etc/passwd", tmp_path, wait_s=0)
    with pytest.raises(DataError, match="names no file"):
        download("https://example.org/folder/", tmp_path, wait_s=0)
    server.missing = False
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(DataError, match="GB free"):
        download(_address(server), tmp_path, wait_s=0)
