"""Errors of this package. Each has a stable code, and a message that names the problem, the value and the next step."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MvrError(Exception):
    """Base of all errors that this package raises on purpose.

    Attributes:
        code: stable name of the problem, in snake_case; programs and tests depend on it, messages may change. A class has a
            general code, a `raise` may give a more specific one.
    """

    code: str = "error"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class EncoderError(MvrError):
    """An encoder id that cannot be parsed, or an encoder that lacks what is needed."""

    code = "bad_encoder"


class NoTextError(EncoderError):
    """A text query for an encoder without a text tower, or a name that the adapter does not know."""

    code = "no_text_tower"


class WeightsError(EncoderError):
    """The weights of an encoder cannot be loaded."""

    code = "no_weights"


class ShapeError(MvrError, ValueError):
    """Arrays whose shapes disagree."""

    code = "bad_shape"


class DescriberError(MvrError):
    """An inconsistent describer, or one that differs from the collection's."""

    code = "bad_describer"


class AdapterError(MvrError):
    """An adapter that is missing, damaged, or trained on other views."""

    code = "bad_adapter"


class TrainingError(MvrError, ValueError):
    """Options or labels that training cannot use."""

    code = "bad_training"


class CollectionError(MvrError):
    """A collection that is missing, damaged, of another version or in use."""

    code = "bad_collection"


class UnknownObjectError(CollectionError):
    """An id that no object of the collection has."""

    code = "no_such_object"


class ServiceError(MvrError):
    """A service that cannot be started or reached, or that refused the request."""

    code = "service_error"


class FilterError(MvrError, ValueError):
    """A `--where` expression that cannot be parsed."""

    code = "bad_filter"


class QueryError(MvrError, ValueError):
    """An empty query, or a query with a term that cannot be read."""

    code = "bad_query"


class LabelsError(MvrError, ValueError):
    """Labels that cannot be read or stored."""

    code = "bad_labels"


class ViewsError(MvrError, ValueError):
    """A view manifest that cannot be used, or views that do not fit the collection."""

    code = "bad_views"


class VectorsError(MvrError, ValueError):
    """Vectors to import, or their ids, that cannot be read or used."""

    code = "bad_vectors"


class CalibrationError(MvrError, ValueError):
    """Objects or labels that no confidence calibration can be fitted on."""

    code = "bad_calibration"


class EvaluationError(MvrError, ValueError):
    """Queries, runs or scores that cannot be evaluated."""

    code = "bad_evaluation"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'? ` where a known name is near, else nothing."""
    near = get_close_matches(name, list(known), n=1)
    return f"did you mean '{near[0]}'? " if near else ""
