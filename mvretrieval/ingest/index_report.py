"""Options and report of an indexing run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mvrender.mesh import Limits, UpAxis

PASSED_OVER = "passed_over"
"""Key of the store's meta data: JSON of the number of files by suffix that the last run passed over."""


@dataclass(frozen=True)
class IndexOptions:
    """Options of an indexing run.

    Attributes:
        labels: CSV with a `file` column; `up` is the up axis of a file, all other columns become metadata.
        up: up axis of every file without one in the labels; each format's convention by default.
        prune: remove objects whose files no longer exist.
        retry: try again files that failed before and have not changed.
        fit_where: filter of the objects that whitening is fitted on.
        limits: time and memory for one file; those of the collection's `OpenOptions` by default.
        progress: called with (done, total) from time to time.
    """

    labels: Path | None = None
    up: UpAxis | None = None
    prune: bool = False
    retry: bool = False
    fit_where: str | None = None
    limits: Limits | None = None
    progress: Callable[[int, int], None] | None = None


@dataclass
class IndexReport:
    """Counts and failures of an indexing run.

    Attributes:
        found: files found, or objects of a view manifest.
        added: new objects.
        replaced: objects whose file changed.
        unchanged: files that were indexed before and have not changed.
        identical: new objects (counted in `added`) with the content of another object; they were not encoded.
        moved: objects whose file has a new path.
        gone: objects whose file no longer exists.
        removed: objects removed by pruning.
        failed: number of failures by code, with those of earlier runs that were not tried again.
        failures: (path, code, message) of this run.
        notes: (path, note) about parts of a file that were left out.
        passed_over: number of 3D files and archives by suffix that no reader reads.
        labeled: objects whose metadata changed.
        unmatched_labels: rows of the labels without an object.
        unmatched_label: path of the first of them.
        whitening: sentence about the fit, or the reason that there was none.
        augmented: objects whose augmented vector changed with their neighbours.
        seconds: wall time.
    """

    found: int = 0
    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    identical: int = 0
    moved: int = 0
    gone: int = 0
    removed: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    labeled: int = 0
    unmatched_labels: int = 0
    unmatched_label: str = ""
    whitening: str = ""
    augmented: int = 0
    seconds: float = 0.0
