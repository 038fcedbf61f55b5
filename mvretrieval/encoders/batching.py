"""One encoder for many threads: what they ask for at the same time is encoded together, in a thread that steps back for others."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.encoders.encoder import ViewEncoder

_Vectors = NDArray[np.float32]
_NICENESS = 10  # as that of render workers
_MOST_PICTURES = 48


@dataclass
class _Request:
    images: NDArray[np.uint8]
    objects: NDArray[np.int64] | None
    vectors: Future[_Vectors] = field(default_factory=Future)

    def goes_with(self, other: _Request) -> bool:
        return self.images.shape[1:] == other.images.shape[1:] and (self.objects is None) == (other.objects is None)


class BatchingEncoder:
    """A `ViewEncoder` that may be called from several threads; what it does not do itself, the encoder inside does.

    All encoding happens in one thread. Each thread that torch computes in keeps threads and memory of its own for that, and as
    many as a service has would keep hundreds of megabytes. On Linux that thread is niced: whoever asks with a vector should not
    wait for those whose pictures take a tenth of a second.
    """

    def __init__(self, encoder: ViewEncoder, most_pictures: int = _MOST_PICTURES) -> None:
        """Share an encoder.

        Args:
            encoder: called by nobody else.
            most_pictures: encoded together, unless one request alone has more.
        """
        self._encoder = encoder
        self._most_pictures = most_pictures
        self._waiting: deque[_Request] = deque()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "encoder", initializer=_step_back)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_views(self, images: NDArray[np.uint8], objects: NDArray[np.int64] | None = None) -> _Vectors:
        """See `ViewEncoder.encode_views`, and `NetworkEncoder.encode_views` for `objects`."""
        request = _Request(images, objects)
        with self._lock:
            self._waiting.append(request)
        self._thread.submit(self._answer_some)  # or an earlier one has answered it when its turn comes
        return request.vectors.result()

    def encode_text(self, texts: Sequence[str]) -> _Vectors:
        """See `ViewEncoder.encode_text`."""
        return self._thread.submit(self._encoder.encode_text, texts).result()

    def _answer_some(self) -> None:
        """Encode for those who came first, as long as their requests go together."""
        together = self._next()
        try:
            vectors = self._encode([request.images for request in together], [request.objects for request in together])
        except BaseException as error:
            for request in together:
                request.vectors.set_exception(error)
            return
        start = 0
        for request in together:
            request.vectors.set_result(vectors[start : start + len(request.images)])
            start += len(request.images)

    def _next(self) -> list[_Request]:
        together: list[_Request] = []
        count = 0
        with self._lock:
            while self._waiting and (not together or self._waiting[0].goes_with(together[0])):
                count += len(self._waiting[0].images)
                if together and count > self._most_pictures:
                    break
                together.append(self._waiting.popleft())
        return together

    def _encode(self, images: Sequence[NDArray[np.uint8]], objects: Sequence[NDArray[np.int64] | None]) -> _Vectors:
        if not images:
            return np.empty((0, 0), np.float32)
        encode: Callable[..., _Vectors] = self._encoder.encode_views
        numbers: list[NDArray[np.int64]] = []
        start = 0
        for own in objects:
            if own is not None:  # each request counts its objects from 0
                numbers.append(own + start)
                start += int(own.max(initial=-1)) + 1
        joined = images[0] if len(images) == 1 else np.concatenate(images)
        return encode(joined, np.concatenate(numbers)) if numbers else encode(joined)


def _step_back() -> None:
    """Nice this thread, and those that torch starts for it; elsewhere than on Linux that would be the whole process."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(os.getpriority(os.PRIO_PROCESS, thread), _NICENESS))
