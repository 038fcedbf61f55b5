"""Training data for adapters: the view vectors stored in a session. Nothing is rendered or encoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvretrieval.encoders.registry import tuning_of
from mvretrieval.errors import ShapeError, TrainingError
from mvretrieval.session.session import Session
from mvretrieval.weighting.whitening import Whitening, WhiteningFit

ARRAYS = "arrays"
"""Fingerprint of views whose describer is not known."""


@dataclass(frozen=True)
class Features:
    """View vectors of N labeled objects.

    Attributes:
        ids: N object ids.
        labels: N class names.
        views: (N, S, V, D) float16 raw view vectors, as stored.
        mask: (N, V) bool, True where a view was rendered.
        directions: (V, 3) float32 camera directions of the rig.
        fingerprint: of the views (see `Describer.view_fingerprint`).
        encoder_classes: classes the encoder was tuned on; these cannot serve as validation classes.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    views: NDArray[np.float16]
    mask: NDArray[np.bool_]
    directions: NDArray[np.float32]
    fingerprint: str = ""
    encoder_classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def classes(self) -> list[str]:
        """Class names, sorted."""
        return sorted(set(self.labels))

    def take(self, rows: NDArray[np.int64]) -> Features:
        """The objects in these rows."""
        return replace(
            self,
            ids=tuple(self.ids[i] for i in rows),
            labels=tuple(self.labels[i] for i in rows),
            views=self.views[rows],
            mask=self.mask[rows],
        )

    def of_classes(self, names: Sequence[str]) -> Features:
        """The objects of these classes."""
        kept = set(names)
        return self.take(np.array([i for i, label in enumerate(self.labels) if label in kept], np.int64))

    def shots(self, k: int, seed: int) -> Features:
        """At most k objects of each class, drawn at random."""
        order = np.random.default_rng(seed).permutation(len(self))
        drawn: Counter[str] = Counter()
        rows = []
        for i in order:
            drawn[self.labels[i]] += 1
            if drawn[self.labels[i]] <= k:
                rows.append(i)
        return self.take(np.sort(np.array(rows, np.int64)))

    def whitening(self, dim: int) -> Whitening | None:
        """Whitening fitted on these objects; None for dim 0.

        Args:
            dim: output dimensions; reduced if there are too few views.
        """
        if dim == 0:
            return None
        fit = WhiteningFit(self.views.shape[1], self.views.shape[3])
        for start in range(0, len(self), 256):
            some = slice(start, start + 256)
            fit.add(self.views[some].swapaxes(1, 2)[self.mask[some]].swapaxes(0, 1).astype(np.float32))
        return fit.result(min(dim, self.views.shape[3], int(self.mask.sum()) - 1))


def from_collection(session: Session, by: str | None, where: str | None = None) -> Features:
    """Read the view vectors of labeled objects.

    Args:
        session: of an open collection.
        by: label column with the class names; None makes every object its own class.
        where: filter.

    Raises:
        FilterError: unknown label column, or an invalid filter.
        TrainingError: no object is left.
    """
    with session.reading():  # one snapshot of views, labels and describer
        return _read(session, by, where)


def from_arrays(
    views: NDArray[np.floating],
    labels: Sequence[str],
    directions: NDArray[np.floating] | None = None,
    mask: NDArray[np.bool_] | None = None,
    fingerprint: str = ARRAYS,
) -> Features:
    """Check arrays of view vectors, and make them features.

    Args:
        views: (N, V, D), or (N, S, V, D) with S styles.
        labels: N class names.
        directions: (V, 3); None if they are unknown.
        mask: (N, V), True where a view exists; all by default. Other views may hold anything.
        fingerprint: of the views.

    Raises:
        ShapeError: shapes disagree (`views_shape`, `label_count`, `mask_shape`, `directions_shape`), an object has no view
            (`no_view`), or a number is not finite (`not_finite`).
    """
    views = np.asarray(views)
    if views.ndim == 3:
        views = views[:, None]
    if views.ndim != 4 or 0 in views.shape:
        raise ShapeError(f"views must be (N, V, D) or (N, S, V, D); got {views.shape}", code="views_shape")
    n, _, n_views, _ = views.shape
    if len(labels) != n:
        raise ShapeError(f"one label per object is needed: {n} objects, {len(labels)} labels", code="label_count")
    mask = np.ones((n, n_views), bool) if mask is None else np.asarray(mask, bool)
    if mask.shape != (n, n_views):
        raise ShapeError(f"the mask must be (N, V) = {(n, n_views)}; got {mask.shape}", code="mask_shape")
    if not mask.any(axis=1).all():
        raise ShapeError("an object has no view: each row of the mask needs at least one True", code="no_view")
    if directions is None:
        directions = np.full((n_views, 3), np.nan)
    elif np.shape(directions) != (n_views, 3):
        raise ShapeError(
            f"directions must be (V, 3) = {(n_views, 3)}; got {np.shape(directions)}", code="directions_shape"
        )
    kept = np.where(mask[:, None, :, None], views, 0)
    if not np.isfinite(kept).all():
        raise ShapeError("the view vectors contain NaN or infinite numbers", code="not_finite")
    return Features(
        ids=tuple(str(i) for i in range(n)),
        labels=tuple(map(str, labels)),
        views=kept.astype(np.float16),
        mask=mask,
        directions=np.asarray(directions, np.float32),
        fingerprint=fingerprint,
    )


def nothing_labeled(folder: Path, by: str | None, where: str | None, n: int) -> TrainingError:
    """The error for a selection without labeled objects.

    Args:
        folder: of the collection.
        by: label column.
        where: filter.
        n: objects that match the filter.
    """
    if n:
        return TrainingError(
            f"none of {n} objects of {folder} has a label '{by}'{f' where {where}' if where else ''}: add labels with "
            "'mvr index --labels'",
            code="nothing_labeled",
        )
    if where is not None:
        return TrainingError(f"no object of {folder} matches --where {where}: change the filter", code="no_match")
    return TrainingError(f"{folder} has no objects: index some first", code="empty_collection")


def _read(session: Session, by: str | None, where: str | None) -> Features:
    store = session.store
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
        raise nothing_labeled(session.folder, by, where, len(row_ids))
    n_styles = session.describer.n_styles
    first, mask = store.views_of(row_ids[kept[0]])
    # Filled one by one in half precision, as stored: 31 kB per object with 12 views of 1280 dimensions.
    views = np.empty((len(kept), n_styles, len(mask), first.size // (n_styles * len(mask))), np.float16)
    masks = np.empty((len(kept), len(mask)), bool)
    for row, i in enumerate(kept):
        own, masks[row] = store.views_of(row_ids[i])
        views[row] = own.reshape(views.shape[1:])
    tuned = tuning_of(session.describer.config.encoder)
    return Features(
        ids=tuple(ids[i] for i in kept),
        labels=tuple(str(labels[i]) for i in kept),
        views=views,
        mask=masks,
        directions=session.describer.rig.directions.astype(np.float32),
        fingerprint=store.get_meta("view_fingerprint"),
        encoder_classes=() if tuned is None else tuned.classes,
    )
