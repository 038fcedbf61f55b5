"""Links between pages, to headings and to files of the repository resolve."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from doc_pages import PAGES, ROOT, name_of, prose

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_GENERATED = {"docs/commands.md", "docs/api.md"}


def _slugs(page: Path) -> set[str]:
    """Anchors of the headings, as MkDocs and GitHub write them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = [re.sub(r"[`*]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)) for heading in headings]
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    broken = []
    for target in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            broken.append(target)
        elif anchor and name_of(file) not in _GENERATED and anchor not in _slugs(file):
            broken.append(target)
    assert not broken


def test_the_navigation_names_every_page() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def pages(nav: list[object]) -> list[str]:
        found: list[str] = []
        for entry in nav:
            value = next(iter(entry.values())) if isinstance(entry, dict) else entry
            found += pages(value) if isinstance(value, list) else [str(value)]
        return found

    named = pages(config["nav"])
    assert len(named) == len(set(named))
    assert set(named) == {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
