"""The view vectors that a collection keeps, as training data: nothing is rendered or encoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mvretrieval.api import Collection
from mvretrieval.encoders.tuned import tuning_of
from mvretrieval.errors import TrainingError
from mvretrieval.weighting.whitening import Whitening, WhiteningFit


@dataclass(frozen=True)
class Features:
    """Objects with what was seen of them.

    Attributes:
        ids: N.
        labels: N class names.
        views: (N, S, V, D) float16 raw view vectors, as they are stored.
        mask: (N, V) bool.
        directions: (V, 3) float32 of the rig.
        fingerprint: of the views (see `Describer.view_fingerprint`).
        met: classes that the encoder was tuned on; held out, they would show too much.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    views: NDArray[np.float16]
    mask: NDArray[np.bool_]
    directions: NDArray[np.float32]
    fingerprint: str = ""
    met: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def classes(self) -> list[str]:
        """Class names, sorted."""
        return sorted(set(self.labels))

    def take(self, rows: NDArray[np.int64]) -> Features:
        """Some of the objects."""
        return replace(
            self,
            ids=tuple(self.ids[i] for i in rows),
            labels=tuple(self.labels[i] for i in rows),
            views=self.views[rows],
            mask=self.mask[rows],
        )

    def of_classes(self, names: Sequence[str]) -> Features:
        """The objects of some classes."""
        kept = set(names)
        return self.take(np.array([i for i, label in enumerate(self.labels) if label in kept], np.int64))

    def shots(self, k: int, seed: int) -> Features:
        """At most k objects of each class, drawn by seed."""
        order = np.random.default_rng(seed).permutation(len(self))
        seen: Counter[str] = Counter()
        rows = []
        for i in order:
            seen[self.labels[i]] += 1
            if seen[self.labels[i]] <= k:
                rows.append(i)
        return self.take(np.sort(np.array(rows, np.int64)))

    def whitening(self, whiten: int) -> Whitening | None:
        """Whitening fitted on these objects, with fewer dimensions where there are too few views; None for 0."""
        if whiten == 0:
            return None
        fit = WhiteningFit(self.views.shape[1], self.views.shape[3])
        for start in range(0, len(self), 256):
            some = slice(start, start + 256)
            fit.add(self.views[some].swapaxes(1, 2)[self.mask[some]].swapaxes(0, 1).astype(np.float32))
        return fit.result(min(whiten, self.views.shape[3], int(self.mask.sum()) - 1))


def from_collection(collection: Collection, by: str | None, where: str | None = None) -> Features:
    """Objects of a collection that have a label.

    Args:
        collection: open.
        by: label that names the class; None makes every object a class of its own.
        where: filter.

    Raises:
        FilterError: there is no such label, or the filter cannot be understood.
        TrainingError: no object is left.
    """
    with collection.reading():  # views, labels and their description belong to one moment
        return _read(collection, by, where)


def nothing_labelled(collection: Collection, by: str | None, where: str | None, n: int) -> TrainingError:
    """Why there is nothing to learn from among the n objects that a filter keeps."""
    if n:
        return TrainingError(
            f"none of {n} objects of {collection.folder} has a label '{by}'{f' where {where}' if where else ''}: give labels with "
            "'mvr index --labels'"
        )
    if where is not None:
        return TrainingError(f"--where {where} keeps no object of {collection.folder}: give another")
    return TrainingError(f"{collection.folder} has no object: index some")


def _read(collection: Collection, by: str | None, where: str | None) -> Features:
    store = collection.store
    row_ids = [int(n) for n in store.select(where)]
    records = store.records(row_ids)
    ids = [records[n].id for n in row_ids]
    if by is None:
        labels: list[str | None] = list(ids)
    else:
        store.check_column(by)
        labels = [None if value is None else str(value) for value in store.column_values(by, row_ids)]
    kept = [i for i, label in enumerate(labels) if label is not None]
    if not kept:
        raise nothing_labelled(collection, by, where, len(row_ids))
    n_styles = collection.describer.n_styles
    first, mask = store.views_of(row_ids[kept[0]])
    # Filled one by one in half precision, as they are stored: 31 kB an object with 12 views of 1280 numbers.
    views = np.empty((len(kept), n_styles, len(mask), first.size // (n_styles * len(mask))), np.float16)
    masks = np.empty((len(kept), len(mask)), bool)
    for row, i in enumerate(kept):
        own, masks[row] = store.views_of(row_ids[i])
        views[row] = own.reshape(views.shape[1:])
    tuned = tuning_of(collection.describer.config.encoder)
    return Features(
        ids=tuple(ids[i] for i in kept),
        labels=tuple(str(labels[i]) for i in kept),
        views=views,
        mask=masks,
        directions=collection.describer.rig.directions.astype(np.float32),
        fingerprint=store.get_meta("view_fingerprint"),
        met=() if tuned is None else tuned.classes,
    )
