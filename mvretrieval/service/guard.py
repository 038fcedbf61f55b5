"""Who may do what, and how much at once."""

from __future__ import annotations

import hmac
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mvretrieval.service.problems import Problem, ProblemError, refusals
from mvretrieval.service.settings import ServiceSettings

# Only describes the token: `_route_class` asks for it, before a body is read.
_bearer = HTTPBearer(auto_error=False, description="the token that the service was started with")


def guarded(settings: ServiceSettings, tag: str, writes: bool = False) -> APIRouter:
    """Routes of the API that ask for the token where one is needed."""
    needs_token = writes or settings.auth
    return APIRouter(
        prefix="/api",
        route_class=_route_class(settings, writes),
        dependencies=[Depends(_bearer)] if needs_token else [],
        responses=refusals(400, 403, 408, *([401] if needs_token else [])),
        tags=[tag],
    )


def _route_class(settings: ServiceSettings, writes: bool) -> type[APIRoute]:

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def checked(request: Request) -> Response:
                _check_site(request)
                if writes or settings.auth:
                    _check_token(settings, request, "write" if writes else "read")
                length, most = request.headers.get("content-length", ""), most_bytes(request.scope, settings)
                if length.isdigit() and int(length) > most:
                    raise too_large(most)
                return await handle(request)

            return checked

    return GuardedRoute


def _check_site(request: Request) -> None:
    """Refuse what another website makes a browser send. It could not read the answer, but it could keep everybody waiting."""
    if request.method != "GET" and request.headers.get("sec-fetch-site") == "cross-site":
        raise ProblemError(
            HTTPStatus.FORBIDDEN,
            "cross_site",
            "a page of another website asks: let its server ask, or serve both under one name",
        )


def _check_token(settings: ServiceSettings, request: Request, what: str) -> None:
    if settings.token is None:
        raise ProblemError(
            HTTPStatus.FORBIDDEN,
            "read_only",
            f"nobody may {what} here: start the service with a token, mvr serve --token TOKEN",
        )
    kind, _, shown = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not hmac.compare_digest(shown.strip().encode(), settings.token.encode()):
        why = "is not the right one" if shown else "is missing"
        raise ProblemError(
            HTTPStatus.UNAUTHORIZED, "token", f"the token to {what} {why}: send it as 'Authorization: Bearer TOKEN'"
        )


def most_bytes(scope: Scope, settings: ServiceSettings) -> int:
    """That a request may have: files come in parts, and what is no file is parsed while nobody else is answered."""
    has_parts = Headers(scope=scope).get("content-type", "").lower().startswith("multipart/form-data")
    return settings.max_upload_bytes if has_parts else min(settings.max_json_bytes, settings.max_upload_bytes)


def too_large(most: int) -> ProblemError:
    """The request has too many bytes."""
    return ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", f"more than {most / 2**20:.3g} MiB in one request"
    )


class KnownHosts:
    """Answers only requests that call the service by one of its names."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or refuse."""
        if scope["type"] == "http" and (host := _host_of(scope)) not in self._hosts:
            message = f"nobody here is called '{host[:100]}': start the service with --allow-host {host[:100]} if that is its name"
            answer = JSONResponse(
                Problem(code="unknown_host", message=message).model_dump(), HTTPStatus.MISDIRECTED_REQUEST
            )
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _host_of(scope: Scope) -> str:
    """The name in the Host header, without its port."""
    try:
        return urlsplit(f"//{Headers(scope=scope).get('host', '')}").hostname or ""
    except ValueError:
        return ""


class FairLimiter:
    """Lets few in at once and few wait, who come first first; the others are told to come again."""

    def __init__(self, at_once: int, waiting: int, queue_timeout_s: float) -> None:
        """Open it.

        Args:
            at_once: places inside.
            waiting: that may wait for one.
            queue_timeout_s: how long each of them waits.
        """
        self.most = at_once + waiting
        self._free = at_once
        self._patience = queue_timeout_s
        # Not a semaphore, which lets in whoever comes by when a place gets free: somebody waited half a minute among 32.
        self._waiting: deque[threading.Event] = deque()
        self._lock = threading.Lock()
        self._inside = 0

    @property
    def inside(self) -> int:
        """How many have a place or wait for one."""
        return self._inside

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A place inside.

        Raises:
            ProblemError: too many wait, or it took too long.
        """
        with self._lock:
            if self._inside >= self.most:
                raise ProblemError(
                    HTTPStatus.TOO_MANY_REQUESTS, "too_many", f"{self._inside} requests wait already: try again soon", 1
                )
            self._inside += 1
            mine = None if self._free else threading.Event()
            if mine is None:
                self._free -= 1
            else:
                self._waiting.append(mine)
        if mine is not None:
            self._wait(mine)
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                self._hand_on()

    def _wait(self, mine: threading.Event) -> None:
        if mine.wait(self._patience):
            return
        with self._lock:
            self._inside -= 1
            if mine.is_set():  # in the last moment
                self._hand_on()
            else:
                self._waiting.remove(mine)
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE, "busy", f"no turn within {self._patience:g} s: try again later", 10
        )

    def _hand_on(self) -> None:
        """A place that got free goes to the next."""
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._free += 1
