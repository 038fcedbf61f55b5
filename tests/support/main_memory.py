"""Stands where a GPU would be: the copies of `mvretrieval.index.gpu_copy` stay in main memory, and FAISS searches them there."""

from __future__ import annotations

from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

faiss: Any = _faiss


class MainMemory:
    """A `Place` for copies; flat ones get float16 codes, as on a GPU."""

    def move(self, index: Any) -> Any:
        if isinstance(index, faiss.IndexFlat):
            return faiss.index_factory(index.d, "SQfp16", faiss.METRIC_INNER_PRODUCT)
        return faiss.clone_index(index)

    def graph(self, dim: int) -> Any:
        return _Graph(dim)


class _Graph:
    """A graph that `train` builds, as CAGRA's."""

    def __init__(self, dim: int) -> None:
        self._index = faiss.IndexHNSWFlat(dim, 32)
        self._index.hnsw.efSearch = 200

    def train(self, vectors: NDArray[np.float32]) -> None:
        self._index.add(vectors)

    def search(self, queries: NDArray[np.float32], n: int, params: Any) -> Any:
        return self._index.search(queries, n)
