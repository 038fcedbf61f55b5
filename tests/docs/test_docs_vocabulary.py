"""Words that earlier versions used in a private sense occur in no tracked file."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from doc_pages import ROOT

_WORDS = ("question", "questions", "asked", "asking", "learnt", "rival", "rivals", "anew", "how sure", "nobody")
# Only letters bound a word, so that parts of identifiers count: asked_with, AskedPairs.
_PATTERN = re.compile(rf"(?<![a-z])(?:{'|'.join(word.replace(' ', '[ _-]') for word in _WORDS)})(?![a-z])")
_ALL = frozenset(_WORDS)
# Path or folder -> words that stay, and why.
_EXCEPTIONS: dict[str, tuple[frozenset[str], str]] = {
    "CHANGELOG.md": (_ALL, "its tables list the old names"),
    "tests/docs/test_docs_vocabulary.py": (_ALL, "lists the words"),
    "tests/fixtures/v1/": (_ALL, "written by version 0.1"),
    "tests/mvretrieval/test_fixtures_v1.py": (frozenset({"questions", "learnt"}), "keys of JSON output of version 0.1"),
    "mvretrieval/confidence/curve.py": (frozenset({"questions"}), "a key of calibrations of version 0.1"),
    "tests/mvretrieval/test_curve.py": (frozenset({"questions"}), "a key of calibrations of version 0.1"),
}


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
        found += [(number, re.sub("[_-]", " ", match[0])) for match in _PATTERN.finditer(split)]
    return found


def in_file(name: str) -> list[tuple[int, str]]:
    """The same for the path of a file (line 0) and its text."""
    try:
        text = (ROOT / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:  # images and weights
        text = ""
    return [(0, word) for _, word in occurrences(name)] + occurrences(text)


def _allowed(name: str) -> frozenset[str]:
    return frozenset().union(*(words for path, (words, _) in _EXCEPTIONS.items() if name.startswith(path)))


def test_private_words_do_not_occur() -> None:
    found = [
        f"{name}:{number}: {word}"
        for name in _tracked()
        for number, word in in_file(name)
        if word not in _allowed(name)
    ]  # fmt: skip
    assert not found, "\n".join(found)


def test_the_pattern_finds_parts_of_identifiers() -> None:
    assert occurrences("asked_with = HowSure; ASKING") == [(1, "asked"), (1, "how sure"), (1, "asking")]
    assert occurrences("arrival, canvas, renewed, unasked") == []


@pytest.mark.parametrize("path", _EXCEPTIONS)
def test_exceptions_are_needed(path: str) -> None:
    found = {word for name in _tracked() if name.startswith(path) for _, word in in_file(name)}
    words = _EXCEPTIONS[path][0]
    assert found if words == _ALL else words <= found
