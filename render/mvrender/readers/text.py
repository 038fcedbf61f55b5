"""Text of mesh files: encodings, comments, and tables of numbers."""

from __future__ import annotations

import codecs
import warnings
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", np.float64, np.int64)

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins like UTF-16
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode(data: bytes) -> str:
    """Text of a file: by its byte order mark, else UTF-8, else Latin-1, which decodes any bytes.

    Keywords and numbers are the same in every encoding.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, errors="replace")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def clean_lines(text: str, keep: tuple[str, ...] = (), comments: bool = True) -> list[str]:
    """Lines with one space between words.

    Args:
        text: with any line ends. Other separators that Python knows are parts of names here.
        keep: beginnings of lines whose `#` begins no comment.
        comments: whether comments are removed.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")
    lines = text.split("\n")
    if comments and "#" in text:
        lines = [line if line.startswith(keep) else line.partition("#")[0].rstrip(" ") for line in lines]
    if "  " in text or "\n " in text or " \n" in text or text.startswith(" ") or text.endswith(" "):
        lines = [" ".join(filter(None, line.split(" "))) for line in lines]
    return lines


def numbers_of(text: str, kind: type[_Number]) -> NDArray[_Number]:
    """Numbers between spaces; fewer than there are words if one of these is no number."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # says that it stopped at such a word, as newer numpy raises
        try:
            return np.fromstring(text, kind, sep=" ")
        except ValueError:
            return np.empty(0, kind)


def table(lines: Sequence[str], at_least: int, at_most: int | None = None) -> NDArray[np.float64]:
    """(n, m) numbers of cleaned lines; the last one may be cut off.

    Args:
        lines: as `clean_lines` returns them.
        at_least: numbers that every line has.
        at_most: numbers that some lines have; NaN where another line has fewer. By default m is what every line has.

    Raises:
        ValueError: a line has fewer than `at_least` numbers, or a word that is none.
    """
    width = lines[0].count(" ") + 1
    if width >= at_least and all(line.count(" ") + 1 == width for line in lines):
        numbers = numbers_of(" ".join(lines), np.float64)
        if len(numbers) == width * len(lines):
            return numbers.reshape(-1, width)
    rows = [line.split() for line in lines]
    width = min(map(len, rows[:-1]), default=len(rows[-1]))
    if len(rows[-1]) < at_least <= width:
        rows[-1] += ["0"] * at_least  # the file ends here: no face needs this vertex
    width = min(width, len(rows[-1]))
    if width < at_least:
        short = next(row for row in rows if len(row) < at_least)
        raise ValueError(f"'{' '.join(short)}' has {len(short)} of {at_least} numbers")
    if at_most is not None:
        width = min(at_most, max(map(len, rows)))
        rows = [row + ["nan"] * (width - len(row)) for row in rows]
    return np.array([row[:width] for row in rows], np.float64)


def spans(starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The indices starts[0], ..., starts[0] + sizes[0] - 1, starts[1], ... of several spans."""
    offsets = np.cumsum(sizes) - sizes
    return np.repeat(starts - offsets, sizes) + np.arange(sizes.sum())
