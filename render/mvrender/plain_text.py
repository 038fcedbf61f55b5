"""Texts that come from files, such as names: without control characters, and not longer than a message should be."""

from __future__ import annotations


def printable(text: str) -> str:
    """Escape what is not printable, such as line breaks, escape sequences of terminals and lone surrogates."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def printable_lines(text: str) -> str:
    """The same, with its line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def shortened(text: str, longest: int) -> str:
    """What is printable, of at most `longest` characters; an ellipsis marks what was cut out."""
    if len(text) > longest:
        end = longest // 4
        text = f"{text[: longest - end - 1]}…{text[-end:]}"
    shown = printable(text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"
