"""The vector index over object vectors: derived from the store, and rebuilt whenever in doubt.

Vectors are kept in slots, in the order of their arrival. A replaced or deleted object leaves a dead slot, which searches skip; with
too many dead slots the index is rebuilt. A search scores all vectors (`exact`), or the candidates that a FAISS index proposes. With
a filter that keeps few objects it scores all of these.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvretrieval.errors import CollectionError
from mvretrieval.index.exact import best_of, nearest, query_parts, rows_at_once
from mvretrieval.index.kinds import IndexKind, IndexParameters, is_named, resolve_kind
from mvretrieval.index.rows import Rows, grown

if TYPE_CHECKING:
    from mvretrieval.index.faiss_candidates import FaissCandidates

_MAX_DEAD_SHARE = 0.3
# Beyond this share of vectors kept by a filter, or taken as candidates, scoring all costs less than gathering those.
_GATHERED_SHARE = 0.15
# A saved index is written again when this share of its slots changed: opening catches up with less in no time.
_SAVED_LAG = 0.01
_ADDED_AT_ONCE = 1 << 16

Found = tuple[NDArray[np.float32], NDArray[np.int64]]


def _saved(folder: Path) -> list[tuple[int, int, Path]]:
    """Saved indexes, each with its generation and sequence."""
    named = ((re.fullmatch(r"index-(\d+)-(\d+)\.npz", path.name), path) for path in folder.glob("index-*.npz"))
    return [(int(name[1]), int(name[2]), path) for name, path in named if name]


def check_kind(kind: IndexKind, dim: int) -> None:
    """Raise if no index of this kind can be made for vectors of `dim` numbers.

    Raises:
        CollectionError: code `bad_index_kind`.
    """
    if not is_named(kind):
        from mvretrieval.index.faiss_candidates import check_factory

        check_factory(kind, dim)


@dataclass
class VectorIndex:
    """Object vectors by row id, searchable by cosine.

    Attributes:
        dim: D.
        sequence: of the store, up to which the index is current.
        generation: of the store; vectors of another generation cannot be compared.
        rows: vectors by slot.
        row_ids: of each slot, with spare capacity.
        alive: which slots hold an object, with spare capacity.
        slot_of: by row id, -1 where there is none.
        candidates: a FAISS index of the slots; None for exact search.
        saved_as: stem of the files that hold the index as it was `n_unsaved` slots ago.
        untrainable: kind that could not be built for these vectors; they are searched exactly.
    """

    dim: int
    sequence: int
    generation: int
    rows: Rows
    row_ids: NDArray[np.int64]
    alive: NDArray[np.bool_]
    slot_of: NDArray[np.int64]
    candidates: FaissCandidates | None = None
    saved_as: str = ""
    n_unsaved: int = 0
    untrainable: IndexKind = ""

    def __post_init__(self) -> None:
        self._n_alive = int(self.alive[: self.n_slots].sum())

    @classmethod
    def build(
        cls,
        kind: IndexKind,
        dim: int,
        sequence: int,
        generation: int,
        parts: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]],
        count: int,
    ) -> VectorIndex:
        """Build the index of `count` vectors, which are given in parts."""
        rows = Rows(dim, room=count)
        index = cls(
            dim, sequence, generation, rows, np.empty(count, np.int64), np.empty(count, bool), np.full(16, -1, np.int64)
        )
        for row_ids, vectors in parts:
            index.put(row_ids, vectors)
        index._train(resolve_kind(kind, len(index), dim))
        return index

    def _train(self, kind: IndexKind) -> None:
        """Make the FAISS index of an approximate kind, unless there are too few vectors for it."""
        if kind == "exact":
            return
        from mvretrieval.index.faiss_candidates import FaissCandidates, reason_of

        n = len(self)
        try:
            if n < FaissCandidates.fewest(kind, self.dim, n):
                return
            candidates = FaissCandidates.trained(kind, self.sample(FaissCandidates.sample_size(kind, self.dim, n)), n)
        except (CollectionError, RuntimeError) as error:  # the vectors became shorter, or FAISS cannot train on them
            self.untrainable = kind
            warnings.warn(f"no index of kind '{kind}' can be built ({reason_of(error)}): search is exact", stacklevel=2)
            return
        slots = self.live_slots() if candidates.deletes else np.arange(self.n_slots)
        for start in range(0, len(slots), _ADDED_AT_ONCE):
            some = slots[start : start + _ADDED_AT_ONCE]
            candidates.add(some, self.rows.take(some))
        self.candidates = candidates

    def __len__(self) -> int:
        """Number of objects that can be found."""
        return self._n_alive

    @property
    def kind(self) -> IndexKind:
        """How vectors are searched: `exact`, `hnsw`, `ivf`, `cagra` or a factory string."""
        return "exact" if self.candidates is None else self.candidates.kind

    @property
    def n_slots(self) -> int:
        """Number of slots in use, dead ones included."""
        return len(self.rows)

    def needs_rebuild(self, kind: IndexKind) -> bool:
        """Whether a rebuild pays: many dead slots, or too many or far too few objects for this kind of search."""
        count = len(self)
        if self.n_slots > 1000 and count < (1 - _MAX_DEAD_SHARE) * self.n_slots:
            return True
        candidates, wanted = self.candidates, resolve_kind(kind, count, self.dim)
        if candidates is None:
            if wanted in ("exact", self.untrainable):
                return False
            from mvretrieval.index.faiss_candidates import FaissCandidates

            try:
                return count >= FaissCandidates.fewest(wanted, self.dim, count)
            except CollectionError:
                return False
        # With a margin: a collection near the limit would otherwise be rebuilt with every added or removed object.
        if resolve_kind(kind, 2 * count, self.dim) == "exact" or candidates.outgrown_by(count):
            return True
        # `auto` keeps the kind that another machine chose.
        return kind != "auto" and candidates.kind != kind

    def put(self, row_ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add objects, or replace those that are there."""
        if len(row_ids) == 0:
            return
        self.drop(row_ids)
        start, end = self.n_slots, self.n_slots + len(row_ids)
        slots = np.arange(start, end)
        self.rows.append(vectors)
        self.row_ids = grown(self.row_ids, end, 0)
        self.alive = grown(self.alive, end, False)
        self.slot_of = grown(self.slot_of, int(row_ids.max()) + 1, -1)
        self.row_ids[start:end] = row_ids
        self.alive[start:end] = True
        self.slot_of[row_ids] = slots
        if self.candidates is not None:
            self.candidates.add(slots, vectors)
        self._n_alive += len(row_ids)
        self.n_unsaved += len(row_ids)

    def drop(self, row_ids: NDArray[np.int64] | list[int]) -> None:
        """Remove objects from the index."""
        slots = np.unique(self.slots_of(np.asarray(row_ids, np.int64)))
        if len(slots) == 0:
            return
        if self.candidates is not None:
            self.candidates.remove(slots)
        self.alive[slots] = False
        self.slot_of[self.row_ids[slots]] = -1
        self._n_alive -= len(slots)
        self.n_unsaved += len(slots)

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.int64] | None = None,
        parameters: IndexParameters | None = None,
    ) -> list[Found]:
        """The most similar objects for each query.

        Args:
            queries: (Q, D).
            k: number of results at most.
            allowed: row ids to search; all if None.
            parameters: of the FAISS index, for this search.

        Returns:
            For each query the inner products, falling, and the row ids; ties are broken by row id.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        slots = None if allowed is None else self.slots_of(allowed)
        k = min(k, len(self) if slots is None else len(slots))
        if k <= 0:
            return [(np.empty(0, np.float32), np.empty(0, np.int64)) for _ in queries]
        candidates = self.candidates
        if candidates is None or (slots is not None and self.are_gathered(len(slots))):
            return self.exact(queries, k, slots)
        n = candidates.n_candidates(k, parameters)
        if not candidates.deletes and slots is None:
            n = round(n * len(candidates) / len(self))  # some of them are dead
        if self.are_gathered(n):
            return self._approximate(candidates, queries, k, slots, n, parameters)
        return self.exact(queries, k, slots)

    def sample(self, limit: int) -> NDArray[np.float32]:
        """(n, D) vectors of at most `limit` objects, evenly spaced over the slots."""
        slots = self.live_slots()
        if len(slots):
            slots = slots[np.linspace(0, len(slots) - 1, min(limit, len(slots))).astype(np.int64)]
        return self.rows.take(slots)

    # -- on disk ------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write the index. The last file makes the others valid, so that a kill leaves the previous index or none.

        Nothing is written if the saved index is nearly current.

        Raises:
            OSError, RuntimeError: the disk is full or read-only.
        """
        there = self.saved_as and (folder / f"{self.saved_as}.npz").exists()
        if there and self.n_unsaved <= _SAVED_LAG * self.n_slots:
            return
        stem = f"index-{self.generation}-{self.sequence}"
        try:
            self._write(folder, stem)
        except (OSError, RuntimeError):
            for part in folder.glob(f"{stem}.*.part"):
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
            raise
        for old in folder.glob("index-*"):
            if not old.name.startswith(f"{stem}."):
                with contextlib.suppress(OSError):
                    old.unlink()

    def _write(self, folder: Path, stem: str) -> None:
        n = self.n_slots
        self.rows.write(folder / f"{stem}.vectors.part")
        if self.candidates is not None:
            self.candidates.write(folder / f"{stem}.faiss.part")
        header = np.array([self.generation, self.sequence, self.dim, n])
        with (folder / f"{stem}.npz.part").open("wb") as file:
            np.savez(file, row_ids=self.row_ids[:n], alive=self.alive[:n], header=header, kind=np.array(self.kind))
        for suffix in ("vectors", "faiss", "npz") if self.candidates is not None else ("vectors", "npz"):
            os.replace(folder / f"{stem}.{suffix}.part", folder / f"{stem}.{suffix}")  # noqa: PTH105
        self.rows = Rows.open(folder / f"{stem}.vectors")  # mapped: the system decides what stays in memory
        self.saved_as, self.n_unsaved = stem, 0

    @classmethod
    def load(cls, folder: Path, generation: int) -> VectorIndex | None:
        """The newest saved index of this generation, or None if none can be read."""
        for saved_generation, _, path in sorted(_saved(folder), reverse=True):
            if saved_generation != generation:
                continue
            try:
                index = cls._read(path)
            except (OSError, ValueError, KeyError, RuntimeError, EOFError, MemoryError, zipfile.BadZipFile):
                continue
            if index.generation == generation:
                return index
        return None

    @staticmethod
    def discard_newer(folder: Path, sequence: int, generation: int) -> None:
        """Delete saved indexes of states that the store has not reached: the store was restored from a backup.

        It would reach the same sequence numbers with other objects.
        """
        for saved_generation, saved_sequence, path in _saved(folder):
            if saved_generation > generation or saved_sequence > sequence:
                with contextlib.suppress(OSError):
                    path.unlink()

    @classmethod
    def _read(cls, path: Path) -> VectorIndex:
        with np.load(path, allow_pickle=False) as data:
            generation, sequence, dim, n = (int(x) for x in data["header"])
            row_ids, alive, kind = data["row_ids"], data["alive"], str(data["kind"])
        rows = Rows.open(path.with_suffix(".vectors"))
        slots = np.flatnonzero(alive)
        candidates = None
        if kind != "exact":
            from mvretrieval.index.faiss_candidates import FaissCandidates

            candidates = FaissCandidates.open(path.with_suffix(".faiss"), kind)
            if (len(candidates), candidates.dim) != (len(slots) if candidates.deletes else n, dim):
                raise ValueError(f"{path} does not match its FAISS index")
        if (len(rows), rows.dim, len(row_ids), len(alive)) != (n, dim, n, n):
            raise ValueError(f"{path} does not match its vectors")
        slot_of = np.full(int(row_ids.max(initial=0)) + 1, -1, np.int64)
        slot_of[row_ids[slots]] = slots
        return cls(dim, sequence, generation, rows, row_ids, alive, slot_of, candidates, path.stem)

    # -- slots and exact search ----------------------------------------------------------------------------------------

    def live_slots(self) -> NDArray[np.int64]:
        """Slots that hold an object."""
        return np.flatnonzero(self.alive[: self.n_slots])

    def slots_of(self, row_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Slots of the objects that are in the index."""
        slots = self.slot_of[row_ids[row_ids < len(self.slot_of)]]
        return np.asarray(slots[slots >= 0])

    def are_gathered(self, n: int) -> bool:
        """Whether n vectors are so few that they are gathered instead of scoring all."""
        return n < _GATHERED_SHARE * self.n_slots

    def exact(self, queries: NDArray[np.float32], k: int, slots: NDArray[np.int64] | None) -> list[Found]:
        """The best of the given slots, or of all live slots, by scoring them all."""
        found: list[Found] = []
        for part in query_parts(len(queries)):
            some = queries[part]
            size = rows_at_once(len(some))
            if slots is not None and self.are_gathered(len(slots)):
                found += nearest(some, self._gathered(np.sort(slots), size), k)
            else:
                found += nearest(some, self._scanned(slots, size), k)
        return found

    def _gathered(
        self, slots: NDArray[np.int64], size: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], None]]:
        for start in range(0, len(slots), size):
            some = slots[start : start + size]
            yield self.row_ids[some], self.rows.take(some), None

    def _scanned(
        self, slots: NDArray[np.int64] | None, size: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_] | None]]:
        counts = None if len(self) == self.n_slots else self.alive
        if slots is not None:
            counts = np.zeros(self.n_slots, bool)
            counts[slots] = True
        for start, vectors in self.rows.blocks(size):
            end = start + len(vectors)
            yield self.row_ids[start:end], vectors, None if counts is None else counts[start:end]

    def _approximate(
        self,
        candidates: FaissCandidates,
        queries: NDArray[np.float32],
        k: int,
        slots: NDArray[np.int64] | None,
        n: int,
        parameters: IndexParameters | None,
    ) -> list[Found]:
        """The best of n candidates for each query."""
        selected = None
        if slots is not None:
            selected = np.zeros(self.n_slots, bool)
            selected[slots] = True
        try:
            proposed = candidates.candidates(queries, n, parameters, selected)
        except RuntimeError:  # this kind has no parameters, and cannot select
            return self.exact(queries, k, slots)
        found: list[Found] = []
        has_dead = len(self) < self.n_slots and not candidates.deletes
        for query, near in zip(queries, proposed, strict=True):
            if near[-1] < 0:  # fewer were found
                near = near[near >= 0]
            if has_dead:
                near = near[self.alive[near]]
            if len(near) < k:  # the lists near this query hold too few vectors
                found += self.exact(query[None], k, slots)
            else:
                found.append(best_of(query, self.rows.take(near), self.row_ids[near], k))
        return found
