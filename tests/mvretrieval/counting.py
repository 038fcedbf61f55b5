"""Counts of indexing runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mvretrieval.api import Collection
from mvretrieval.ingest.index_report import IndexReport


def counts(report: IndexReport) -> dict[str, int]:
    """The counts that are not zero."""
    names = ("added", "replaced", "unchanged", "identical", "moved", "gone", "removed")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def encoded(collection: Collection, run: Callable[[], IndexReport]) -> tuple[IndexReport, int]:
    """The report of `run`, and the number of images it encoded."""
    encoder = collection.describer.encoder
    count = 0
    real = encoder.encode_views

    def counting(images: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
        nonlocal count
        count += len(images)
        return real(images, groups)

    encoder.encode_views = counting  # type: ignore[method-assign]
    try:
        return run(), count
    finally:
        encoder.encode_views = real  # type: ignore[method-assign]
