"""Expect an error by its class and its stable code, not by its prose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def raises_code(
    expected: type[BaseException], code: str, *contains: str
) -> Iterator[pytest.ExceptionInfo[BaseException]]:
    """Like `pytest.raises`, for errors with a `code`.

    Args:
        expected: class of the error.
        code: its code.
        contains: values that the message must name.
    """
    with pytest.raises(expected) as caught:
        yield caught
    assert getattr(caught.value, "code", None) == code, f"{caught.value!r} has code {caught.value.code!r}"  # type: ignore[attr-defined]
    for text in contains:
        assert text in str(caught.value), f"{text!r} is not in: {caught.value}"
