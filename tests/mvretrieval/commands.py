"""Run `mvr` in this process and read its output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from mvretrieval.cli.main import main
from mvretrieval.console import JSON_SCHEMA

Mvr = Callable[..., tuple[int, str, str]]
"""Arguments -> exit code, stdout, stderr."""


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *first: str) -> Mvr:
    """Runs `mvr FIRST ARGUMENTS`."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mvr", *first, *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def as_json(found: tuple[int, str, str]) -> dict[str, Any]:
    """The object that a successful command printed, without the version of its schema."""
    code, out, err = found
    assert code == 0, err or out
    result: dict[str, Any] = json.loads(out)
    assert result.pop("schema") == JSON_SCHEMA
    return result
