"""Requests of many threads, encoded together."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from mvretrieval.encoders.batching import BatchingEncoder
from mvretrieval.encoders.builtin import BuiltinEncoder
from mvretrieval.errors import EncoderError


class Watched:
    """An encoder whose vectors tell which picture of which object they are of; slow enough for others to wait."""

    has_text = True
    dim = 2

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.inside = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def encode_views(self, images: NDArray[np.uint8], objects: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        self.inside += 1
        assert self.inside == 1
        time.sleep(0.02)
        assert self.may_go_on.wait(30)
        self.calls.append(len(images))
        self.inside -= 1
        if (images == 13).any():
            raise EncoderError("an unlucky picture")
        second = np.zeros(len(images)) if objects is None else objects
        return np.stack([images[:, 0, 0, 0], second], axis=1).astype(np.float32)

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.inside += 1
        assert self.inside == 1
        time.sleep(0.02)
        self.inside -= 1
        return np.array([[len(text), 0] for text in texts], np.float32)


def pictures(*values: int, side: int = 4) -> NDArray[np.uint8]:
    return np.stack([np.full((side, side, 3), value, np.uint8) for value in values])


def test_everybody_gets_their_own_and_many_are_encoded_at_once() -> None:
    watched = Watched()
    encoder = BatchingEncoder(watched, most_pictures=12)
    with ThreadPoolExecutor(16) as many:
        asked = [list(range(20 + n, 20 + n + n % 4)) for n in range(64)]
        told = list(many.map(lambda values: encoder.encode_views(pictures(*values)) if values else None, asked))
    for values, vectors in zip(asked, told, strict=True):
        assert vectors is None or vectors[:, 0].tolist() == values
    assert len(watched.calls) < 24 and max(watched.calls) <= 12
    assert sum(watched.calls) == sum(map(len, asked))


def test_objects_are_counted_on_and_sizes_kept_apart() -> None:
    watched = Watched()
    encoder = BatchingEncoder(watched)
    with ThreadPoolExecutor(8) as many:
        watched.may_go_on.clear()
        block = many.submit(encoder.encode_views, pictures(1))
        while not watched.inside:
            time.sleep(0.001)
        views = [many.submit(encoder.encode_views, pictures(2, 3, 4), np.array([0, 0, 1])) for _ in range(3)]
        while len(encoder._waiting) < 3:
            time.sleep(0.001)
        large = many.submit(encoder.encode_views, pictures(5, side=8))
        words = many.submit(encoder.encode_text, ["four"])
        watched.may_go_on.set()
        # Numbered on from one request to the next: two objects each, so that nobody's views attend to another's.
        assert sorted(found.result()[:, 1].tolist() for found in views) == [[0, 0, 1], [2, 2, 3], [4, 4, 5]]
        assert large.result().tolist() == [[5, 0]] and block.result().tolist() == [[1, 0]]
        assert words.result().tolist() == [[4, 0]]


def test_an_error_reaches_those_who_asked_and_nobody_later() -> None:
    encoder = BatchingEncoder(Watched())
    with pytest.raises(EncoderError, match="unlucky"):
        encoder.encode_views(pictures(13))
    assert encoder.encode_views(pictures(14)).tolist() == [[14, 0]]


def test_it_is_the_encoder_otherwise_and_its_thread_goes_with_it() -> None:
    before = threading.active_count()
    inside = BuiltinEncoder()
    encoder = BatchingEncoder(inside)
    images = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), dtype=np.uint8)
    assert np.array_equal(encoder.encode_views(images), inside.encode_views(images))
    assert (encoder.dim, encoder.fingerprint, encoder.has_text) == (inside.dim, inside.fingerprint, False)
    assert encoder.encode_views(images[:0]).shape[0] == 0
    with pytest.raises(EncoderError):
        encoder.encode_text(["a chair"])
    assert threading.active_count() == before + 1
    del encoder
    for _ in range(100):
        if threading.active_count() == before:
            break
        time.sleep(0.01)
    assert threading.active_count() == before
