"""Errors that a user can mend. Each message says what was wrong, the value, and the next step."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MvrError(Exception):
    """Base of every error that this package raises on purpose."""


class EncoderError(MvrError):
    """An encoder id that is not understood, or an encoder that cannot do what was asked (words without a text tower)."""


class NoWordsError(EncoderError):
    """Words for an encoder that reads none, or for an adapter that knows others."""


class WeightsError(EncoderError):
    """An encoder's weights cannot be had."""


class ShapeError(MvrError, ValueError):
    """Arrays whose shapes disagree."""


class DescriberError(MvrError):
    """A describer that is not consistent, or not the one a collection was built with."""


class AdapterError(MvrError):
    """An adapter that is missing, damaged, or made for other views than these."""


class TrainingError(MvrError, ValueError):
    """Options or labels that nothing can be learnt from."""


class CollectionError(MvrError):
    """A collection that is missing, damaged, of another version or in use."""


class UnknownObjectError(CollectionError):
    """An id that no object of the collection has."""


class ServiceError(MvrError):
    """A service that cannot be started or reached, or that refuses."""


class FilterError(MvrError, ValueError):
    """A `--where` expression that cannot be understood."""


class QueryError(MvrError, ValueError):
    """A question without a question in it, or with parts that cannot be read."""


class LabelsError(MvrError, ValueError):
    """A labels CSV that cannot be used."""


class ViewsError(MvrError, ValueError):
    """A CSV of views that cannot be used, or views that a collection has no place for."""


class CalibrationError(MvrError, ValueError):
    """Objects or labels that no confidence can be learnt from."""


class EvaluationError(MvrError, ValueError):
    """Queries, runs or scores that cannot be evaluated."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'? ` where a known name is near, else nothing."""
    near = get_close_matches(name, list(known), n=1)
    return f"did you mean '{near[0]}'? " if near else ""
