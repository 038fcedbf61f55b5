"""MkDocs hooks: the command reference, pages that live at the root of the repository, and links to its files."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = "https://github.com/mvretrieval/mvretrieval/blob/main/"
# Pages of the site whose text is a file at the root, where GitHub looks for it.
_ROOT_PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
_COMMANDS_MARK = "<!-- commands -->"
_LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?(?=\))")

sys.path.insert(0, str(ROOT / "docs"))
from command_reference import command_reference  # noqa: E402 - MkDocs takes the folder off the path afterwards


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill in what is generated, and point links to files outside docs/ at the repository."""
    name = page.file.src_uri
    if name in _ROOT_PAGES:
        markdown = _from_root((ROOT / _ROOT_PAGES[name]).read_text(encoding="utf-8"))
    if _COMMANDS_MARK in markdown:
        markdown = markdown.replace(_COMMANDS_MARK, command_reference())
    return _outside(markdown, (ROOT / "docs" / name).parent)


def _from_root(markdown: str) -> str:
    """Text of a file at the root, with its links written as in docs/."""

    def target(match: re.Match[str]) -> str:
        path, anchor = match[1], match[2] or ""
        return path.removeprefix("docs/") + anchor if path.startswith("docs/") else f"../{path}{anchor}"

    return _LINK.sub(target, markdown)


def _outside(markdown: str, folder: Path) -> str:
    def target(match: re.Match[str]) -> str:
        path, anchor = match[1], match[2] or ""
        file = (folder / path).resolve()
        if file.is_relative_to(ROOT / "docs") or not file.is_relative_to(ROOT):
            return match[0]
        return f"{REPOSITORY}{file.relative_to(ROOT).as_posix()}{anchor}"

    return _LINK.sub(target, markdown)
