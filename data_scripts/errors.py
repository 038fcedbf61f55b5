"""What stops a script. Problems of single members are collected instead, and told at the end."""

from __future__ import annotations


class DataError(Exception):
    """The data set cannot be laid out; the message says what to do next."""


class CorruptMember(DataError):
    """One file of an archive cannot be used; the others can."""
