"""Errors of the REST API as JSON: a stable code, a message, and never a stack trace."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from mvrender.errors import MeshError, MvrenderError
from mvretrieval.errors import MvrError
from mvretrieval.service.codes import SERVICE_CODES, status_of

Responses = dict[int | str, dict[str, Any]]
"""Responses of a route other than success, for the API description."""

_DESCRIPTIONS = {
    400: "the body cannot be parsed",
    401: "the token is missing or wrong",
    403: "the service accepts no changes, or the request comes from another website",
    404: "no such object, image, job or folder",
    408: "the body of the request arrives too slowly",
    409: "a folder is being indexed, or the id is taken",
    413: "too many bytes, files, faces or pixels, or a mesh that takes too long",
    415: "not a mesh or an image of a supported format",
    422: "an invalid parameter, query or filter, or a file that cannot be used",
    429: "too many requests are waiting",
    503: "busy, not ready, or the collection cannot be read or written",
}
_RETRY_SECONDS = "5"
_STORAGE_RETRY_SECONDS = "60"
_log = logging.getLogger("mvretrieval.service")


class Problem(BaseModel):
    """Why a request failed."""

    code: str = Field(description="stable code; see the table in the description of this API")
    message: str = Field(description="what is wrong, the value, and the next step")
    error: str | None = Field(
        None, description="class of the same error in Python (mvretrieval.errors or mvrender.errors), if there is one"
    )


class ProblemError(HTTPException):
    """A request that the service refuses.

    Attributes:
        code: one of `SERVICE_CODES`, which gives the HTTP status.
    """

    def __init__(self, code: str, message: str, retry_after_s: int | None = None) -> None:
        status = SERVICE_CODES[code].status
        headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        if status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        super().__init__(status, message, headers)
        self.code = code


def problem_responses(*statuses: int) -> Responses:
    """Error responses of a route, for the API description."""
    return {status: {"model": Problem, "description": _DESCRIPTIONS[status]} for status in statuses}


def problem_response(
    status: int, code: str, message: str, headers: dict[str, str] | None = None, error: str | None = None
) -> JSONResponse:
    """A `Problem` as an HTTP response."""
    return JSONResponse(Problem(code=code, message=message, error=error).model_dump(), status, headers)


def install_error_handlers(app: FastAPI, routes: Sequence[Route], folder: Path | None) -> None:
    """Respond to every error with a `Problem`: errors of the library, of the framework, and unexpected ones.

    Args:
        app: with all of its routes.
        routes: those of the API.
        folder: of the collection, if messages must not contain paths of the server; None if they may.
    """
    app.state.routes = routes
    app.state.folder = folder
    app.add_exception_handler(MvrError, _handle_library_error)
    app.add_exception_handler(MvrenderError, _handle_library_error)
    app.add_exception_handler(RequestValidationError, _handle_invalid_request)
    app.add_exception_handler(HTTPException, _handle_http_error)
    app.add_exception_handler(OSError, _handle_os_error)
    app.add_exception_handler(Exception, _handle_unexpected_error)


# The folders of an absolute path in a message.
_FOLDERS = re.compile(r"(?<![^\s'\"(@])/(?:[^/\s'\"]+/)+")


def redact_paths(message: str, folder: Path | None) -> str:
    """Remove the folders of all paths from a message; `folder` is the collection's, None leaves the message as it is."""
    if folder is None:
        return message
    if folder.is_absolute():
        message = message.replace(str(folder), folder.name)
    return _FOLDERS.sub("", message)


def _handle_library_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MvrError | MvrenderError)
    status = status_of(error)
    headers = None
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        _log.error("%s: %s", type(error).__name__, error)
        headers = {"Retry-After": _RETRY_SECONDS}
    message = error.message if isinstance(error, MeshError) else str(error)
    message = redact_paths(message, request.app.state.folder)
    return problem_response(status, error.code, message, headers, type(error).__name__)


def _handle_invalid_request(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    details = "; ".join(dict.fromkeys(_plain_detail(item) for item in error.errors()))
    return problem_response(SERVICE_CODES["bad_request"].status, "bad_request", details)


# Kind of a validation error of pydantic -> what the value has to be.
_EXPECTED = {
    "dict_type": "must be a JSON object",
    "model_attributes_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "list_type": "must be a list",
    "string_type": "must be a string",
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "missing": "is missing",
    "extra_forbidden": "is unknown: leave it out, or check its spelling",
    "too_short": "needs {min_length} or more entries",
    "too_long": "has more than {max_length} entries",
    "string_too_short": "needs {min_length} or more characters",
    "string_too_long": "has more than {max_length} characters",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "must be one of {expected}",
    "enum": "must be one of {expected}",
}


def _plain_detail(item: Mapping[str, Any]) -> str:
    """One problem of a request: the place of the value, what it has to be, and the value where it is short."""
    if item["type"] == "json_invalid":
        *_, place = item["loc"]
        if isinstance(place, int):
            return f"the body is not JSON ({item['ctx']['error']} at character {place}): send a JSON object"
        return f"the field '{place}' is not JSON ({item['ctx']['error']}): send a JSON object"
    place = _place(item["loc"][1:])
    expected = _EXPECTED.get(item["type"])
    if expected is None:
        return f"{place}: {item['msg'].removeprefix('Value error, ')}"
    given = item["input"]
    if place == "the request" and isinstance(given, str | bytes):
        return "the body is not sent as JSON: add the header Content-Type: application/json"
    shown = f", not {json.dumps(given)}" if "must be" in expected and _is_short(given) else ""
    context = {name: f"{value:g}" if isinstance(value, float) else value for name, value in item.get("ctx", {}).items()}
    return f"'{place}' {expected.format(**context)}{shown}"


# Kinds of terms and types of labels, which pydantic adds to the place of a value.
_ALTERNATIVES = {"str", "int", "float", "constrained-str", "finite-float", "nullable"}


def _place(location: Sequence[str | int]) -> str:
    """`terms.0.weight` of `("terms", 0, "id", "weight")`: without the alternative that was tried."""
    parts = [str(part) for part in location]
    if len(parts) > 3 and parts[0] == "terms":  # the kind of the term
        del parts[2]
    if parts[0:1] == ["metadata"] and parts[-1] in _ALTERNATIVES:
        del parts[-1]
    return ".".join(parts) or "the request"


def _is_short(value: Any) -> bool:
    return isinstance(value, bool | int | float | str) and len(str(value)) <= 40


def _handle_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:  # the framework lists the methods of one route only
        matching = [route for route in request.app.state.routes if route.matches(request.scope)[0] is not Match.NONE]
        headers["Allow"] = ", ".join(sorted({method for route in matching for method in route.methods or ()}))
    if isinstance(error, ProblemError):
        return problem_response(error.status_code, error.code, str(error.detail), headers)
    message = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND:  # no route
        message = f"there is nothing at '{request.url.path[:100]}': GET /openapi.json lists the paths"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"{request.method} is not allowed at '{request.url.path[:100]}': use {headers['Allow']}"
    return problem_response(error.status_code, HTTPStatus(error.status_code).name.lower(), message, headers)


def _handle_os_error(_: Request, error: Exception) -> JSONResponse:
    _log.error("%s: %s", type(error).__name__, error)
    message = "the service cannot read or write a file, its disk may be full: nothing was changed"
    headers = {"Retry-After": _STORAGE_RETRY_SECONDS}
    return problem_response(SERVICE_CODES["storage_failed"].status, "storage_failed", message, headers)


def _handle_unexpected_error(_: Request, error: Exception) -> JSONResponse:
    _log.error("unexpected error", exc_info=error)
    message = "unexpected error: see the log of the service"
    return problem_response(SERVICE_CODES["internal_error"].status, "internal_error", message)
