"""What can go wrong with one file, as a stable code and a sentence."""

from __future__ import annotations

from typing import Literal, get_args

FailureCode = Literal[
    "missing_file",
    "no_permission",
    "not_a_file",
    "bad_name",
    "unknown_format",
    "unreadable",
    "empty_file",
    "no_faces",
    "degenerate",
    "not_finite",
    "bad_indices",
    "too_large",
    "out_of_memory",
    "timeout",
    "renderer_crash",
    "nothing_visible",
    "needs_extra",
    "unsupported_extension",
    "outside_reference",
    "missing_reference",
    "bad_label",
]
"""Codes that a failure row may carry. Scripts depend on them: a code is added, never renamed."""

FAILURE_CODES: tuple[str, ...] = get_args(FailureCode)


class MvrenderError(Exception):
    """Base of every error that this package raises on purpose."""


class MeshError(MvrenderError):
    """One file cannot become views.

    Attributes:
        code: one of `FAILURE_CODES`.
        message: what was wrong, the value, and the next step.
    """

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code: FailureCode = code
        self.message = message


class RigError(MvrenderError, ValueError):
    """A rig, style or picture size that does not exist or is out of range."""


class BackendError(MvrenderError):
    """The renderer that was asked for cannot run on this machine."""
