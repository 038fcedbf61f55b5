"""Messages between a pool and its workers: a JSON head and raw bytes. No pickle, since a worker reads untrusted files."""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

_HEAD = struct.Struct("<IQ")


def send(stream: BinaryIO, head: dict[str, Any], body: bytes | memoryview = b"") -> None:
    """Write one message and flush it."""
    text = json.dumps(head).encode()
    stream.write(_HEAD.pack(len(text), len(body)) + text)
    stream.write(body)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """Read one message.

    Raises:
        EOFError: the stream ended.
    """
    head_size, body_size = _HEAD.unpack(_read_exactly(stream, _HEAD.size))
    head = json.loads(_read_exactly(stream, head_size))
    return head, _read_exactly(stream, body_size)


def _read_exactly(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if data is None or len(data) < count:
        raise EOFError
    return data
