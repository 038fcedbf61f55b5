"""Errors that stop a script. Problems with single files are collected and reported as warnings instead."""

from __future__ import annotations


class DataError(Exception):
    """The data set cannot be prepared; the message states the next step.

    Attributes:
        code: stable name of the problem; messages may change.
    """

    code: str = "bad_data"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class CorruptMember(DataError):
    """One file of a source cannot be used; the others can."""

    code = "corrupt_file"
