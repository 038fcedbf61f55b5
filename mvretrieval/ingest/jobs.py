"""One object to be indexed: where it comes from, and whether it changed since it was stored."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from mvrender.jobs import Opened, RenderJob
from mvretrieval.ingest.scan import is_unchanged, stat_text


@dataclass(frozen=True)
class IngestJob(RenderJob):
    """A job of a render pool or of the view image reader that can be compared with the store."""

    @property
    @abstractmethod
    def object_id(self) -> str:
        """Id of the object if it is new."""

    @property
    def root_folder(self) -> str:
        """Folder that references of the file may not leave."""
        return str(self.root or self.path.parent)

    @abstractmethod
    def stat(self, references: Iterable[str] = ()) -> str:
        """Text that changes when a file of the object does; `references` are files that the main file names."""

    @abstractmethod
    def is_unchanged(self, stored: str) -> bool:
        """Whether the files still are as they were when `stored` was returned by `stat`."""

    @abstractmethod
    def failure_stat(self) -> str:
        """Text that changes when something changes that could fix a failure."""

    @abstractmethod
    def still_fails(self, stored: str) -> bool:
        """Whether nothing changed since `stored` was returned by `failure_stat`."""

    def failure_message(self, message: str) -> str:
        """The message of a failure, with the id where the path does not show it."""
        return message


@dataclass(frozen=True)
class MeshJob(IngestJob):
    """A mesh file."""

    @property
    def object_id(self) -> str:
        """The path relative to the indexed folder."""
        root = self.root or self.path.parent
        return self.path.relative_to(root).as_posix() if self.path.is_relative_to(root) else self.path.name

    def stat(self, references: Iterable[str] = ()) -> str:
        """See `IngestJob.stat`."""
        return stat_text(self.path, references)

    def is_unchanged(self, stored: str) -> bool:
        """See `IngestJob.is_unchanged`."""
        return is_unchanged(self.path, stored)

    def failure_stat(self) -> str:
        """See `IngestJob.failure_stat`."""
        return stat_text(self.path)

    def still_fails(self, stored: str) -> bool:
        """See `IngestJob.still_fails`."""
        return is_unchanged(self.path, stored)


def job_of(opened: Opened) -> IngestJob:
    """The job of an opened file; pools and readers return the jobs that they were given."""
    assert isinstance(opened.job, IngestJob)
    return opened.job
