"""Dynamic batching: encode requests of many threads are encoded together, in one low-priority worker thread."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mvretrieval.encoders.encoder import Precision, ViewEncoder

_Vectors = NDArray[np.float32]
_NICENESS = 10  # the same as that of render workers
_MAX_IMAGES = 48


@dataclass
class _Request:
    images: NDArray[np.uint8]
    groups: NDArray[np.int64] | None
    vectors: Future[_Vectors] = field(default_factory=Future)

    def is_compatible_with(self, other: _Request) -> bool:
        """Whether both can be encoded in one call."""
        return self.images.shape[1:] == other.images.shape[1:] and (self.groups is None) == (other.groups is None)


class BatchingEncoder:
    """A thread-safe `ViewEncoder` around another one.

    All encoding happens in one worker thread. torch keeps a thread pool and buffers for each calling thread; with the request
    threads of a service that would add up to hundreds of megabytes. On Linux the worker runs at low priority, so that
    searches by vector, which take a millisecond, do not wait for image queries, which take a hundred.
    """

    def __init__(self, encoder: ViewEncoder, max_images: int = _MAX_IMAGES) -> None:
        """Wrap an encoder.

        Args:
            encoder: not used by any other caller.
            max_images: largest batch; a single larger request still goes through in one call.
        """
        self._encoder = encoder
        self._max_images = max_images
        self._pending: deque[_Request] = deque()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "encoder", initializer=_lower_priority)

    @property
    def id(self) -> str:
        """Id of the wrapped encoder."""
        return self._encoder.id

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._encoder.dim

    @property
    def image_size(self) -> int:
        """Width and height in pixels of the images that the network takes."""
        return self._encoder.image_size

    @property
    def batch_size(self) -> int:
        """Number of images that are encoded efficiently in one call."""
        return self._encoder.batch_size

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the wrapped encoder."""
        return self._encoder.fingerprint

    @property
    def precision(self) -> Precision:
        """Numeric precision of the network."""
        return self._encoder.precision

    @property
    def precision_reason(self) -> str:
        """Reason for that precision."""
        return self._encoder.precision_reason

    @property
    def has_text(self) -> bool:
        """Whether there is a text tower."""
        return self._encoder.has_text

    @property
    def temperature(self) -> float | None:
        """Softmax temperature of image-text cosines in training."""
        return self._encoder.temperature

    @property
    def cross_view(self) -> int:
        """Number of last blocks in which the views of an object attend to one another."""
        return self._encoder.cross_view

    def encode_views(self, images: NDArray[np.uint8], groups: NDArray[np.int64] | None = None) -> _Vectors:
        """See `ViewEncoder.encode_views`. Blocks until the vectors are there."""
        request = _Request(images, groups)
        with self._lock:
            self._pending.append(request)
        self._thread.submit(self._encode_next_batch)  # a no-op if an earlier batch has included this request
        return request.vectors.result()

    def encode_text(self, texts: Sequence[str]) -> _Vectors:
        """See `ViewEncoder.encode_text`."""
        return self._thread.submit(self._encoder.encode_text, texts).result()

    def _encode_next_batch(self) -> None:
        batch = self._take_batch()
        try:
            vectors = self._encode(batch)
        except BaseException as error:
            for request in batch:
                request.vectors.set_exception(error)
            return
        start = 0
        for request in batch:
            request.vectors.set_result(vectors[start : start + len(request.images)])
            start += len(request.images)

    def _take_batch(self) -> list[_Request]:
        """The oldest requests, as long as they are compatible and fit into one batch."""
        batch: list[_Request] = []
        count = 0
        with self._lock:
            while self._pending and (not batch or self._pending[0].is_compatible_with(batch[0])):
                count += len(self._pending[0].images)
                if batch and count > self._max_images:
                    break
                batch.append(self._pending.popleft())
        return batch

    def _encode(self, batch: Sequence[_Request]) -> _Vectors:
        if not batch:
            return np.empty((0, 0), np.float32)
        groups: list[NDArray[np.int64]] = []
        start = 0
        for request in batch:
            if request.groups is not None:  # each request numbers its objects from 0
                groups.append(request.groups + start)
                start += int(request.groups.max(initial=-1)) + 1
        images = batch[0].images if len(batch) == 1 else np.concatenate([request.images for request in batch])
        return self._encoder.encode_views(images, np.concatenate(groups) if groups else None)


def _lower_priority() -> None:
    """Raise the niceness of this thread and of the threads that torch starts from it.

    Only on Linux: elsewhere niceness belongs to the whole process.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(os.getpriority(os.PRIO_PROCESS, thread), _NICENESS))
