"""The FAISS index over object vectors: derived from the store, thrown away and rebuilt whenever in doubt.

Vectors sit in slots, in the order in which they came. A replaced or deleted object leaves a dead slot behind, which
searches skip, until so many are dead that the index is rebuilt.
"""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

faiss: Any = _faiss  # its types know a part of it
IndexKind = Literal["auto", "exact", "hnsw", "ivf"]

# Exact search over 200,000 vectors of 512 takes some ten milliseconds; beyond, approximate search pays.
EXACT_UP_TO = 200_000
# An HNSW graph costs 256 bytes a vector beyond the vector itself, and hours to build beyond this.
HNSW_UP_TO = 3_000_000
_MAX_DEAD_SHARE = 0.3
# Below this share of objects kept by a filter, scoring just those is faster than any index and exact.
_BRUTE_FORCE_SHARE = 0.1


def resolve_kind(kind: IndexKind, count: int) -> Literal["exact", "hnsw", "ivf"]:
    """What `auto` means at a size."""
    if kind != "auto":
        return kind
    if count <= EXACT_UP_TO:
        return "exact"
    return "hnsw" if count <= HNSW_UP_TO else "ivf"


@dataclass
class VectorIndex:
    """Object vectors by number, searchable by cosine.

    Attributes:
        kind: how it searches.
        dim: D.
        change: of the store, up to which it has caught up.
        epoch: of the store; vectors of another epoch have another meaning.
    """

    kind: Literal["exact", "hnsw", "ivf"]
    dim: int
    change: int
    epoch: int
    faiss_index: Any
    numbers: NDArray[np.int64]  # of each slot, with room to grow
    alive: NDArray[np.bool_]
    slot_of: NDArray[np.int64]  # by number, -1 where there is none
    saved_as: str = ""  # name of the files that hold just this

    @classmethod
    def build(
        cls,
        kind: IndexKind,
        dim: int,
        change: int,
        epoch: int,
        parts: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]],
        count: int,
    ) -> VectorIndex:
        """Index of `count` vectors that come in parts."""
        resolved = resolve_kind(kind, count)
        faiss_index: Any
        if resolved == "hnsw":
            faiss_index = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
            faiss_index.hnsw.efConstruction, faiss_index.hnsw.efSearch = 200, 128
        elif resolved == "ivf":
            n_lists = max(1, min(int(4 * np.sqrt(count)), count // 39))
            faiss_index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, n_lists, faiss.METRIC_INNER_PRODUCT)
            faiss_index.nprobe = max(1, min(n_lists, 64))
            parts = list(parts)
            if parts:
                faiss_index.train(np.concatenate([vectors for _, vectors in parts]))
        else:
            faiss_index = faiss.IndexFlatIP(dim)
        index = cls(
            resolved, dim, change, epoch, faiss_index, np.empty(0, np.int64), np.empty(0, bool), np.full(16, -1, np.int64)
        )
        for numbers, vectors in parts:
            index.put(numbers, vectors)
        return index

    def __len__(self) -> int:
        """Number of objects that can be found."""
        return int(self.alive[: self.n_slots].sum())

    @property
    def n_slots(self) -> int:
        """Slots in use, dead ones too."""
        return int(self.faiss_index.ntotal)

    @property
    def worn(self) -> bool:
        """Whether so many slots are dead that a rebuild pays."""
        return self.n_slots > 1000 and len(self) < (1 - _MAX_DEAD_SHARE) * self.n_slots

    def put(self, numbers: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add objects, or replace those that are there."""
        if len(numbers) == 0:
            return
        self.drop(numbers)
        start, end = self.n_slots, self.n_slots + len(numbers)
        if self.kind == "ivf" and not self.faiss_index.is_trained:
            self.faiss_index.train(np.ascontiguousarray(vectors, np.float32))
        self.faiss_index.add(np.ascontiguousarray(vectors, np.float32))
        self.numbers = _grown(self.numbers, end, 0)
        self.alive = _grown(self.alive, end, False)
        self.slot_of = _grown(self.slot_of, int(numbers.max()) + 1, -1)
        self.numbers[start:end] = numbers
        self.alive[start:end] = True
        self.slot_of[numbers] = np.arange(start, end)

    def drop(self, numbers: NDArray[np.int64] | list[int]) -> None:
        """Make objects unfindable."""
        known = np.asarray(numbers, np.int64)
        known = known[known < len(self.slot_of)]
        slots = self.slot_of[known]
        self.alive[slots[slots >= 0]] = False
        self.slot_of[known] = -1

    def search(
        self, queries: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None = None
    ) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """Best objects for each query.

        Args:
            queries: (Q, D).
            k: how many at most.
            allowed: numbers to choose from; all if None.

        Returns:
            For each query the inner products, falling, and the numbers; equal ones by number.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        slots = self._slots(allowed)
        k = min(k, len(self) if slots is None else len(slots))
        if k <= 0:
            return [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in queries]
        if slots is not None and self.kind != "ivf" and len(slots) < _BRUTE_FORCE_SHARE * self.n_slots:
            scores = queries @ self.vectors()[slots].T
            top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
            found = np.take_along_axis(scores, top, axis=1), slots[top]
        else:
            # faiss.contrib.torch_utils, which pytorch-metric-learning imports, puts a search without parameters in its place.
            search = getattr(self.faiss_index, "search_numpy", self.faiss_index.search)
            found = search(queries, k, params=self._parameters(slots, k))
        return [self._sorted(score, slot) for score, slot in zip(*found, strict=True)]

    def vectors(self) -> NDArray[np.float32]:
        """(n_slots, D) vectors without copying them; dead slots too. Not for `ivf`."""
        storage = self.faiss_index if self.kind == "exact" else faiss.downcast_index(self.faiss_index.storage)
        flat = faiss.rev_swig_ptr(storage.get_xb(), self.n_slots * self.dim)
        return np.asarray(flat).reshape(self.n_slots, self.dim)

    def sample(self, limit: int) -> NDArray[np.float32]:
        """(n, D) vectors of at most `limit` objects, evenly picked."""
        slots = np.flatnonzero(self.alive[: self.n_slots])
        slots = slots[np.linspace(0, len(slots) - 1, min(limit, len(slots))).astype(np.int64)] if len(slots) else slots
        if self.kind == "ivf":
            self.faiss_index.make_direct_map()
            found = np.empty((len(slots), self.dim), np.float32)
            for row, slot in zip(found, slots, strict=True):
                row[:] = self.faiss_index.reconstruct(int(slot))
            return found
        return self.vectors()[slots]

    # -- on disk ------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write the index; the second file's name makes the pair valid, so that a kill leaves an old pair or none.

        Raises:
            OSError, RuntimeError: the disk is full or read-only.
        """
        stem = f"index-{self.epoch}-{self.change}"
        if self.saved_as == stem and (folder / f"{stem}.npz").exists():
            return
        try:
            self._write(folder, stem)
        except (OSError, RuntimeError):
            for part in folder.glob(f"{stem}.*.part"):
                part.unlink(missing_ok=True)
            raise
        for old in folder.glob("index-*"):
            if not old.name.startswith(f"{stem}."):
                with contextlib.suppress(OSError):
                    old.unlink()

    def _write(self, folder: Path, stem: str) -> None:
        n = self.n_slots
        faiss.write_index(self.faiss_index, str(folder / f"{stem}.faiss.part"))
        with (folder / f"{stem}.npz.part").open("wb") as file:
            np.savez(
                file, numbers=self.numbers[:n], alive=self.alive[:n], header=np.array([self.epoch, self.change, self.dim, n]),
                kind=np.array(self.kind),
            )
        os.replace(folder / f"{stem}.faiss.part", folder / f"{stem}.faiss")  # noqa: PTH105
        os.replace(folder / f"{stem}.npz.part", folder / f"{stem}.npz")  # noqa: PTH105
        self.saved_as = stem

    @classmethod
    def load(cls, folder: Path, epoch: int) -> VectorIndex | None:
        """Newest saved index of this epoch, or None where there is none that can be read."""
        saved = [path for path in folder.iterdir() if re.fullmatch(rf"index-{epoch}-\d+\.npz", path.name)]
        for path in sorted(saved, key=lambda path: int(path.stem.rsplit("-", 1)[1]), reverse=True):
            try:
                with np.load(path, allow_pickle=False) as data:
                    stored_epoch, change, dim, n = (int(x) for x in data["header"])
                    numbers, alive, kind = data["numbers"], data["alive"], str(data["kind"])
                faiss_index = faiss.read_index(str(path.with_suffix(".faiss")))
                if stored_epoch != epoch or faiss_index.ntotal != n or faiss_index.d != dim or len(numbers) != n:
                    continue
            except (OSError, ValueError, KeyError, RuntimeError, EOFError, MemoryError, zipfile.BadZipFile):
                continue
            slot_of = np.full(int(numbers.max(initial=0)) + 1, -1, np.int64)
            slots = np.flatnonzero(alive)
            slot_of[numbers[slots]] = slots
            return cls(kind, dim, change, epoch, faiss_index, numbers, alive, slot_of, path.stem)  # type: ignore[arg-type]
        return None

    # -- plumbing -----------------------------------------------------------------------------------------------------

    def _slots(self, allowed: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        """Slots to search in, or None for all of them."""
        if allowed is None:
            return None if len(self) == self.n_slots else np.flatnonzero(self.alive[: self.n_slots])
        known = allowed[allowed < len(self.slot_of)]
        slots = self.slot_of[known]
        return np.asarray(slots[slots >= 0])

    def _parameters(self, slots: NDArray[np.int64] | None, k: int) -> Any:
        selector = None
        if slots is not None:
            kept = np.zeros(self.n_slots, bool)
            kept[slots] = True
            bitmap = np.packbits(kept, bitorder="little")
            selector = faiss.IDSelectorBitmap(bitmap)
        if self.kind == "hnsw":
            return faiss.SearchParametersHNSW(sel=selector, efSearch=max(128, 2 * k))
        if self.kind == "ivf":
            return faiss.SearchParametersIVF(sel=selector, nprobe=self.faiss_index.nprobe)
        return faiss.SearchParameters(sel=selector) if selector is not None else None

    def _sorted(self, scores: NDArray[np.float32], slots: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        kept = slots >= 0
        scores, numbers = scores[kept], self.numbers[slots[kept]]
        order = np.lexsort((numbers, -scores))
        return scores[order], numbers[order]


def _grown(array: NDArray[Any], size: int, fill: Any) -> NDArray[Any]:
    if len(array) >= size:
        return array
    larger = np.full(max(size, 2 * len(array)), fill, array.dtype)
    larger[: len(array)] = array
    return larger
