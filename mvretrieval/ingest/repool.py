"""Object vectors computed again from stored view vectors: with another whitening, pooling or adapter."""

from __future__ import annotations

import numpy as np

from mvretrieval.describe import Describer
from mvretrieval.errors import DescriberError
from mvretrieval.session.session import Session
from mvretrieval.weighting.whitening import Whitening, WhiteningFit

_BATCH = 256


def fit_whitening(session: Session, where: str | None = None, describer: Describer | None = None) -> Whitening:
    """Fit the centring or whitening that a describer names on stored view vectors, and re-pool all objects with it.

    Args:
        session: of the collection; the writer lock is taken.
        where: filter of the objects to fit on; all by default.
        describer: names the whitening, over the stored views; the collection's own by default.

    Raises:
        DescriberError: no objects to fit on, or too few views for the number of dimensions.
    """
    row_ids = session.store.select(where).tolist()
    fit: WhiteningFit | None = None
    for start in range(0, len(row_ids), _BATCH):
        some = [session.views(row_id) for row_id in row_ids[start : start + _BATCH]]
        if fit is None:
            fit = WhiteningFit(len(some[0][0]), some[0][0].shape[-1])
        fit.add(np.concatenate([views[:, mask] for views, mask in some], axis=1))
    if fit is None:
        condition = f" where {where}" if where else ""
        raise DescriberError(
            f"whitening cannot be fitted: {session.folder} has no objects{condition}", code="nothing_to_fit_on"
        )
    describer = describer or session.describer
    whitening = fit.result(describer.config.whiten or None)
    repool(session, describer.with_whitening(whitening))
    return whitening


def repool(session: Session, describer: Describer) -> None:
    """Compute every object vector again from the stored views, and store the describer, in one transaction.

    Args:
        session: of the collection; the writer lock is taken.
        describer: its raw views must be the stored ones.
    """
    session.lock_for_writing()
    store = session.store
    row_ids = store.select(None).tolist()
    with store.transaction():
        for start in range(0, len(row_ids), _BATCH):
            some = row_ids[start : start + _BATCH]
            views, masks = zip(*(session.views(row_id) for row_id in some), strict=True)
            vectors, _ = describer.pool(np.stack(views), np.stack(masks))
            for row_id, vector in zip(some, vectors, strict=True):
                store.put_vector(row_id, vector)
        store.bump_all(store.next_sequence())
        store.next_generation()
        session.augmenter.recompute()
        session.write_describer(describer)
