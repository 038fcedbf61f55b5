"""What a collection is filled from: folders of meshes, or views that come as pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mvrender.mesh import Limits
from mvrender.pool import Failed, Job, Opened, Rendered
from mvretrieval.ingest.scan import absolute, find_meshes, is_gone, stat_text, still_the_same
from mvretrieval.ingest.view_images import ViewJob

if TYPE_CHECKING:
    from mvretrieval.api import Collection


class Source(Protocol):
    """Objects to be, found and looked at."""

    def found(self) -> Iterator[tuple[Job, tuple[str, str] | None]]:
        """Each of them, and why it cannot be looked at, as (code, message), or None."""
        ...

    def run(self, jobs: Iterable[Job], needs_views: Callable[[Opened], bool]) -> Iterator[Rendered | Failed]:
        """Look at them; `needs_views` says whether the views of one that was opened are needed."""
        ...

    def rebind_paths(self) -> set[str]:
        """Before a run: give objects that are known by their ids their new paths, which are returned."""
        ...

    def earlier_failures(self) -> list[str]:
        """Paths that failed in earlier runs over the same place."""
        ...

    def lost(self) -> tuple[set[str], set[str]]:
        """Ids of objects whose files are gone, and of those among them that may be removed."""
        ...


class MeshFolders:
    """`Source` of the meshes in folders."""

    def __init__(self, collection: Collection, folders: list[Path], limits: Limits | None) -> None:
        """Start render workers.

        Args:
            collection: open for writing.
            folders: folders, or single files.
            limits: what one file may cost; the collection's by default.

        Raises:
            DescriberError: no mesh can be looked at as the collection's objects are.
        """
        self._store = collection.store
        self._folders = folders
        self._pool = collection.pool(limits=limits)

    def found(self) -> Iterator[tuple[Job, tuple[str, str] | None]]:
        """See `Source`."""
        for found in find_meshes(self._folders):
            yield Job(found.path, found.root), found.problem

    def run(self, jobs: Iterable[Job], needs_views: Callable[[Opened], bool]) -> Iterator[Rendered | Failed]:
        """See `Source`."""
        return self._pool.run(jobs, needs_views)

    def rebind_paths(self) -> set[str]:
        """See `Source`: a mesh is known by its content alone."""
        return set()

    def earlier_failures(self) -> list[str]:
        """See `Source`."""
        return [path for folder in self._absolute() for path in self._store.failed_paths_under(str(folder))]

    def lost(self) -> tuple[set[str], set[str]]:
        """See `Source`."""
        gone: set[str] = set()
        removable: set[str] = set()
        for folder in self._absolute():
            lost = {object_id for object_id, path in self._store.paths_under(str(folder)) if is_gone(path)}
            gone |= lost
            # A disk that is not mounted takes no objects with it, whether its folder is gone or merely empty.
            if lost and next(find_meshes([folder]), None) is not None and not is_gone(folder):
                removable |= lost
        return gone, removable

    def _absolute(self) -> set[Path]:
        return {absolute(folder) for folder in self._folders}


def stat_of(job: Job, references: Iterable[str] = ()) -> str:
    """Text that changes when a file of an object does."""
    return job.stat_text() if isinstance(job, ViewJob) else stat_text(job.path, references)


def is_unchanged(job: Job, stored: str) -> bool:
    """Whether an object's files look as they did when `stored` was made by `stat_of`."""
    return stored == job.stat_text() if isinstance(job, ViewJob) else still_the_same(job.path, stored)


def failure_stat_of(job: Job) -> str:
    """Text that changes when something does that might mend a failure."""
    return job.failure_stat_text() if isinstance(job, ViewJob) else stat_text(job.path)


def still_failing(job: Job, stored: str) -> bool:
    """Whether nothing has changed since `stored` was made by `failure_stat_of`."""
    return stored == job.failure_stat_text() if isinstance(job, ViewJob) else still_the_same(job.path, stored)
