"""Confidence of a query's hits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mvretrieval.confidence.calibration import QueryModality, calibration_of, is_outdated
from mvretrieval.confidence.curve import CONFIDENCE_DIGITS, Curve, cohort_size
from mvretrieval.session.session import Session
from mvretrieval.store.augmented import search_vectors


class HasConfidence(Protocol):
    """A hit, as far as this module needs it."""

    @property
    def confidence(self) -> float | None:
        """Probability that it belongs to the query's class; None without a calibration."""


_Hit = TypeVar("_Hit", bound=HasConfidence)


@dataclass(frozen=True)
class ConfidenceEstimator:
    """The curve for a query, and the query.

    Attributes:
        curve: of the query's modality.
        vector: (D,) of the query before expansion, as in calibration.
        row_id: of the query object, which is not in its own cohort; None for other queries.
        cohort_size: number of nearest objects that form the cohort.
    """

    curve: Curve
    vector: NDArray[np.float32]
    row_id: int | None
    cohort_size: int

    @property
    def needs_cohort(self) -> bool:
        """Whether the curve uses the cohort mean."""
        return self.curve.cohort_weight != 0

    def cohort_mean(self, cosines: NDArray[np.floating]) -> float:
        """The cohort mean from a search over the whole collection.

        Args:
            cosines: (n,) in falling order, without the query object's own.
        """
        return float(cosines[: self.cohort_size].mean()) if len(cosines) else 0.0

    def search_cohort_mean(self, session: Session) -> float:
        """The cohort mean by a search of its own: for a search with a filter or an expanded query."""
        if not self.needs_cohort:
            return 0.0
        cosines, row_ids = session.search_vector(self.vector, self.cohort_size + (self.row_id is not None))
        return self.cohort_mean(cosines[row_ids != self.row_id] if self.row_id is not None else cosines)

    def confidences(self, session: Session, row_ids: Sequence[int], cohort_mean: float) -> list[float]:
        """Confidences of objects, in their order, from their cosines with the query."""
        vectors = search_vectors(session.store, row_ids)[1]
        return [float(value) for value in self.curve(vectors @ self.vector, cohort_mean)]


def confidence_estimator(
    session: Session, modality: QueryModality | None, vector: NDArray[np.float32], row_id: int | None = None
) -> tuple[ConfidenceEstimator | None, str]:
    """Get the estimator for a query.

    Args:
        session: of the collection.
        modality: of the query's only term; None for a query with several terms. Those have no confidence: their score is a sum
            of z-scored cosines, and the terms are not independent.
        vector: (D,) of the query.
        row_id: of the query object, if the query is an object of the collection.

    Returns:
        The estimator and "", or None and the reason with the next step.
    """
    folder, calibration = session.folder, calibration_of(session.store)
    if calibration is None:
        return None, (
            f"{folder} is not calibrated: run 'mvr calibrate {folder} --by label' (without --by if objects have no labels)"
        )
    if is_outdated(session.store, calibration):
        return None, outdated_notice(session)
    if modality is None:
        return None, "queries with several terms have no confidence: use a single term"
    curve = calibration.curves.get(modality)
    if curve is None:
        reason = calibration.left_out.get(modality, "")
        known = ", ".join(calibration.curves) + (f" ({reason})" if reason else "")
        return None, f"{folder} is not calibrated for queries by {modality}, only by {known}"
    return ConfidenceEstimator(curve, vector, row_id, cohort_size(len(session.index.get()))), ""


def outdated_notice(session: Session) -> str:
    """Why the calibration is outdated, with the next step; empty if it is valid or missing."""
    calibration, folder = calibration_of(session.store), session.folder
    if calibration is None or not is_outdated(session.store, calibration):
        return ""
    by = "" if calibration.by is None else f" --by {calibration.by}"
    return (
        f"the vectors of {folder} changed after calibration: run 'mvr calibrate {folder}{by}' again, or remove the "
        f"calibration with 'mvr calibrate {folder} --remove'"
    )


def filter_by_confidence(hits: Iterable[_Hit], min_confidence: float) -> list[_Hit]:
    """Keep hits with at least this confidence, in their order."""
    return [
        hit for hit in hits if hit.confidence is not None and round(hit.confidence, CONFIDENCE_DIGITS) >= min_confidence
    ]


def no_match_message(hits: Iterable[HasConfidence], where: str | None = None) -> str:
    """Message for a search whose hits were all below the minimum confidence.

    Args:
        hits: before filtering.
        where: filter of the search.
    """
    best = max((hit.confidence for hit in hits if hit.confidence is not None), default=None)
    objects = f"no object where {where}" if where else "no object in the collection"
    return f"{objects} matches the query" + ("" if best is None else f" (highest confidence: {best:.0%})")
