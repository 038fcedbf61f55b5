"""One-bit (RaBitQ) codes that propose candidates for exact re-scoring.

An inverted file of RaBitQ codes (Gao and Long 2024), scanned by FAISS: vectors are assigned to the list of their nearest centroid,
and a query is compared with the codes of the nearest lists: 1/16 of the vectors, and 1/28 of their bytes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

faiss: Any = _faiss  # its type stubs are incomplete

_SAMPLE_PER_LIST = 64
_ITERATIONS = 8
# Share of the lists. 1/60 is enough for a million vectors but not for 100,000, and 1/16 is hardly slower.
_SEARCHED_SHARE = 1 / 16
_FEWEST_SEARCHED = 32


class IvfRaBitQIndex:
    """Inverted file of codes by slot."""

    def __init__(self, faiss_index: Any) -> None:
        """Use `IvfRaBitQIndex.trained` or `IvfRaBitQIndex.open`."""
        self._index = faiss_index
        n_lists = int(faiss_index.nlist)
        self._index.nprobe = min(n_lists, max(_FEWEST_SEARCHED, round(n_lists * _SEARCHED_SHARE)))

    @staticmethod
    def n_lists_for(count: int) -> int:
        """Number of lists for `count` vectors."""
        return max(1, round(2 * math.sqrt(count)))

    @classmethod
    def sample_size(cls, count: int) -> int:
        """Number of vectors to train the lists on, of `count` vectors."""
        return min(count, _SAMPLE_PER_LIST * cls.n_lists_for(count))

    @classmethod
    def trained(cls, sample: NDArray[np.float32], count: int) -> IvfRaBitQIndex:
        """An empty index with lists for `count` vectors, trained on a sample (n, D)."""
        n_lists, dim = cls.n_lists_for(count), sample.shape[1]
        quantizer = faiss.IndexFlatIP(dim)
        index = faiss.IndexIVFRaBitQFastScan(quantizer, dim, n_lists, faiss.METRIC_INNER_PRODUCT)
        index.own_fields = True
        quantizer.this.disown()
        index.cp.niter, index.cp.spherical = _ITERATIONS, True
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, _SAMPLE_PER_LIST
        index.train(np.ascontiguousarray(sample, np.float32))
        return cls(index)

    @classmethod
    def open(cls, path: Path) -> IvfRaBitQIndex:
        """Read an index from a file.

        Raises:
            RuntimeError, MemoryError, ValueError: the file is missing or is not such an index.
        """
        index = faiss.read_index(str(path))
        if not isinstance(index, faiss.IndexIVFRaBitQFastScan):
            raise ValueError(f"{path} is not an IVF RaBitQ index")
        return cls(index)

    def write(self, path: Path) -> None:
        """Write the index to a file.

        Raises:
            RuntimeError: the disk is full or read-only.
        """
        faiss.write_index(self._index, str(path))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """D."""
        return int(self._index.d)

    def outgrown_by(self, count: int) -> bool:
        """Whether `count` vectors need more than twice as many lists, so that training them again pays."""
        return self.n_lists_for(count) > 2 * int(self._index.nlist)

    def add(self, slots: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add vectors (n, D)."""
        if len(slots):
            self._index.add_with_ids(np.ascontiguousarray(vectors, np.float32), np.ascontiguousarray(slots, np.int64))

    def remove(self, slots: NDArray[np.int64]) -> None:
        """Remove slots."""
        if len(slots):
            self._index.remove_ids(np.ascontiguousarray(slots, np.int64))

    def candidates(self, queries: NDArray[np.float32], n: int) -> NDArray[np.int64]:
        """(Q, n) slots of candidates for the nearest vectors; -1 where the lists hold fewer."""
        _, slots = self._index.search(np.ascontiguousarray(queries, np.float32), n)
        return np.asarray(slots, np.int64)
