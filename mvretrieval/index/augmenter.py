"""Keeping smoothed vectors right: when smoothing is turned on, when objects come, and at the end of a run of indexing.

A new object is smoothed when it is written, with the neighbours that are there by then. That it now is a neighbour of
others, and that a removed one no longer is, is taken in by `Augmenter.refresh`; until then these others stay as they were.
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

# What index, matrix product and store may differ by for the same two vectors.
_ROUNDING = 1e-5
# Beyond this share of changed objects, looking for who is concerned costs more than it saves.
_FEW = 0.2
_COMPARED = 1024  # of the changed ones, with each page of objects at once

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _News:
    """What has changed since all objects were smoothed: numbers of objects that came or look different, and of those gone."""

    changed: NDArray[np.int64]
    vectors: NDArray[np.float32]  # (n, D) of the changed ones
    gone: NDArray[np.int64]


class Augmenter:
    """Keeps the smoothed vectors of an open collection right. Does nothing where smoothing is off."""

    def __init__(self, folder: Path, store: Store, current_index: CurrentIndex) -> None:
        self._folder = folder / ORIGINAL_INDEX
        self._store = store
        self._current_index = current_index
        self._index: VectorIndex | None = None  # of the originals
        # Taken after the lock of the collection's index and before the store's.
        self._lock = threading.RLock()

    def of_new(self, vectors: NDArray[np.float32], paths: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """Smoothed vectors of objects that are about to be written, from what has been written; None where smoothing is off.

        Not to be called in a transaction: the index of the originals would take in what may be rolled back.

        Args:
            vectors: (n, D) of the objects.
            paths: n; what an object looked like before is none of its neighbours.
        """
        setting = augmentation_of(self._store)
        if setting is None:
            return [None for _ in paths]
        known = [self._store.by_path(path) for path in paths]
        with self._lock:
            found = self._originals().search(vectors, setting.k + 1)
        return [
            self._blend(vector, _others(row_ids, own[0] if own else None, setting.k), setting)
            for vector, own, (_, row_ids) in zip(vectors, known, found, strict=True)
        ]

    def set(self, setting: AugmentationConfig | None, progress: Progress | None = None) -> None:
        """Smooth all objects from now on, or search their original vectors again, in one transaction.

        Args:
            setting: how; None for not at all.
            progress: called with (done, total).
        """
        store = self._store
        with self._current_index.exclusive(), self._lock:
            index = None
            if setting is not None:
                # Where smoothing is off, what is searched are the originals.
                index = self._current_index.get() if augmentation_of(store) is None else self._originals()
            with store.transaction():
                reset_augmentation(store, setting)
                generation = store.next_generation()
                if index is not None:
                    self._write(index, None, progress)
            if index is not None:  # it held the originals before, and goes on to
                index.generation, index.saved_as = generation, ""
            self._index = index
        if setting is None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def refresh(self) -> int:
        """Bring all objects up to the neighbours that they have now; returns how many changed."""
        if augmentation_of(self._store) is None or is_up_to_date(self._store):
            return 0
        with self._lock:
            index = self._originals()
            with self._store.transaction():
                return self._write(index, self._news())

    def recompute(self) -> None:
        """Smooth all objects anew, in a transaction of the caller's that has given each of them another vector."""
        if augmentation_of(self._store) is None:
            return
        parts = self._store.vectors_since(-1)
        first = next(parts, None)
        if first is None:
            return
        # Not kept: the transaction may yet be rolled back.
        kind, dim, count = self._store.get_meta("index", "auto"), first[1].shape[1], self._store.count()
        self._write(VectorIndex.build(kind, dim, 0, 0, chain([first], parts), count), None)

    def save(self) -> None:
        """Write the index of the originals, where building it takes long.

        Raises:
            OSError, RuntimeError: the disk is full or read-only.
        """
        with self._lock:
            if self._index is not None and self._index.kind != "exact" and augmentation_of(self._store) is not None:
                self._folder.mkdir(exist_ok=True)
                self._index.save(self._folder)

    def close(self) -> None:
        """Let go of the files that are mapped."""
        with self._lock:
            self._index = None

    def _originals(self) -> VectorIndex:
        """Index of the original vectors of what has been written."""
        with self._store.snapshot():
            since = self._store.vectors_since
            self._index = caught_up(self._index, self._store, self._folder, since, self._current_index.dim)
            return self._index

    def _news(self) -> _News | None:
        """What has changed; None where it is so much that every object may be concerned."""
        smoothed_at = self._store.get_meta("augmented_at")
        if smoothed_at is None:
            return None
        gone = np.array(self._store.deleted_since(smoothed_at), np.int64)
        parts = list(self._store.vectors_since(smoothed_at))
        changed = np.concatenate([row_ids for row_ids, _ in parts]) if parts else np.empty(0, np.int64)
        if len(changed) + len(gone) > _FEW * self._store.count():
            return None
        vectors = (
            np.concatenate([part for _, part in parts])
            if parts
            else np.empty((0, self._current_index.dim()), np.float32)
        )
        return _News(changed, vectors, gone)

    def _write(self, index: VectorIndex, news: _News | None, progress: Progress | None = None) -> int:
        """Write the smoothed vectors that are not what they should be, in a transaction of the caller's.

        Args:
            index: of the original vectors that are in the store.
            news: what has changed since the last time, so that only those concerned are looked at; None for all.
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
            if news is not None:
                concerned = _concerned(row_ids, vectors, known, edges, news)
                row_ids, vectors, known = row_ids[concerned], vectors[concerned], known[concerned]
            present = search_vectors(store, row_ids.tolist())[1]
            found = index.search(vectors, setting.k + 1) if len(row_ids) else []
            for i, (own, vector, (cosines, near)) in enumerate(zip(row_ids, vectors, found, strict=True)):
                nearest = _others(near, int(own), setting.k)
                fresh = self._blend(vector, nearest, setting)
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

    def _blend(
        self, vector: NDArray[np.float32], nearest: Sequence[int], setting: AugmentationConfig
    ) -> NDArray[np.float32]:
        # By the vectors in the store, not by the index's scores: those of a compressed index would be approximate.
        neighbours = original_vectors(self._store, nearest)[1]
        return average_neighbours(vector, neighbours, setting.alpha) if len(neighbours) else vector


def _others(row_ids: NDArray[np.int64], own: int | None, k: int) -> list[int]:
    return [int(row_id) for row_id in row_ids if row_id != own][:k]


def _concerned(
    row_ids: NDArray[np.int64],
    vectors: NDArray[np.float32],
    nearest: NDArray[np.int64],
    edges: NDArray[np.float64],
    news: _News,
) -> NDArray[np.bool_]:
    """(n,) which objects' neighbours may be others now: one of them changed or went, or one that changed is as near."""
    concerned = np.isin(row_ids, news.changed) | np.isin(nearest, np.concatenate([news.changed, news.gone])).any(axis=1)
    for start in range(0, len(news.changed), _COMPARED):
        cosines = vectors @ news.vectors[start : start + _COMPARED].T
        concerned |= cosines.max(axis=1) >= edges - _ROUNDING
    return np.asarray(concerned, np.bool_)
