"""Search of a vector index on a GPU, or on the CPU where that cannot be, with the reason.

A float16 copy of all vectors proposes candidates, which are scored by the float32 vectors in main memory. With rounding error e, no
other vector scores more than the last candidate's score on the GPU plus e. If the k-th best score is larger than that, the hits are
those of an exact search. Otherwise more candidates are taken, and at last the query is searched on the CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvretrieval.index.exact import best_of
from mvretrieval.index.gpu import choose_gpu, free_bytes, has_cagra, has_gpu_driver
from mvretrieval.index.kinds import IndexKind, IndexParameters
from mvretrieval.index.vector_index import Found, VectorIndex

if TYPE_CHECKING:
    from mvretrieval.index.gpu_copy import GpuCopy, Place

# Of an inner product of two vectors of unit norm. Rounding both to 11 bits gives 2^-10 at most, summing D products in float32
# D * 2^-24: together less than this up to 15,000 dimensions.
ROUNDING = 2.0**-9
# `auto` copies an index once so many scores of an exact search were wanted: with fewer, loading CUDA takes longer than it saves.
AUTO_FROM_SCORES = 10**8
_MOST_OF_FREE = 0.8  # of the GPU's free memory: encoding needs some of the rest
_MOST_NEW = 0.1  # share of slots that came after a graph was built, beyond which it is built again
_NO_CAGRA = (
    "kind 'cagra' needs a GPU and a build of FAISS with cuVS (faiss-gpu-cuvs); "
    "a graph of kind 'hnsw' is searched in its place"
)


class GpuSearch:
    """Searches one vector index at a time on a GPU, and on the CPU where the GPU cannot. Not thread-safe."""

    def __init__(self, device: str, kind: Callable[[], IndexKind], place: Place | None = None) -> None:
        """Nothing is loaded before it is needed.

        Args:
            device: `auto`, `cuda`, `cuda:1`, ...
            kind: returns the kind that the collection wants.
            place: where copies are made; the GPU of `device` by default.
        """
        self._device = device
        self._kind = kind
        self._place = place
        self._index: VectorIndex | None = None
        self._copy: GpuCopy | None = None
        self._is_tried = False  # for this index
        self._is_off = False
        self._n_scores = 0
        self._reason = ""

    @classmethod
    def for_device(cls, device: str, kind: Callable[[], IndexKind]) -> GpuSearch | None:
        """None where all searches run on the CPU: for devices other than `cuda`, and for `auto` without a GPU."""
        if device == "auto":
            return cls(device, kind) if has_gpu_driver() else None
        return cls(device, kind) if device.partition(":")[0] == "cuda" else None

    @property
    def is_used(self) -> bool:
        """Whether there is a copy on the GPU."""
        return self._copy is not None

    def notices(self) -> list[str]:
        """Why vectors are searched on the CPU, as a sentence; nothing if they are not, or if no GPU was requested."""
        if self._place is None and not self._reason:
            if self._device != "auto":
                self._choose()
            if not self._reason and self._kind() == "cagra" and not has_cagra():
                self._reason = _NO_CAGRA
        return [_notice(self._reason)] if self._reason else []

    def close(self) -> None:
        """Release the GPU's memory."""
        self._index = self._copy = None
        self._is_tried = False

    def search(
        self,
        index: VectorIndex,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.int64] | None = None,
        parameters: IndexParameters | None = None,
    ) -> list[Found]:
        """The most similar objects for each query; see `VectorIndex.search`."""
        if not self._is_off:
            try:
                copy = self._current(index, len(queries))
                if copy is not None:
                    return self._search(copy, index, np.ascontiguousarray(queries, np.float32), k, allowed, parameters)
            except (RuntimeError, MemoryError) as error:
                from mvretrieval.index.faiss_candidates import reason_of

                self._reason = f"FAISS failed on the GPU ({reason_of(error)})"
                if self._copy is not None:  # notices may have been read
                    self._turn_off()
                    warnings.warn(f"vectors are searched on the CPU from now on: {self._reason}", stacklevel=2)
        return index.search(queries, k, allowed, parameters)

    def _turn_off(self) -> None:
        """Search on the CPU from now on."""
        self.close()
        self._is_off = True

    # -- the copy -----------------------------------------------------------------------------------------------------

    def _current(self, index: VectorIndex, n_queries: int) -> GpuCopy | None:
        """The copy of an index as it is now; None if it is searched on the CPU."""
        if self._index is not index or (self._copy is not None and _is_outdated(self._copy, index)):
            self.close()  # before another copy is made: both may not fit
            self._index = index
        if self._copy is None and not self._is_tried:
            if self._device == "auto":
                self._n_scores += n_queries * len(index)
                if self._n_scores < AUTO_FROM_SCORES:
                    return None
            self._is_tried = True
            self._copy = self._made(index)
        if self._copy is not None:
            self._copy.catch_up(index)
        return self._copy

    def _made(self, index: VectorIndex) -> GpuCopy | None:
        """A copy of an index; None, with a reason, if it cannot be."""
        if len(index) == 0:
            self._is_tried = False
            return None
        self._reason = ""
        number = None
        if self._place is None:
            number = self._choose()
            if number is None:
                self._turn_off()
                return None
        from mvretrieval.index.gpu_copy import GpuCopy, GpuPlace, bytes_needed, form_of

        form, self._reason = form_of(index, self._kind())
        if form == "graph" and self._place is None and not has_cagra():
            self._reason = _NO_CAGRA
        if form is not None and not self._reason and number is not None:
            self._reason = why_too_large(bytes_needed(index, form), free_bytes(number))
        if form is None or self._reason:
            return None
        return GpuCopy(index, form, self._place or GpuPlace(number or 0))

    def _choose(self) -> int | None:
        number, self._reason = choose_gpu(self._device)
        return number

    # -- searching ----------------------------------------------------------------------------------------------------

    def _search(
        self,
        copy: GpuCopy,
        index: VectorIndex,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.int64] | None,
        parameters: IndexParameters | None,
    ) -> list[Found]:
        slots = None if allowed is None else index.slots_of(allowed)
        n_counted = len(index) if slots is None else len(slots)
        k = min(k, n_counted)
        if k <= 0 or (slots is not None and index.are_gathered(n_counted)):
            return index.search(queries, k, allowed, parameters)
        counts = index.alive
        if slots is not None:
            counts = np.zeros(index.n_slots, bool)
            counts[slots] = True
        found: dict[int, Found] = {}
        left = np.arange(len(queries))
        n = copy.n_candidates(k, index.candidates, parameters) * copy.n_slots / n_counted  # the others are skipped
        for n_candidates in _numbers(n, k, copy):
            scores, near = copy.candidates(queries[left], n_candidates, parameters)
            for i, row_scores, row in zip(left.tolist(), scores, near, strict=True):
                best = _best(copy, index, counts, queries[i], k, row_scores, row)
                if best is not None:
                    found[i] = best
            left = np.array([i for i in left if i not in found], np.int64)
            if len(left) == 0:
                break
        if len(left):
            some = queries[left]
            rest = index.exact(some, k, slots) if copy.form == "flat" else index.search(some, k, allowed, parameters)
            found |= dict(zip(left.tolist(), rest, strict=True))
        return [found[i] for i in range(len(queries))]


def notices_without_gpu(kind: IndexKind) -> list[str]:
    """What to tell where the device is the CPU: that a kind is for GPUs only."""
    return [_notice(_NO_CAGRA)] if kind == "cagra" else []


def why_too_large(needed: int, free: int | None) -> str:
    """Why a copy does not fit into the GPU's memory; empty if it does, or if it is unknown how much is free.

    Args:
        needed: bytes.
        free: bytes; None if unknown.
    """
    if free is None or needed <= _MOST_OF_FREE * free:
        return ""
    return (
        f"the copy needs up to {needed / 1e9:.1f} GB of GPU memory, and {free / 1e9:.1f} GB are free, of which "
        f"{_MOST_OF_FREE:.0%} may be used"
    )


def _notice(reason: str) -> str:
    return f"vectors are searched on the CPU: {reason}"


def _is_outdated(copy: GpuCopy, index: VectorIndex) -> bool:
    return copy.form == "graph" and index.n_slots - copy.n_slots > _MOST_NEW * index.n_slots


def _numbers(n: float, k: int, copy: GpuCopy) -> list[int]:
    """Numbers of candidates to try in turn."""
    from mvretrieval.index.gpu_copy import MOST_CANDIDATES

    most = min(MOST_CANDIDATES, copy.n_slots)
    first = min(int(np.ceil(n)), most)
    if first < k:
        return []
    return [first, most] if copy.form == "flat" and first < most else [first]


def _best(
    copy: GpuCopy,
    index: VectorIndex,
    counts: NDArray[np.bool_],
    query: NDArray[np.float32],
    k: int,
    scores: NDArray[np.float32],
    near: NDArray[np.int64],
) -> Found | None:
    """The best k of the candidates of a query; None if other vectors may be among the best."""
    kept = near[near >= 0]
    kept = kept[counts[kept]]
    if copy.n_slots < index.n_slots:
        new = np.arange(copy.n_slots, index.n_slots)
        kept = np.concatenate([kept, new[counts[new]]])
    if len(kept) < k:
        return None
    best = best_of(query, index.rows.take(kept), index.row_ids[kept], k)
    if copy.form == "flat" and len(near) < copy.n_slots:
        highest_other = float(scores[-1]) + ROUNDING * float(np.linalg.norm(query))
        if not best[0][-1] > highest_other:
            return None
    return best
