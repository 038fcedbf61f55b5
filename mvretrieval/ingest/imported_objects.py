"""How imported vectors are stored: objects without a file, in a collection of their own."""

from __future__ import annotations

from mvretrieval.errors import DescriberError
from mvretrieval.session.session import Session

FORMAT = "vectors"
"""Format in the facts of an imported object."""
_PATH = "vector:"


def path_of(object_id: str) -> str:
    """What stands for the path of an imported object. Paths of files are absolute, so it is none of them."""
    return _PATH + object_id


def is_imported_path(path: str) -> bool:
    """Whether a path in the store is that of an imported object, or of one that failed."""
    return path.startswith(_PATH)


def holds_imported(session: Session) -> bool:
    """Whether the objects of a collection are imported vectors; there are no mixed collections."""
    return not session.describer.config.has_encoder or session.store.count_of_format(FORMAT) > 0


def check_not_imported(session: Session, consequence: str) -> None:
    """Refuse what imported vectors are no use for.

    Raises:
        DescriberError: the collection holds them (`imported_vectors`); `consequence` ends the message.
    """
    if holds_imported(session):
        raise DescriberError(
            f"{session.folder} holds vectors that were imported: {consequence}", code="imported_vectors"
        )
