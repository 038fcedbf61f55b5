"""What can go wrong with a request: a status, a code for programs and a sentence for people. Never a stack."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from mvrender.errors import BackendError, MeshError
from mvretrieval.errors import (
    CollectionError,
    FilterError,
    LabelsError,
    MvrError,
    NoTextError,
    QueryError,
    UnknownObjectError,
)

_OF_QUESTIONS = {
    FilterError: "bad_filter",
    LabelsError: "bad_labels",
    NoTextError: "no_words",
    QueryError: "bad_query",
}

Responses = dict[int | str, dict[str, Any]]
"""What a route may answer but for success, for the description of the service."""

_WHY = {
    400: "a body that cannot be parsed",
    401: "the token is missing or another one",
    403: "nobody may write here, or a page of another website asks",
    404: "no such object, job, folder or picture",
    408: "the body stopped coming",
    409: "a folder is being indexed, or the id is taken",
    413: "too many bytes, files, faces or pixels, or too long to look at",
    415: "neither a mesh nor a picture of a format known here",
    422: "a question that cannot be understood, or a file that cannot be used",
    429: "too many wait",
    503: "busy, not ready yet, or the collection cannot be read or written",
}

_log = logging.getLogger("mvretrieval.service")

# Of failures of one mesh, by their code; all others are 422: the file is there and understood, and no good.
_OF_MESHES = {
    "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "out_of_memory": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "missing_file": HTTPStatus.NOT_FOUND,
    "unknown_format": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "needs_extra": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "timeout": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
}


class Problem(BaseModel):
    """Why a request was not done."""

    code: str = Field(description="for programs; never changes its meaning")
    message: str = Field(description="for people: what was wrong, and what to do")


class ProblemError(HTTPException):
    """Raised where a request cannot be done."""

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        if status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        super().__init__(status, message, headers)
        self.code = code


# The folders of an absolute path, where a message names one.
_FOLDERS = re.compile(r"(?<![^\s'\"(@])/(?:[^/\s'\"]+/)+")


def refusals(*statuses: int) -> Responses:
    """What a route answers when it refuses, besides what its router says."""
    return {status: {"model": Problem, "description": _WHY[status]} for status in statuses}


def handle_problems(app: FastAPI, routes: Sequence[Route], folder: Path | None) -> None:
    """Answer every error, ours, the framework's or unforeseen, with a `Problem`.

    Args:
        app: all of its routes added.
        routes: these.
        folder: of the collection, if messages may not tell where it and other files lie.
    """
    app.state.routes = routes
    app.state.folder = folder
    app.add_exception_handler(MvrError, _of_ours)
    app.add_exception_handler(MeshError, _of_ours)
    app.add_exception_handler(BackendError, _of_ours)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_framework)
    app.add_exception_handler(OSError, _of_disk)
    app.add_exception_handler(Exception, _unforeseen)


def told(message: str, folder: Path | None) -> str:
    """A message as others may read it: without the folders of paths, unless `folder`, the collection's, is None."""
    if folder is None:
        return message
    if folder.is_absolute():
        message = message.replace(str(folder), folder.name)
    return _FOLDERS.sub("", message)


def _of_disk(_: Request, error: Exception) -> JSONResponse:
    _log.error("%s: %s", type(error).__name__, error)
    message = "the server cannot write, its disk may be full: nothing was changed"
    return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "storage", message, {"Retry-After": "60"})


def _answer(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(Problem(code=code, message=message).model_dump(), status, headers)


def _of_ours(request: Request, error: Exception) -> JSONResponse:
    folder = request.app.state.folder
    message = told(str(error), folder)
    cause = error if isinstance(error, MeshError) else error.__cause__
    if isinstance(cause, MeshError):
        status = _OF_MESHES.get(cause.code, HTTPStatus.UNPROCESSABLE_ENTITY)
        return _answer(status, cause.code, told(cause.message, folder))
    if isinstance(error, UnknownObjectError):
        return _answer(HTTPStatus.NOT_FOUND, "no_such_object", message)
    for kind, code in _OF_QUESTIONS.items():
        if isinstance(error, kind):
            return _answer(HTTPStatus.UNPROCESSABLE_ENTITY, code, message)
    _log.error("%s: %s", type(error).__name__, error)
    if isinstance(error, CollectionError):
        return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "collection_unavailable", message, {"Retry-After": "5"})
    return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", message, {"Retry-After": "5"})


def _of_validation(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    told = [
        f"{'.'.join(str(part) for part in item['loc'][1:]) or 'the request'}: {item['msg']}"
        for item in error.errors()[:3]
    ]
    return _answer(HTTPStatus.UNPROCESSABLE_ENTITY, "bad_request", "; ".join(told))


def _of_framework(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:  # the framework tells the methods of one route only
        fitting = [route for route in request.app.state.routes if route.matches(request.scope)[0] is not Match.NONE]
        error.headers = {"Allow": ", ".join(sorted({method for route in fitting for method in route.methods or ()}))}
    code = error.code if isinstance(error, ProblemError) else HTTPStatus(error.status_code).name.lower()
    return _answer(error.status_code, code, str(error.detail), dict(error.headers or {}))


def _unforeseen(_: Request, error: Exception) -> JSONResponse:
    _log.error("unforeseen", exc_info=error)
    return _answer(
        HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "something went wrong here; the server's log tells what"
    )
