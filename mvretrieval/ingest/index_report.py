"""What a run of indexing is asked for, and what it tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mvrender.mesh import Limits, UpAxis


@dataclass(frozen=True)
class IndexOptions:
    """How folders are indexed.

    Attributes:
        labels: CSV with a `file` column; its other columns become metadata, `up` an up axis.
        up: axis that is up in every file without one in the labels; each format's convention by default.
        prune: remove objects whose files are gone.
        retry: try files again that failed before and have not changed.
        fit_where: objects that whitening is learnt from, when it is learnt.
        limits: what one file may cost; those of the collection's `OpenOptions` by default.
        progress: called with (done, total) now and then.
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
    """What a run did.

    Attributes:
        found: files that were looked at, or objects of a CSV of views.
        added: objects that are new.
        replaced: objects whose file changed.
        unchanged: files that were there already.
        identical: new objects (counted in `added`) whose content was known, so that nothing was encoded.
        moved: objects whose file was found at another place.
        gone: objects whose file is no longer there; `removed` of them if pruned.
        failed: failures by code, those of earlier runs that were not tried again too.
        failures: (path, code, message) of this run.
        notes: (path, sentence) of what was left out while loading.
        labelled: objects whose metadata changed.
        unmatched_labels: rows of the labels whose file is no object.
        whitening: what was fitted, or why not.
        augmented: objects whose augmented vector changed because their neighbours did.
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
    labelled: int = 0
    unmatched_labels: int = 0
    whitening: str = ""
    augmented: int = 0
    seconds: float = 0.0
