"""How sure the hits of one question are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvretrieval.confidence.calibration import ASKING, calibration_of, is_outdated
from mvretrieval.confidence.curve import Curve, cohort_size
from mvretrieval.errors import QueryError
from mvretrieval.store.augmented import search_vectors

if TYPE_CHECKING:
    from mvretrieval.search.encode import EncodedTerm
    from mvretrieval.search.hits import Hit
    from mvretrieval.session.session import Session


@dataclass(frozen=True)
class ConfidenceEstimator:
    """The curve of a question and what it is compared with.

    Attributes:
        curve: of its kind.
        source: the question, as it was asked: not expanded, since that is what the curve was fitted on.
        reach: so many nearest objects make its height.
    """

    curve: Curve
    source: EncodedTerm
    reach: int

    def height(self, cosines: NDArray[np.floating]) -> float:
        """Height of the question, of falling cosines with the nearest objects of the whole session, itself left out."""
        return float(cosines[: self.reach].mean()) if len(cosines) else 0.0

    def ask_height(self, session: Session) -> float:
        """The same where what was searched was something else: a filter's objects, or the expanded question's."""
        if self.curve.share == 0:
            return 0.0
        cosines, row_ids = session.search_vector(self.source.vector, self.reach + (self.source.row_id is not None))
        return self.height(cosines[row_ids != self.source.row_id] if self.source.row_id is not None else cosines)

    def confidences(self, session: Session, row_ids: Sequence[int], height: float) -> list[float]:
        """Of hits, in their order, by their plain cosines with the question."""
        vectors = search_vectors(session.store, row_ids)[1]
        return [float(value) for value in self.curve(vectors @ self.source.vector, height)]


def confidence_estimator(session: Session, sources: Sequence[EncodedTerm]) -> tuple[ConfidenceEstimator | None, str]:
    """The judge of a question's hits; or None, and why with the next step.

    A mixture's hits carry no confidence: its score is a sum of standardised cosines, and what its parts say is neither
    independent nor, of a minus term, calibrated by anything.
    """
    folder = session.folder
    calibration = calibration_of(session.store)
    if calibration is None:
        return (
            None,
            f"{folder} is not calibrated: run 'mvr calibrate {folder} --by label' (without --by where nothing is labelled)",
        )
    if is_outdated(session.store, calibration):
        return None, outdated_notice(session)
    if len(sources) > 1:
        return None, "a mixture's hits carry none: ask with one source alone"
    asking = ASKING[sources[0].term.kind]
    curve = calibration.curves.get(asking)
    if curve is None:
        reason = calibration.left_out.get(asking, "")
        known = ", ".join(calibration.curves) + (f" ({reason})" if reason else "")
        return None, f"{folder} is not calibrated for questions asked with {asking}, only with {known}"
    return ConfidenceEstimator(curve, sources[0], cohort_size(len(session.index.get()))), ""


def outdated_notice(session: Session) -> str:
    """Why a calibration counts no longer, with the next step; empty where it does, or where there is none."""
    calibration, folder = calibration_of(session.store), session.folder
    if calibration is None or not is_outdated(session.store, calibration):
        return ""
    by = "" if calibration.by is None else f" --by {calibration.by}"
    return (
        f"{folder} was described anew after it was calibrated: run 'mvr calibrate {folder}{by}' again, or with --remove"
    )


def check_threshold(min_confidence: float | None) -> None:
    """Refuse what is no probability.

    Raises:
        QueryError: with the value.
    """
    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise QueryError(f"the least confidence is between 0 and 1, not {min_confidence:g}")


def filter_by_confidence(hits: Sequence[Hit], min_confidence: float) -> list[Hit]:
    """The hits that are at least so sure, in their order."""
    return [hit for hit in hits if hit.confidence is not None and hit.confidence >= min_confidence]


def no_match_message(hits: Sequence[Hit], where: str | None = None) -> str:
    """What an empty answer says, of the hits that were not sure enough."""
    best = max((hit.confidence for hit in hits if hit.confidence is not None), default=None)
    kept = f" where {where}" if where else ""
    return f"nothing in the collection{kept} looks like it" + (
        "" if best is None else f" (the best is {best:.0%} sure)"
    )
