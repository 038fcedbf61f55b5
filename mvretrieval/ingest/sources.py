"""What a collection is filled from: folders of meshes, or a manifest of view images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from mvrender.jobs import Failed, Opened, Rendered
from mvrender.mesh import Limits
from mvretrieval.ingest.jobs import IngestJob, MeshJob
from mvretrieval.ingest.scan import absolute, find_meshes, is_gone
from mvretrieval.session.session import Session

Problem = tuple[str, str]
"""Code and message of a file that cannot be indexed."""


class Source(Protocol):
    """Finds objects and renders or reads their views.

    Attributes:
        passed_over: number of files of each suffix that `find` has passed over, since no reader reads them.
    """

    passed_over: Counter[str]

    def find(self) -> Iterator[tuple[IngestJob, Problem | None]]:
        """Every object, with the reason why it cannot be indexed, or None."""
        ...

    def run(self, jobs: Iterable[IngestJob], needs_views: Callable[[Opened], bool]) -> Iterator[Rendered | Failed]:
        """Render or read objects; `needs_views` decides for each opened file whether its views are needed."""
        ...

    def rebind_paths(self) -> set[str]:
        """Before a run: give objects that are known by their ids their new paths, and return these."""
        ...

    def earlier_failures(self) -> list[str]:
        """Paths that failed in earlier runs over the same source."""
        ...

    def missing(self) -> tuple[set[str], set[str]]:
        """Ids of objects whose files are gone, and of those among them that may be removed."""
        ...


class MeshFolders:
    """`Source` of the meshes in folders."""

    def __init__(self, session: Session, folders: list[Path], limits: Limits | None) -> None:
        """Start the render workers.

        Args:
            session: open for writing.
            folders: folders or single files.
            limits: for one file; those of the session's options by default.

        Raises:
            DescriberError: the collection's rig is unknown, so that no mesh can be rendered for it.
        """
        self._store = session.store
        self._folders = folders
        self.passed_over: Counter[str] = Counter()
        self._pool = session.render_pool(limits)

    def find(self) -> Iterator[tuple[IngestJob, Problem | None]]:
        """See `Source`."""
        self.passed_over = Counter()
        for found in find_meshes(self._folders, self.passed_over):
            yield MeshJob(found.path, found.root), found.problem

    def run(self, jobs: Iterable[IngestJob], needs_views: Callable[[Opened], bool]) -> Iterator[Rendered | Failed]:
        """See `Source`."""
        return self._pool.run(jobs, needs_views)

    def rebind_paths(self) -> set[str]:
        """See `Source`: a mesh that moved is recognised by its content instead."""
        return set()

    def earlier_failures(self) -> list[str]:
        """See `Source`."""
        return [path for folder in self._absolute() for path in self._store.failed_paths_under(str(folder))]

    def missing(self) -> tuple[set[str], set[str]]:
        """See `Source`."""
        gone: set[str] = set()
        removable: set[str] = set()
        for folder in self._absolute():
            here = {object_id for object_id, path in self._store.paths_under(str(folder)) if is_gone(path)}
            gone |= here
            # An unmounted disk must not remove its objects, whether its folder is gone or merely empty.
            if here and next(find_meshes([folder]), None) is not None and not is_gone(folder):
                removable |= here
        return gone, removable

    def _absolute(self) -> set[Path]:
        return {absolute(folder) for folder in self._folders}
