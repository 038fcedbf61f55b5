"""The Markdown pages of the repository, taken apart for tests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "data_scripts").glob("*.md"),
        *(ROOT / "examples").glob("*.md"),
    ]
)
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
        page: relative to the root.
        language: behind the fence; empty for shell commands and output.
        text: its lines.
    """

    page: str
    language: str
    text: str


def name_of(page: Path) -> str:
    """Path of a page, relative to the root."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page."""
    return [Block(name_of(page), match[1], match[2]) for match in _FENCE.finditer(page.read_text(encoding="utf-8"))]


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))
