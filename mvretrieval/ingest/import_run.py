"""One import of vectors: from a table to stored objects, in batches. A vector that cannot be used never stops it."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvretrieval.ingest.imported_objects import FORMAT, path_of
from mvretrieval.ingest.vector_table import VectorBatch, VectorTable
from mvretrieval.session.session import Session
from mvretrieval.store.records import NewObject

_MAX_ROWS = 1024  # of a transaction; what a kill loses at most
_MAX_NUMBERS = 1 << 22  # of a transaction: 32 MB

Progress = Callable[[int, int], None]


@dataclass
class ImportReport:
    """Counts and failures of an import.

    Attributes:
        found: vectors in the file.
        added: new objects.
        replaced: objects whose vector changed.
        unchanged: objects whose vector is the same.
        failed: number of failures by code.
        failures: (id, code, message).
        labeled: objects whose labels changed.
        ignored: (column, reason) of the columns that cannot be labels.
        augmented: objects whose augmented vector changed with their neighbours.
        seconds: wall time.
    """

    found: int = 0
    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    labeled: int = 0
    ignored: list[tuple[str, str]] = field(default_factory=list)
    augmented: int = 0
    seconds: float = 0.0


def import_table(session: Session, table: VectorTable, progress: Progress | None = None) -> ImportReport:
    """Import a table into a collection that it fits (see `import_vectors`)."""
    session.lock_for_writing()
    started = time.monotonic()
    run = _Run(session, table)
    done, total = 0, len(table.ids)
    for batch in table.batches(max(1, min(_MAX_ROWS, _MAX_NUMBERS // table.dim))):
        run.take(batch)
        done += len(batch.ids)
        if progress is not None:
            progress(done, total)
    report = run.finish()
    report.seconds = time.monotonic() - started
    return report


class _Run:
    """One import. Each batch is one transaction."""

    def __init__(self, session: Session, table: VectorTable) -> None:
        self.session = session
        self.store = session.store
        self.report = ImportReport(found=len(table.ids), ignored=list(table.ignored))
        # As the failures of a view manifest: a later run over a folder of meshes leaves them alone.
        self._failure_stat = json.dumps([table.source])
        self._earlier_failures = {path for path, _, _ in self.store.failures()}
        self._of_source = set(self.store.failed_paths_by_stat(self._failure_stat))

    def take(self, batch: VectorBatch) -> None:
        """Write one batch."""
        vectors, problems = unit_rows(batch.vectors, batch.missing)
        hashes = [hashlib.sha256(b"vector" + vector.astype("<f4").tobytes()).hexdigest() for vector in vectors]
        paths = [path_of(object_id) for object_id in batch.ids]
        stored = [self.store.by_path(path) for path in paths]
        changed = [
            row
            for row, known in enumerate(stored)
            if row not in problems and (known is None or known[1] != hashes[row])
        ]
        new = self._new_objects(batch.ids, vectors, hashes, changed)
        with self.store.transaction():
            if new:
                sequence = self.store.next_sequence()
            for row, (path, known) in enumerate(zip(paths, stored, strict=True)):
                if row in problems:
                    self._fail(batch.ids[row], path, *problems[row], is_stored=known is not None)
                    continue
                row_id = self.store.put(new[row], sequence) if row in new else known[0] if known else 0
                labels = {name: values[row] for name, values in batch.labels.items()}
                self.report.labeled += self.store.set_metadata(row_id, labels)
                if path in self._earlier_failures:
                    self.store.drop_failures([path])
        self.report.added += sum(stored[row] is None for row in changed)
        self.report.replaced += sum(stored[row] is not None for row in changed)
        self.report.unchanged += len(paths) - len(problems) - len(changed)

    def _new_objects(
        self, ids: Sequence[str], vectors: NDArray[np.float32], hashes: Sequence[str], rows: Sequence[int]
    ) -> dict[int, NewObject]:
        """Objects to be stored, by row. Not inside a transaction: the index may have to be updated from the store."""
        if not rows:
            return {}
        describer = self.session.describer
        raw = vectors[rows].astype(np.float16)[:, None, None]
        # Without whitening and adapter the vectors are kept as they are, instead of rounded like the views.
        pooled = vectors[rows]
        if describer.whitening is not None or describer.adapter is not None:
            pooled, _ = describer.pool(raw.astype(np.float32), np.ones((len(rows), 1), bool))
        augmented = self.session.augmenter.of_new(pooled, [path_of(ids[row]) for row in rows])
        return {
            row: NewObject(
                id=ids[row],
                path=path_of(ids[row]),
                content_hash=hashes[row],
                stat="",
                facts={"format": FORMAT},
                notes=(),
                vector=pooled[i],
                view_vectors=raw[i],
                view_mask=np.ones(1, bool),
                augmented=augmented[i],
            )
            for i, row in enumerate(rows)
        }

    def _fail(self, object_id: str, path: str, code: str, message: str, is_stored: bool) -> None:
        message = f"object '{object_id}': {message}"
        self.store.put_failure(path, code, message, self._failure_stat)
        self._of_source.discard(path)
        self.report.failed[code] += 1
        self.report.failures.append((object_id, code, message + ("; it keeps its earlier vector" if is_stored else "")))

    def finish(self) -> ImportReport:
        """Failures of earlier runs that are no longer in the file, augmentation, index."""
        with self.store.transaction():
            self.store.drop_failures(self._of_source)
        self.report.augmented = self.session.augmenter.refresh()
        self.session.save_index()
        return self.report


def unit_rows(
    vectors: NDArray[Any], missing: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], dict[int, tuple[str, str]]]:
    """Scale vectors to unit norm.

    Args:
        vectors: (n, D) real numbers of any type.
        missing: (n,) True where there is no vector.

    Returns:
        (n, D) float32, zero where that is impossible; and code and message by row of those.
    """
    wide = np.array(vectors, np.float64)
    finite = np.asarray(np.isfinite(wide).all(axis=1))
    wide[missing] = 0
    wide[~finite] = 0
    largest = np.abs(wide).max(axis=1, keepdims=True)
    wide /= np.where(largest > 0, largest, 1)  # the squares of large and small numbers overflow
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    units = (wide / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    problems: dict[int, tuple[str, str]] = {}
    for row in np.flatnonzero(lengths.ravel() == 0).tolist():
        if missing[row]:
            problems[row] = ("no_vector", "it has no vector: compute it, or remove the row")
        elif not finite[row]:
            problems[row] = ("not_finite", "its vector contains NaN or infinite numbers: compute it again")
        else:
            problems[row] = ("zero_vector", "its vector is zero and has no direction: compute it again")
    return units, problems
