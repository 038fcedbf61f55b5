"""The report of `mvr index` as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mvrender.formats import FORMATS
from mvrender.plain_text import printable
from mvretrieval.console import counted
from mvretrieval.ingest.import_run import ImportReport
from mvretrieval.ingest.index_report import IndexReport

SHOWN_FAILURES = 3


def index_summary(report: IndexReport, count: int, collection: Path, folders: Sequence[Path], prune: bool) -> str:
    """Several lines: counts, labels, whitening, failures.

    Args:
        report: of the run.
        count: objects in the collection now.
        collection: its folder.
        folders: that were indexed.
        prune: whether objects of missing files were removed.
    """
    names = ("added", "replaced", "moved", "unchanged", "removed")
    lines = [
        f"{collection}: {counted(count, 'object')}",
        changes_line(report, names),
        *_empty(report, count, collection, folders),
        *passed_over_lines(report.passed_over),
        *_details(report, prune),
        *_failures(report, collection),
    ]
    return "\n  ".join(map(printable, lines))


def no_mesh_found(folders: Sequence[Path]) -> str:
    """What is said of folders without a file of a mesh format."""
    return f"no mesh found in {', '.join(map(str, folders))}; the formats are {' '.join(sorted(FORMATS))}"


def changes_line(report: IndexReport | ImportReport, names: Sequence[str]) -> str:
    """What a run changed, such as `3 added, 2 unchanged in 1.0 s`."""
    counts = [f"{getattr(report, name)} {name}" for name in names if getattr(report, name) or name == "added"]
    return f"{', '.join(counts)} in {report.seconds:.1f} s"


def failures_line(report: IndexReport | ImportReport, collection: Path) -> str:
    """How many failed, by code."""
    codes = ", ".join(f"{n} {code}" for code, n in report.failed.most_common())
    return f"{sum(report.failed.values())} failed: {codes} ('mvr info {collection} --failures' lists them)"


def passed_over_lines(counts: Mapping[str, int]) -> list[str]:
    """`5 files passed over: 3 .blend, 2 .fbx`; nothing if there are none."""
    if not counts:
        return []
    total = sum(counts.values())
    kinds = ", ".join(f"{n} {suffix}" for suffix, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return [f"{counted(total, 'file')} passed over, since their formats are not read: {kinds}"]


def _empty(report: IndexReport, count: int, collection: Path, folders: Sequence[Path]) -> Iterator[str]:
    if not report.found:
        yield no_mesh_found(folders)
    elif not count:
        yield (
            "nothing could be indexed; the collection keeps its rig, styles and encoder for the next run: to start over with "
            f"others, delete {collection}"
        )


def _details(report: IndexReport, prune: bool) -> Iterator[str]:
    if report.identical:
        yield f"{report.identical} of them identical to other files, encoded once"
    if report.labeled or report.unmatched_labels:
        unmatched = (
            f", {counted(report.unmatched_labels, 'label row')} without an object" if report.unmatched_labels else ""
        )
        yield f"labels of {counted(report.labeled, 'object')} changed{unmatched}"
    if report.unmatched_labels:
        yield f"such as '{report.unmatched_label}'; paths in the CSV are relative to the CSV"
    if missing := report.gone - report.removed:
        advice = "kept, because their folder is empty or missing" if prune else "--prune removes them"
        yield f"the files of {counted(missing, 'object')} are missing; {advice}"
    if report.whitening:
        yield f"whitening {report.whitening}"
    if report.augmented:
        yield f"database-side augmentation updated for {counted(report.augmented, 'object')}"
    if report.notes:
        path, note = report.notes[0]
        yield f"{counted(len(report.notes), 'note')}, such as: {path}: {note}"


def _failures(report: IndexReport, collection: Path) -> Iterator[str]:
    if report.failed:
        yield failures_line(report, collection)
        for path, code, message in report.failures[:SHOWN_FAILURES]:
            yield f"  {path}: {message} ({code})"
