"""Vectors by slot: those of a file, mapped into memory and never written to, and behind them those that came since."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_WRITTEN_AT_ONCE = 16_384


class Rows:
    """Vectors (n, D) that can only become more.

    Opening reads none of them, and the system keeps in memory what is used. The file may be replaced or removed by its
    name while it is mapped: what is mapped stays. It must not be shortened.
    """

    def __init__(self, dim: int, saved: NDArray[np.float32] | None = None, room: int = 0) -> None:
        """Rows that begin with `saved` (n, D), with room for more."""
        self.dim = dim
        self._saved = np.empty((0, dim), np.float32) if saved is None else saved
        self._more = np.empty((room, dim), np.float32)
        self._n_more = 0

    @classmethod
    def open(cls, path: Path) -> Rows:
        """Rows of a file.

        Raises:
            OSError, ValueError: it is not there, or holds something else, or less than it says.
        """
        mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        if mapped.ndim != 2 or mapped.dtype != np.float32 or not mapped.flags.c_contiguous:
            raise ValueError(f"{path} does not hold vectors")
        return cls(mapped.shape[1], np.asarray(mapped))

    def write(self, path: Path) -> None:
        """Write all of them."""
        with path.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (len(self), self.dim)}
            np.lib.format.write_array_header_1_0(file, header)
            for _, vectors in self.blocks(_WRITTEN_AT_ONCE):
                file.write(np.ascontiguousarray(vectors, "<f4").data)

    def __len__(self) -> int:
        return len(self._saved) + self._n_more

    def append(self, vectors: NDArray[np.float32]) -> None:
        """Add vectors (n, D) at the end."""
        start, end = self._n_more, self._n_more + len(vectors)
        self._more = grown(self._more, end, 0)
        self._more[start:end] = vectors
        self._n_more = end

    def take(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """Copies (n, D) of some."""
        n_saved = len(self._saved)
        if n_saved == 0:
            return self._more.take(slots, axis=0)  # a fifth faster than indexing
        if self._n_more == 0 or (len(slots) and slots.max() < n_saved):
            return self._saved.take(slots, axis=0)
        found = np.empty((len(slots), self.dim), np.float32)
        late = slots >= n_saved
        found[~late] = self._saved[slots[~late]]
        found[late] = self._more[slots[late] - n_saved]
        return found

    def blocks(self, size: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """All vectors without copying them, up to `size` at a time, each block with its first slot."""
        for offset, part in ((0, self._saved), (len(self._saved), self._more[: self._n_more])):
            for start in range(0, len(part), size):
                yield offset + start, part[start : start + size]


def grown(array: NDArray[Any], size: int, fill: Any) -> NDArray[Any]:
    """An array with room for at least `size`, twice as long when it has to be another."""
    if len(array) >= size:
        return array
    larger = np.full((max(size, 2 * len(array)), *array.shape[1:]), fill, array.dtype)
    larger[: len(array)] = array
    return larger
