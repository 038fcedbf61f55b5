"""Object vectors computed anew from the views that are stored: with other statistics, another pooling, an adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mvretrieval.describe import Describer
from mvretrieval.errors import DescriberError
from mvretrieval.weighting.whitening import Whitening, WhiteningFit

if TYPE_CHECKING:
    from mvretrieval.api import Collection

_AT_ONCE = 256


def fit_whitening(collection: Collection, where: str | None, describer: Describer | None) -> Whitening:
    """See `Collection.fit_whitening`."""
    row_ids = collection.store.select(where).tolist()
    fit: WhiteningFit | None = None
    for start in range(0, len(row_ids), _AT_ONCE):
        some = [collection.views(row_id) for row_id in row_ids[start : start + _AT_ONCE]]
        if fit is None:
            fit = WhiteningFit(len(some[0][0]), some[0][0].shape[-1])
        fit.add(np.concatenate([views[:, mask] for views, mask in some], axis=1))
    if fit is None:
        there = f" where {where}" if where else ""
        raise DescriberError(f"there is nothing to learn statistics from in {collection.folder}{there}")
    describer = describer or collection.describer
    whitening = fit.result(describer.config.whiten or None)
    collection.repool(describer.with_fitted(whitening))
    return whitening


def repool(collection: Collection, describer: Describer) -> None:
    """See `Collection.repool`."""
    collection.lock_for_writing()
    store = collection.store
    row_ids = store.select(None).tolist()
    with store.transaction():
        for start in range(0, len(row_ids), _AT_ONCE):
            some = row_ids[start : start + _AT_ONCE]
            views, masks = zip(*(collection.views(row_id) for row_id in some), strict=True)
            vectors, _ = describer.pool(np.stack(views), np.stack(masks))
            for row_id, vector in zip(some, vectors, strict=True):
                store.put_vector(row_id, vector)
        store.bump_all(store.next_sequence())
        store.set_meta("epoch", int(store.get_meta("epoch")) + 1)
        collection.augmenter.renew()
        collection.write_describer(describer)
