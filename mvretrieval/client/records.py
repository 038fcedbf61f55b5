"""Records that a service returns, and how they are read from JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mvretrieval.ingest.index_report import IndexReport
from mvretrieval.search.hits import Hit


@dataclass(frozen=True)
class RemoteObject:
    """One object of a served collection. The fields are those of `ObjectRecord`, without the row id.

    Attributes:
        id: stable name.
        path: of its file on the machine of the service; empty unless the service shows paths.
        content_hash: of the mesh and its textures.
        facts: format, faces, vertices, textured, up.
        notes: what was left out while loading.
        metadata: labels.
    """

    id: str
    path: str
    content_hash: str
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RemoteJob:
    """A folder that the service indexes in the background.

    Attributes:
        id: of the job (see `Client.job`).
        folder: name of the folder.
        state: waiting, running, done, failed or stopped.
        done: files so far.
        total: files of the run.
        message: summary, or why it failed.
        code: error code of a failed job.
        report: counts, once it is done.
    """

    id: int
    folder: str
    state: Literal["waiting", "running", "done", "failed", "stopped"]
    done: int
    total: int
    message: str
    code: str
    report: IndexReport | None

    @property
    def is_over(self) -> bool:
        """Whether it is done, failed or stopped."""
        return self.state not in ("waiting", "running")


def hit_from_json(fields: Mapping[str, Any]) -> Hit:
    """The inverse of `Hit.to_json`."""
    return Hit(
        rank=fields["rank"],
        id=fields["id"],
        path=fields["path"] or "",
        score=fields["score"],
        best_view=without_none(fields["best_view"]),
        view_weights=np.array(fields["view_weights"], np.float32),
        metadata=fields["metadata"],
        facts=fields["facts"],
        parts=tuple(fields["parts"]),
        matches=tuple(fields["matches"] or ()),
        confidence=fields["confidence"],
    )


def object_from_json(fields: Mapping[str, Any]) -> RemoteObject:
    """An object of a response."""
    return RemoteObject(
        id=fields["id"],
        path=fields["path"] or "",
        content_hash=fields["content_hash"],
        facts=fields["facts"],
        notes=tuple(fields["notes"]),
        metadata=fields["metadata"],
    )


def job_from_json(fields: Mapping[str, Any]) -> RemoteJob:
    """A job, with its report once it is done."""
    report = None
    if fields["report"] is not None:
        counts = dict(fields["report"])
        counts["failed"] = Counter(counts["failed"])
        counts["passed_over"] = Counter(counts.get("passed_over", {}))
        counts["failures"] = [(failure["file"], failure["code"], failure["message"]) for failure in counts["failures"]]
        report = IndexReport(**counts)
    return RemoteJob(**{**fields, "report": report})


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries whose value is not None."""
    return {name: value for name, value in values.items() if value is not None}
