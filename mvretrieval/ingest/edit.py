"""Changes to stored objects: labels and removal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mvretrieval.session.session import Session


def set_metadata(session: Session, object_id: str, values: Mapping[str, Any]) -> None:
    """Set labels of an object (see `Collection.set_metadata`)."""
    session.lock_for_writing()
    with session.store.transaction():
        session.store.set_metadata(session.row_id_of(object_id), values)


def remove_objects(session: Session, *ids: str) -> int:
    """Remove objects and return how many there were (see `Collection.remove`)."""
    session.lock_for_writing()
    with session.store.transaction():
        return session.store.delete(ids, session.store.next_sequence())
