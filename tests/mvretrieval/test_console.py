"""Verbosity, notices, progress and tables."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest

from mvretrieval import console
from mvretrieval.console import Verbosity, counted, progress, say, say_error, set_verbosity, table


@pytest.fixture(autouse=True)
def normal() -> Iterator[None]:
    yield
    set_verbosity(Verbosity.NORMAL)


@pytest.mark.parametrize(
    ("verbosity", "expected"),
    [
        (Verbosity.QUIET, ["failed", "error"]),
        (Verbosity.NORMAL, ["notice", "failed", "warning", "error"]),
        (Verbosity.VERBOSE, ["notice", "failed", "debug", "warning", "error"]),
    ],
)
def test_verbosity(capsys: pytest.CaptureFixture[str], verbosity: Verbosity, expected: list[str]) -> None:
    set_verbosity(verbosity)
    set_verbosity(verbosity)
    say("notice")
    say_error("failed")
    logger = logging.getLogger("mvretrieval.anything")
    for level in ("debug", "warning", "error"):
        getattr(logger, level)(level)
    out, err = capsys.readouterr()
    assert out == "" and [line.rpartition(" ")[2] for line in err.splitlines()] == expected


def test_progress_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    lines = console._ProgressLines("mesh", lambda: now)
    for done in range(1, 1001):
        now += 0.5
        lines(done, 1000)
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 10 and "\r" not in "".join(printed)
    assert printed[0] == "mesh 100 of 1000 (10%), 2/s, 8 min left" and printed[-1] == "mesh 1000 of 1000 (100%), 2/s"


def test_the_time_left_does_not_count_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    lines = console._ProgressLines("mesh", lambda: now)
    now = 30.0
    for done in range(1, 11):
        lines(done, 100)
        now += 0.5
    assert capsys.readouterr().err.splitlines() == ["mesh 10 of 100 (10%), 2/s, 45 s left"]


@pytest.mark.parametrize(("seconds", "total", "expected"), [(0.01, 100, 0), (2.0, 30, 6), (90.0, 1000, 1000)])
def test_progress_lines_of_quick_and_slow_work(
    capsys: pytest.CaptureFixture[str], seconds: float, total: int, expected: int
) -> None:
    now = 0.0
    lines = console._ProgressLines("mesh", lambda: now)
    for done in range(1, total + 1):
        now += seconds
        lines(done, total)
    assert len(capsys.readouterr().err.splitlines()) == expected


def test_progress_without_a_terminal_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("mesh") as step:
        assert isinstance(step, console._ProgressLines)
    set_verbosity(Verbosity.QUIET)
    with progress("mesh") as step:
        step(1, 2)
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress("mesh") as step:
        step(1, 2)
        step(2, 2)
    assert "2/2" in capsys.readouterr().err


def test_counted() -> None:
    assert [counted(n, noun) for n, noun in ((1, "class"), (2, "class"), (2, "query"), (0, "object"))] == [
        "1 class",
        "2 classes",
        "2 queries",
        "0 objects",
    ]


def test_tables_escape_control_characters() -> None:
    assert table([["a\x1b[31m", "b"]], ["head", "x"]) == "head       x\na\\x1b[31m  b"
