"""How tests wait: for a condition, an event or a process, never for a time.

A limit exists only so that a test that hangs ends one day. No machine is slow enough to reach it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

PATIENCE_S = 900.0
"""Limit of every wait in the tests, in seconds."""

_Value = TypeVar("_Value")


def wait_for(condition: Callable[[], _Value], what: str = "the condition", pause_s: float = 0.01) -> _Value:
    """Wait until `condition()` is true, and return its value.

    Raises:
        AssertionError: it stayed false for `PATIENCE_S`.
    """
    end = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not come within {PATIENCE_S:g} s"
        time.sleep(pause_s)
    return value


def be_patient_over_http(httpx: Any) -> None:
    """Give requests that name no timeout `PATIENCE_S` instead of httpx's 5 s."""
    default = httpx._config.DEFAULT_TIMEOUT_CONFIG
    default.connect = default.read = default.write = default.pool = PATIENCE_S
