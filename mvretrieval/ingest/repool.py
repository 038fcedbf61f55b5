"""Object vectors computed anew from the views that are stored: with other statistics, another pooling, an adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mvretrieval.describe import Describer
from mvretrieval.errors import DescriberError
from mvretrieval.weighting.whitening import Statistics, StatisticsFit

if TYPE_CHECKING:
    from mvretrieval.api import Collection

_AT_ONCE = 256


def fit_statistics(collection: Collection, where: str | None, describer: Describer | None) -> Statistics:
    """See `Collection.fit_statistics`."""
    numbers = collection.store.select(where).tolist()
    fit: StatisticsFit | None = None
    for start in range(0, len(numbers), _AT_ONCE):
        some = [collection.views(number) for number in numbers[start : start + _AT_ONCE]]
        if fit is None:
            fit = StatisticsFit(len(some[0][0]), some[0][0].shape[-1])
        fit.add(np.concatenate([views[:, mask] for views, mask in some], axis=1))
    if fit is None:
        there = f" where {where}" if where else ""
        raise DescriberError(f"there is nothing to learn statistics from in {collection.folder}{there}")
    describer = describer or collection.describer
    statistics = fit.result(describer.config.whiten or None)
    collection.repool(describer.with_fitted(statistics))
    return statistics


def repool(collection: Collection, describer: Describer) -> None:
    """See `Collection.repool`."""
    collection.lock_for_writing()
    store = collection.store
    numbers = store.select(None).tolist()
    with store.transaction():
        for start in range(0, len(numbers), _AT_ONCE):
            some = numbers[start : start + _AT_ONCE]
            views, masks = zip(*(collection.views(number) for number in some), strict=True)
            vectors, _ = describer.pool(np.stack(views), np.stack(masks))
            for number, vector in zip(some, vectors, strict=True):
                store.put_vector(number, vector)
        store.touch_all(store.next_change())
        store.set_meta("epoch", int(store.get_meta("epoch")) + 1)
        collection.smoother.renew()
        collection.write_describer(describer)
