"""Downloads that go on where they stopped."""

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
_PASSING = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


def download(url: str, folder: Path, tell: Callable[[str], None] = lambda _: None, wait_s: float = _WAIT_S) -> Path:
    """Fetch a file into a folder; one that is complete is left alone.

    What has arrived lies in `NAME.partial` and is continued, unless the server's file has changed in between.
    Releases here publish no checksums, so a complete file is one of the size that the server states.

    Raises:
        DataError: the server refuses, the disk is too small, or the connection keeps breaking.
    """
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rsplit("/", 1)[-1])
    if not name or name in (".", "..") or "/" in name or "\\" in name:
        raise DataError(f"{url} names no file: give the address of the archive itself")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if path.exists():
        return path
    partial = folder / f"{name}.partial"
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(wait_s * 2 ** (attempt - 1))
        try:
            _continue(url, partial, tell)
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise DataError(
                    f"{url}: the server says {error.code} {error.reason}; see --about for the source"
                ) from error
            problem: Exception = error
        except _PASSING as error:
            problem = error
        else:
            partial.replace(path)
            _tag_of(partial).unlink(missing_ok=True)
            return path
        tell(f"{name}: {problem}; trying again")
    raise DataError(f"{url}: {problem}; what has arrived is kept, run the same command again to go on")


def _continue(url: str, partial: Path, tell: Callable[[str], None]) -> None:
    """Fetch what is missing of a file."""
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme not in ("http", "https"):
        raise DataError(f"{url}: only http and https are fetched; name a local archive as SOURCE instead")
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
        partial.unlink()  # longer than the server's file: it has changed
        raise ConnectionError("the file on the server has changed, starting over") from error
    with response:
        start = have if response.status == 206 else 0
        rest = response.headers.get("Content-Length")
        total = None if rest is None else start + int(rest)
        if total is not None:
            _check_room(partial, total - start, url)
        # A strong tag alone says that two answers are the same bytes.
        etag = response.headers.get("ETag") or ""
        tag.write_text(etag if not etag.startswith("W/") else "")
        size = f" of {total / 1e6:,.0f} MB" if total else ""
        tell(f"{partial.stem}: {'from the start' if not start else f'on from {start / 1e6:,.0f} MB'}{size}")
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
            f"{url} needs {needed / 1e9:.1f} GB, and {partial.parent} has {free / 1e9:.1f} GB free: name another disk"
        )
