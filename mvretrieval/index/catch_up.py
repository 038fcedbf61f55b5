"""Updating an index to the current state of the store: load, catch up, or rebuild."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvretrieval.index.kinds import IndexKind
from mvretrieval.index.vector_index import VectorIndex
from mvretrieval.store.store import Store

Parts = Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]]


def caught_up(
    index: VectorIndex | None, store: Store, folder: Path, since: Callable[[int], Parts], dim: Callable[[], int]
) -> VectorIndex:
    """The index of the current state of the store; call it inside a snapshot.

    Args:
        index: the previous one; None at first.
        store: the truth.
        folder: where an index may have been saved.
        since: row ids and vectors changed after a sequence number, in parts; all of them for -1.
        dim: returns D, when the index is built.
    """
    sequence, generation = store.sequence, store.generation
    kind: IndexKind = store.get_meta("index", "auto")

    loaded = index is None or index.generation != generation
    if loaded:
        index = VectorIndex.load(folder, generation) if folder.is_dir() else None
    if index is not None and index.sequence < sequence:
        index.drop(store.deleted_since(index.sequence))
        for row_ids, vectors in since(index.sequence):
            index.put(row_ids, vectors)
        index.sequence = sequence
    # Not with every search: among a million objects, counting takes some milliseconds.
    is_another = index is not None and loaded and len(index) != store.count()
    if index is None or index.sequence > sequence or is_another or index.needs_rebuild(kind):
        return VectorIndex.build(kind, dim(), sequence, generation, since(-1), store.count())
    return index
