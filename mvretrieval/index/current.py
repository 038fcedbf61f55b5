"""The search index of an open collection, always of what its store holds now."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvretrieval.index.catch_up import caught_up
from mvretrieval.index.gpu_search import GpuSearch, notices_without_gpu
from mvretrieval.index.kinds import IndexKind, IndexParameters
from mvretrieval.index.vector_index import VectorIndex
from mvretrieval.store.augmented import search_vectors_since
from mvretrieval.store.store import Store


class CurrentIndex:
    """Searches the vectors that the store holds now, augmented where the collection is.

    Its lock is taken before the store's (see `Augmenter` for the one between them).
    """

    def __init__(self, folder: Path, store: Store, dim: Callable[[], int], device: str = "cpu") -> None:
        """Nothing is loaded before the first search.

        Args:
            folder: where an index may have been saved.
            store: the truth.
            dim: returns D, when the index is built.
            device: where vectors are searched: `auto`, `cpu`, `cuda`, `cuda:1`, ...
        """
        self._folder = folder
        self._store = store
        self.dim = dim
        self._index: VectorIndex | None = None
        self._gpu = GpuSearch.for_device(device, self._wanted_kind)
        # Held while searching, too: an update would move the vectors under a search in another thread.
        self._lock = threading.RLock()

    def get(self) -> VectorIndex:
        """The index, updated to the current state of the store."""
        # A snapshot: otherwise a re-embedding by another process could mix vectors of two generations.
        with self.reading():
            since = partial(search_vectors_since, self._store)
            self._index = caught_up(self._index, self._store, self._folder, since, self.dim)
            return self._index

    def warm_up(self) -> None:
        """Load the index, and copy it to the GPU that was requested."""
        with self._lock:
            index = self.get()
            if self._gpu is not None and len(index):
                self._gpu.search(index, index.sample(1), 1)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Everything read or searched inside belongs to one state of index and store."""
        with self._lock, self._store.snapshot():
            yield

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Exclusive access; invalidates the in-memory index on exit."""
        with self._lock:
            try:
                yield
            finally:
                self.close()

    def search(
        self,
        vector: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.int64] | None = None,
        parameters: IndexParameters | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines, falling, and row ids of the k objects nearest to a vector (D,), among the `allowed` ones if given."""
        with self._lock:
            index = self.get()
            if self._gpu is None:
                return index.search(vector[None], k, allowed, parameters)[0]
            return self._gpu.search(index, vector[None], k, allowed, parameters)[0]

    def notices(self) -> list[str]:
        """Why vectors are searched on the CPU, as a sentence, where another device or kind was requested."""
        with self._lock:
            return notices_without_gpu(self._wanted_kind()) if self._gpu is None else self._gpu.notices()

    def sample(self, limit: int) -> NDArray[np.float32]:
        """(n, D) vectors of at most `limit` objects."""
        with self._lock:
            return self.get().sample(limit)

    def close(self) -> None:
        """Release mapped files, and memory of the GPU."""
        with self._lock:
            self._index = None
            if self._gpu is not None:
                self._gpu.close()

    def save(self) -> None:
        """Update the index and write it.

        Raises:
            OSError, RuntimeError: the disk is full or read-only.
        """
        with self._lock:  # a search in another thread could update the vectors while they are written
            self.get().save(self._folder)

    def _wanted_kind(self) -> IndexKind:
        kind: IndexKind = self._store.get_meta("index", "auto")
        return kind
