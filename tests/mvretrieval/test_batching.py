"""Dynamic batching of requests from many threads."""

from __future__ import annotations

import gc
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from error_codes import raises_code
from numpy.typing import NDArray
from waiting import wait_for

from mvretrieval.encoders.batching import BatchingEncoder
from mvretrieval.encoders.builtin import BuiltinEncoder
from mvretrieval.encoders.encoder import Precision
from mvretrieval.errors import EncoderError


class RecordingEncoder:
    """An encoder whose vectors hold the value of the image and its group. It blocks while `gate` is closed."""

    id = "recording:"
    dim = 2
    image_size = 4
    batch_size = 48
    fingerprint = "recording"
    precision: Precision = "float32"
    precision_reason = "a test"
    has_text = True
    temperature = None
    cross_view = 0

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self._inside = threading.Lock()

    def encode_views(self, images: NDArray[np.uint8], groups: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        assert self._inside.acquire(blocking=False), "two calls at once"
        self.entered.set()
        self.gate.wait()
        self.calls.append(len(images))
        self._inside.release()
        if (images == 13).any():
            raise EncoderError("value 13", code="bad_image")
        second = np.zeros(len(images)) if groups is None else groups
        return np.stack([images[:, 0, 0, 0], second], axis=1).astype(np.float32)

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        assert self._inside.acquire(blocking=False), "two calls at once"
        self._inside.release()
        return np.array([[len(text), 0] for text in texts], np.float32)


def images_of(*values: int, side: int = 4) -> NDArray[np.uint8]:
    return np.stack([np.full((side, side, 3), value, np.uint8) for value in values])


def test_concurrent_requests_are_batched_and_each_gets_its_own_vectors() -> None:
    inner = RecordingEncoder()
    encoder = BatchingEncoder(inner, max_images=12)
    requests = [list(range(20 + n, 20 + n + n % 4)) for n in range(64)]
    n_sent = sum(1 for values in requests if values)
    with ThreadPoolExecutor(n_sent + 1) as threads:
        inner.gate.clear()
        first = threads.submit(encoder.encode_views, images_of(1))
        inner.entered.wait()
        futures = [threads.submit(encoder.encode_views, images_of(*values)) for values in requests if values]
        wait_for(lambda: len(encoder._pending) == n_sent)
        inner.gate.set()
        found = [future.result()[:, 0].tolist() for future in futures]
        assert first.result()[:, 0].tolist() == [1]
    assert found == [values for values in requests if values]
    assert len(inner.calls) < 24 and max(inner.calls) <= 12
    assert sum(inner.calls) == 1 + sum(map(len, requests))


def test_groups_stay_distinct_and_image_sizes_are_not_mixed() -> None:
    inner = RecordingEncoder()
    encoder = BatchingEncoder(inner)
    with ThreadPoolExecutor(8) as threads:
        inner.gate.clear()
        first = threads.submit(encoder.encode_views, images_of(1))
        inner.entered.wait()
        views = [threads.submit(encoder.encode_views, images_of(2, 3, 4), np.array([0, 0, 1])) for _ in range(3)]
        wait_for(lambda: len(encoder._pending) == 3)
        large = threads.submit(encoder.encode_views, images_of(5, side=8))
        text = threads.submit(encoder.encode_text, ["four"])
        inner.gate.set()
        # Two objects per request, numbered on from one request to the next.
        assert sorted(future.result()[:, 1].tolist() for future in views) == [[0, 0, 1], [2, 2, 3], [4, 4, 5]]
        assert large.result().tolist() == [[5, 0]] and first.result().tolist() == [[1, 0]]
        assert text.result().tolist() == [[4, 0]]


def test_an_error_reaches_its_request_and_no_later_one() -> None:
    encoder = BatchingEncoder(RecordingEncoder())
    with raises_code(EncoderError, "bad_image"):
        encoder.encode_views(images_of(13))
    assert encoder.encode_views(images_of(14)).tolist() == [[14, 0]]


def test_a_batching_encoder_has_the_properties_and_vectors_of_the_inner_one() -> None:
    inner = BuiltinEncoder()
    encoder = BatchingEncoder(inner)
    images = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), dtype=np.uint8)
    assert np.array_equal(encoder.encode_views(images), inner.encode_views(images))
    names = ("id", "dim", "image_size", "batch_size", "fingerprint", "precision", "precision_reason", "has_text")
    for name in (*names, "temperature", "cross_view"):
        assert getattr(encoder, name) == getattr(inner, name), name
    assert encoder.encode_views(images[:0]).shape[0] == 0
    with raises_code(EncoderError, "no_text_tower"):
        encoder.encode_text(["a chair"])


def test_the_worker_thread_ends_with_the_encoder() -> None:
    encoder = BatchingEncoder(RecordingEncoder())
    encoder.encode_views(images_of(1))
    (worker,) = encoder._thread._threads
    assert worker.is_alive()
    del encoder
    gc.collect()
    worker.join(600)
    assert not worker.is_alive()
