"""Errors of this package, and the codes of files that cannot be rendered."""

from __future__ import annotations

from typing import Literal, get_args

from mvrender.plain_text import shortened

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
    "no_model",
    "several_models",
]
"""Codes of failed files. Scripts depend on them: codes are added, never renamed."""

FAILURE_CODES: tuple[str, ...] = get_args(FailureCode)

_LONGEST_MESSAGE = 1000


class MvrenderError(Exception):
    """Base of all errors that this package raises on purpose.

    Attributes:
        code: stable name of the problem; programs and tests depend on it, messages may change.
    """

    code: str = "error"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class MeshError(MvrenderError):
    """A file that cannot be rendered.

    Attributes:
        code: one of `FAILURE_CODES`.
        message: problem, value and next step. Values come from files: they are escaped, and a long message is cut.
    """

    def __init__(self, code: FailureCode, message: str) -> None:
        self.message = shortened(message, _LONGEST_MESSAGE)
        super().__init__(f"{code}: {self.message}", code)


class RigError(MvrenderError, ValueError):
    """A rig, style or view size that does not exist or is out of range."""

    code = "bad_rig"


class PluginError(MvrenderError):
    """A plug-in that cannot be imported or registered."""

    code = "bad_plugin"


class BackendError(MvrenderError):
    """The chosen render backend cannot run on this machine."""

    code = "no_backend"
