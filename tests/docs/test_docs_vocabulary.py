"""Words that earlier versions used in a private sense occur in no tracked file."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from doc_pages import ROOT

_WORDS = ("question", "questions", "asked", "asking", "learnt", "rival", "rivals", "anew", "how sure", "nobody")
# Letters alone bound a word, so that parts of identifiers count: asked_with, AskedPairs.
_PATTERN = re.compile(rf"(?<![a-z])(?:{'|'.join(word.replace(' ', '[ _-]') for word in _WORDS)})(?![a-z])")
# Path or folder -> why the words stay.
_EXCEPTIONS = {
    "CHANGELOG.md": "its tables list the old names",
    "tests/docs/test_docs_vocabulary.py": "lists the words",
    "tests/fixtures/v1/": "written by version 0.1",
}
_SCOPE = (
    *("README.md", "CONTRIBUTING.md", "CITATION.cff", "SECURITY.md", "Makefile", "mkdocs.yml", "pyproject.toml"),
    *("docs/", "examples/", "tests/docs/", ".github/", ".pre-commit-config.yaml"),
)


def _tracked() -> list[str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def occurrences(text: str) -> list[tuple[int, str]]:
    """(line, word) of each private word in a text."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", line).lower()
        found += [(number, match[0]) for match in _PATTERN.finditer(split)]
    return found


def test_private_words_do_not_occur() -> None:
    found = []
    for name in _tracked():
        if any(name.startswith(path) for path in _EXCEPTIONS):
            continue
        if not name.startswith(_SCOPE):
            continue
        found += [f"{name}:0: {word}" for _, word in occurrences(name)]
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:  # images and weights
            continue
        found += [f"{name}:{number}: {word}" for number, word in occurrences(text)]
    assert not found, "\n".join(found)


def test_the_pattern_finds_parts_of_identifiers() -> None:
    assert occurrences("asked_with = HowSure; ASKING") == [(1, "asked"), (1, "how_sure"), (1, "asking")]
    assert occurrences("arrival, canvas, renewed, unasked") == []


@pytest.mark.parametrize("path", _EXCEPTIONS)
def test_exceptions_are_needed(path: str) -> None:
    names = [name for name in _tracked() if name.startswith(path)]
    texts = (name + "\n" + (ROOT / name).read_bytes().decode(errors="replace") for name in names)
    assert any(occurrences(text) for text in texts)
