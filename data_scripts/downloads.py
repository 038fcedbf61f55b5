"""Resumable downloads."""

from __future__ import annotations

import http.client
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from data_scripts.errors import DataError

_BLOCK = 1 << 20
_ATTEMPTS = 5
_WAIT_S = 2.0
_TRANSIENT = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


def download(url: str, folder: Path, notify: Callable[[str], None] = lambda _: None, wait_s: float = _WAIT_S) -> Path:
    """Download a file into a folder; a complete file is kept.

    A partial download is in `NAME.partial` and is resumed, unless the file on the server has changed. The releases publish
    no checksums, so a file is complete when it has the size stated by the server.

    Raises:
        DataError: the server refuses, the disk is too small, or the connection keeps failing.
    """
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rsplit("/", 1)[-1])
    if not name or name in (".", "..") or "/" in name or "\\" in name:
        raise DataError(f"{url} has no file name: give the URL of the archive itself", code="bad_url")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if path.exists():
        return path
    partial = folder / f"{name}.partial"
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(wait_s * 2 ** (attempt - 1))
        try:
            _resume(url, partial, notify)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise DataError(
                    f"{url}: HTTP {error.code} {error.reason}; see --about for the source", code="refused_by_server"
                ) from error
            problem: Exception = error
        except _TRANSIENT as error:
            problem = error
        else:
            partial.replace(path)
            _tag_of(partial).unlink(missing_ok=True)
            return path
        notify(f"{name}: {problem}; trying again")
    raise DataError(
        f"{url}: {problem}; the partial download is kept, run the same command again to resume",
        code="connection_failed",
    )


def _resume(url: str, partial: Path, notify: Callable[[str], None]) -> None:
    """Download the missing part of a file."""
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme not in ("http", "https"):
        raise DataError(
            f"{url}: only http and https URLs are supported; give a local archive as SOURCE", code="bad_url"
        )
    have = partial.stat().st_size if partial.exists() else 0
    tag = _tag_of(partial)
    known = tag.read_text() if tag.exists() else ""
    headers = {"User-Agent": "mvretrieval-data-scripts", "Accept-Encoding": "identity"}
    if have and known:
        headers |= {"Range": f"bytes={have}-", "If-Range": known}
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        partial.unlink()  # longer than the file on the server, which has changed
        raise ConnectionError("the file on the server has changed, starting over") from error
    with response:
        start = have if response.status == 206 else 0
        rest = response.headers.get("Content-Length")
        total = None if rest is None else start + int(rest)
        if total is not None:
            _check_room(partial, total - start, url)
        # Only a strong ETag guarantees identical bytes.
        etag = response.headers.get("ETag") or ""
        tag.write_text(etag if not etag.startswith("W/") else "")
        size = f" ({total / 1e6:,.0f} MB)" if total else ""
        notify(f"{partial.stem}: {'downloading' if not start else f'resuming at {start / 1e6:,.0f} MB'}{size}")
        with partial.open("ab" if start else "wb") as file:
            while block := response.read(_BLOCK):
                file.write(block)
        arrived = partial.stat().st_size
    if total is not None and arrived != total:
        raise ConnectionError(f"the connection broke after {arrived:,} of {total:,} bytes")


def _tag_of(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.etag.partial")


def _check_room(partial: Path, needed: int, url: str) -> None:
    free = shutil.disk_usage(partial.parent).free
    if needed > free:
        raise DataError(
            f"{url} needs {needed / 1e9:.1f} GB, and {partial.parent} has {free / 1e9:.1f} GB free: choose another disk",
            code="disk_full",
        )
