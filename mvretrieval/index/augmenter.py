"""Keeps augmented vectors up to date: when augmentation is turned on, when objects are added, and after an indexing run.

A new object is augmented when it is written, with the neighbours that exist by then. `Augmenter.refresh` updates the objects
that gained a new object as a neighbour or lost a removed one; until then they stay as they are.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvretrieval.augmentation import average_neighbours
from mvretrieval.index.catch_up import caught_up
from mvretrieval.index.current import CurrentIndex
from mvretrieval.index.vector_index import VectorIndex
from mvretrieval.store.augmented import (
    AugmentationConfig,
    augmentation_of,
    is_up_to_date,
    neighbourhoods,
    put_augmented,
    reset_augmentation,
    search_vectors,
)
from mvretrieval.store.batches import original_vectors
from mvretrieval.store.store import Store

ORIGINAL_INDEX = "originals"
"""Folder, in the collection's, for a saved index of the original vectors."""

# Tolerance between index, matrix product and store for the same two vectors.
_ROUNDING = 1e-5
# Beyond this share of changed objects, finding the affected ones costs more than it saves.
_INCREMENTAL_SHARE = 0.2
_COMPARED = 1024  # changed objects in one matrix product

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Changes:
    """Row ids of objects that were added or changed since all objects were augmented, and of removed ones."""

    changed: NDArray[np.int64]
    vectors: NDArray[np.float32]  # (n, D) of the changed ones
    gone: NDArray[np.int64]


class Augmenter:
    """Keeps the augmented vectors of an open collection up to date. Does nothing where augmentation is off."""

    def __init__(self, folder: Path, store: Store, current_index: CurrentIndex) -> None:
        self._folder = folder / ORIGINAL_INDEX
        self._store = store
        self._current_index = current_index
        self._index: VectorIndex | None = None  # of the originals
        # Lock order: current index, this, store.
        self._lock = threading.RLock()

    def of_new(self, vectors: NDArray[np.float32], paths: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """Augmented vectors of objects that are about to be written; None where augmentation is off.

        Not inside a transaction: the index of the original vectors would read rows that may be rolled back.

        Args:
            vectors: (n, D) of the objects.
            paths: n; an object that is replaced is not its own neighbour.
        """
        setting = augmentation_of(self._store)
        if setting is None:
            return [None for _ in paths]
        known = [self._store.by_path(path) for path in paths]
        with self._lock:
            found = self._originals().search(vectors, setting.k + 1)
        return [
            self._average(vector, _others(row_ids, own[0] if own else None, setting.k), setting)
            for vector, own, (_, row_ids) in zip(vectors, known, found, strict=True)
        ]

    def set(self, setting: AugmentationConfig | None, progress: Progress | None = None) -> None:
        """Turn augmentation on for all objects, or off, in one transaction.

        Args:
            setting: neighbours and power; None turns it off.
            progress: called with (done, total).
        """
        store = self._store
        with self._current_index.exclusive(), self._lock:
            index = None
            if setting is not None:
                # Without augmentation the current index holds the original vectors.
                index = self._current_index.get() if augmentation_of(store) is None else self._originals()
            with store.transaction():
                reset_augmentation(store, setting)
                generation = store.next_generation()
                if index is not None:
                    self._write(index, None, progress)
            if index is not None:  # the original vectors did not change
                index.generation, index.saved_as = generation, ""
            self._index = index
        if setting is None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def refresh(self) -> int:
        """Update all objects to their current neighbours; returns how many changed."""
        if augmentation_of(self._store) is None or is_up_to_date(self._store):
            return 0
        with self._lock:
            index = self._originals()
            with self._store.transaction():
                return self._write(index, self._changes())

    def recompute(self) -> None:
        """Augment all objects again, inside a transaction of the caller that changed all vectors."""
        if augmentation_of(self._store) is None:
            return
        parts = self._store.vectors_since(-1)
        first = next(parts, None)
        if first is None:
            return
        # The index is not kept: the transaction may be rolled back.
        kind, dim, count = self._store.get_meta("index", "auto"), first[1].shape[1], self._store.count()
        self._write(VectorIndex.build(kind, dim, 0, 0, chain([first], parts), count), None)

    def save(self) -> None:
        """Write the index of the original vectors if it takes long to build.

        Raises:
            OSError, RuntimeError: the disk is full or read-only.
        """
        with self._lock:
            if self._index is not None and self._index.kind != "exact" and augmentation_of(self._store) is not None:
                self._folder.mkdir(exist_ok=True)
                self._index.save(self._folder)

    def close(self) -> None:
        """Release mapped files."""
        with self._lock:
            self._index = None

    def _originals(self) -> VectorIndex:
        """Index of the original vectors in the store."""
        with self._store.snapshot():
            since = self._store.vectors_since
            self._index = caught_up(self._index, self._store, self._folder, since, self._current_index.dim)
            return self._index

    def _changes(self) -> _Changes | None:
        """The changes since the last update; None if there are so many that every object may be affected."""
        augmented_at = self._store.get_meta("augmented_at")
        if augmented_at is None:
            return None
        gone = np.array(self._store.deleted_since(augmented_at), np.int64)
        parts = list(self._store.vectors_since(augmented_at))
        changed = np.concatenate([row_ids for row_ids, _ in parts]) if parts else np.empty(0, np.int64)
        if len(changed) + len(gone) > _INCREMENTAL_SHARE * self._store.count():
            return None
        vectors = (
            np.concatenate([part for _, part in parts])
            if parts
            else np.empty((0, self._current_index.dim()), np.float32)
        )
        return _Changes(changed, vectors, gone)

    def _write(self, index: VectorIndex, changes: _Changes | None, progress: Progress | None = None) -> int:
        """Write the augmented vectors that differ from the stored ones, inside the caller's transaction.

        Args:
            index: of the original vectors in the store.
            changes: since the last update, so that only affected objects are checked; None for all.
            progress: called with (done, total).

        Returns:
            Number of vectors that changed.
        """
        store, setting = self._store, augmentation_of(self._store)
        assert setting is not None
        sequence, total = store.sequence + 1, store.count()
        rewritten = changed = done = 0
        for row_ids, vectors in store.vectors_since(-1):
            done += len(row_ids)
            known, edges = neighbourhoods(store, row_ids, setting.k)
            if changes is not None:
                affected = _affected(row_ids, vectors, known, edges, changes)
                row_ids, vectors, known = row_ids[affected], vectors[affected], known[affected]
            present = search_vectors(store, row_ids.tolist())[1]
            found = index.search(vectors, setting.k + 1) if len(row_ids) else []
            for i, (own, vector, (cosines, near)) in enumerate(zip(row_ids, vectors, found, strict=True)):
                nearest = _others(near, int(own), setting.k)
                fresh = self._average(vector, nearest, setting)
                differs = bool(np.abs(fresh - present[i]).max() > _ROUNDING)
                if differs or set(nearest) != set(known[i][known[i] >= 0]):
                    edge = float(cosines[np.isin(near, nearest)].min(initial=1.0))
                    put_augmented(store, int(own), sequence, fresh, np.array(nearest, np.int64), edge)
                    rewritten += 1
                changed += differs
            if progress is not None:
                progress(done, total)
        if rewritten:
            store.next_sequence()
        store.set_meta("augmented_at", store.sequence)
        return changed

    def _average(
        self, vector: NDArray[np.float32], nearest: Sequence[int], setting: AugmentationConfig
    ) -> NDArray[np.float32]:
        # With the stored vectors, not the index's scores, which are approximate for a compressed index.
        neighbours = original_vectors(self._store, nearest)[1]
        return average_neighbours(vector, neighbours, setting.alpha) if len(neighbours) else vector


def _others(row_ids: NDArray[np.int64], own: int | None, k: int) -> list[int]:
    return [int(row_id) for row_id in row_ids if row_id != own][:k]


def _affected(
    row_ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    nearest: NDArray[np.int64],
    edges: NDArray[np.float64],
    changes: _Changes,
) -> NDArray[np.bool_]:
    """(n,) objects whose neighbours may differ: one of them changed or was removed, or a changed object is as near."""
    affected = np.isin(row_ids, changes.changed) | np.isin(
        nearest, np.concatenate([changes.changed, changes.gone])
    ).any(axis=1)
    for start in range(0, len(changes.changed), _COMPARED):
        cosines = vectors @ changes.vectors[start : start + _COMPARED].T
        affected |= cosines.max(axis=1) >= edges - _ROUNDING
    return np.asarray(affected, np.bool_)
