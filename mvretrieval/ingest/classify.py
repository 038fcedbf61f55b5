"""What an indexing run does with one file: a pure decision, without rendering and without a store."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

# Failures that may be fixed without a change to the file itself; files with other failures are not tried again until they change.
RETRIED_FAILURES = frozenset(
    {
        "renderer_crash",
        "missing_file",
        "missing_view",
        "no_permission",
        "needs_extra",
        "missing_reference",
        "outside_reference",
        "bad_name",
    }
)


class Action(Enum):
    """What to do with a file."""

    SKIP_UNCHANGED = auto()
    """The object is stored, and its files have not changed."""
    SKIP_FAILED = auto()
    """It failed before, and nothing changed that could fix it."""
    OPEN = auto()
    """Load it: its content decides."""
    TOUCH = auto()
    """Same path, same content: store the new size and time."""
    MOVE = auto()
    """The content of an object whose own file is gone: give that object this path."""
    COPY = auto()
    """The content of another object: store its vectors a second time instead of rendering."""
    WAIT = auto()
    """Another file with the same content is being rendered: decide when that is done."""
    RENDER = auto()
    """New or changed content."""


@dataclass(frozen=True)
class FileState:
    """What store and disk say about one file.

    Attributes:
        stored: an object has this path.
        stat_matches: its files have the stored sizes and times.
        up_matches: it was rendered with the up axis that is wanted now.
        failure_code: of an earlier failure at this path.
        failure_unchanged: nothing changed since that failure.
        content_hash: None until the file was opened.
        stored_hash: content hash of the object at this path.
        holders_gone: for each object with this content, whether its own file is gone.
        in_flight: a file with this content is being rendered.
    """

    stored: bool = False
    stat_matches: bool = False
    up_matches: bool = True
    failure_code: str | None = None
    failure_unchanged: bool = False
    content_hash: str | None = None
    stored_hash: str | None = None
    holders_gone: tuple[bool, ...] = ()
    in_flight: bool = False


def classify(state: FileState, retry_failed: bool = False) -> Action:
    """Decide what to do with a file.

    Args:
        state: what is known about it.
        retry_failed: try files again that failed and have not changed.
    """
    if state.content_hash is None:
        if state.stored and state.stat_matches and state.up_matches:
            return Action.SKIP_UNCHANGED
        retried = retry_failed or state.failure_code in RETRIED_FAILURES
        if state.failure_code is not None and state.failure_unchanged and not retried:
            return Action.SKIP_FAILED
        return Action.OPEN
    if not state.holders_gone:
        return Action.WAIT if state.in_flight else Action.RENDER
    if state.stored_hash == state.content_hash:
        return Action.TOUCH
    if not state.stored and any(state.holders_gone):
        return Action.MOVE
    return Action.COPY
