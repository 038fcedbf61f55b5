"""Vectors in a bit a dimension: a small structure that names candidates for a question, to be scored by their vectors.

An inverted file of RaBitQ codes (Gao and Long 2024), scanned by FAISS: vectors lie in lists by their nearest centroid, and a
question is compared with the codes of the lists around it: a 16th of the vectors, and a 28th of their bytes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

faiss: Any = _faiss  # its types know a part of it

_SAMPLE_PER_LIST = 64
_ITERATIONS = 8
# Of the lists. A 60th is enough for a million vectors, but not for a hundred thousand, and more is hardly slower.
_SEARCHED_SHARE = 1 / 16
_FEWEST_SEARCHED = 32


class IvfRaBitQIndex:
    """Codes of vectors by slot."""

    def __init__(self, faiss_index: Any) -> None:
        """Use `IvfRaBitQIndex.trained` or `IvfRaBitQIndex.open`."""
        self._index = faiss_index
        n_lists = int(faiss_index.nlist)
        self._index.nprobe = min(n_lists, max(_FEWEST_SEARCHED, round(n_lists * _SEARCHED_SHARE)))

    @staticmethod
    def n_lists_for(count: int) -> int:
        """In how many lists so many vectors are laid."""
        return max(1, round(2 * math.sqrt(count)))

    @classmethod
    def sample_size(cls, count: int) -> int:
        """From how many of so many vectors the lists are learnt."""
        return min(count, _SAMPLE_PER_LIST * cls.n_lists_for(count))

    @classmethod
    def trained(cls, sample: NDArray[np.float32], count: int) -> IvfRaBitQIndex:
        """No vectors yet, but lists for `count` of them, learnt from a sample (n, D)."""
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
        """Codes of a file.

        Raises:
            RuntimeError, MemoryError, ValueError: it is not there, or holds something else.
        """
        index = faiss.read_index(str(path))
        if not isinstance(index, faiss.IndexIVFRaBitQFastScan):
            raise ValueError(f"{path} holds codes of another kind")
        return cls(index)

    def write(self, path: Path) -> None:
        """Write all of them.

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
        """Whether lists for so many vectors would be more than twice as many, so that learning them anew pays."""
        return self.n_lists_for(count) > 2 * int(self._index.nlist)

    def add(self, slots: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Take in vectors (n, D)."""
        if len(slots):
            self._index.add_with_ids(np.ascontiguousarray(vectors, np.float32), np.ascontiguousarray(slots, np.int64))

    def remove(self, slots: NDArray[np.int64]) -> None:
        """Forget some."""
        if len(slots):
            self._index.remove_ids(np.ascontiguousarray(slots, np.int64))

    def candidates(self, queries: NDArray[np.float32], n: int) -> NDArray[np.int64]:
        """(Q, n) slots of vectors that are probably among the nearest; -1 where the lists had fewer."""
        _, slots = self._index.search(np.ascontiguousarray(queries, np.float32), n)
        return np.asarray(slots, np.int64)
