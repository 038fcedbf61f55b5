"""Errors of a service as exceptions."""

from __future__ import annotations

import httpx

import mvretrieval.errors
from mvrender.errors import FAILURE_CODES, MeshError
from mvretrieval.errors import MvrError, ServiceError


def error_of(response: httpx.Response) -> Exception:
    """The error that a response describes: of the same class and code as in the service."""
    try:
        problem = response.json()
        code, message, name = str(problem["code"]), str(problem["message"]), problem.get("error")
    except (ValueError, KeyError, TypeError, AttributeError):  # not from the service, but from a proxy before it
        text = response.text[:200] or response.reason_phrase
        return ServiceError(f"{text} (status {response.status_code})", code="unexpected_response")
    if code == "bad_token":
        message += ". In Python: Client(url, token=...)"
    kind = getattr(mvretrieval.errors, str(name), None)
    if isinstance(kind, type) and issubclass(kind, MvrError):
        return kind(message, code=code)
    if name == MeshError.__name__ and code in FAILURE_CODES:
        return MeshError(code, message)  # type: ignore[arg-type]
    return ServiceError(message, code=code)
