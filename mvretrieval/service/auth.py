"""Access to the API: the token, requests from other websites, and the names that the service may be called by."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Coroutine
from typing import Any, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mvretrieval.service.codes import SERVICE_CODES
from mvretrieval.service.limits import check_content_length
from mvretrieval.service.problems import ProblemError, problem_response, problem_responses
from mvretrieval.service.settings import ServiceSettings

Access = Literal["read", "write"]

# For the API description only: `_route_class` checks the token before a body is read.
_bearer = HTTPBearer(auto_error=False, description="the token that the service was started with")


def api_router(settings: ServiceSettings, tag: str, access: Access = "read") -> APIRouter:
    """A router for `/api` that requires the token where `access` needs one."""
    needs_token = access == "write" or settings.auth
    return APIRouter(
        prefix="/api",
        route_class=_route_class(settings, access),
        dependencies=[Depends(_bearer)] if needs_token else [],
        responses=problem_responses(400, 403, 408, *([401] if needs_token else [])),
        tags=[tag],
    )


def _route_class(settings: ServiceSettings, access: Access) -> type[APIRoute]:

    class CheckedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def checked(request: Request) -> Response:
                _check_site(request, settings)
                if access == "write" or settings.auth:
                    _check_token(settings, request, access)
                check_content_length(request, settings)
                return await handle(request)

            return checked

    return CheckedRoute


def _check_site(request: Request, settings: ServiceSettings) -> None:
    """Refuse requests that a page of another website makes: it could not read the response, but could overload the service."""
    if request.method != "GET" and _is_cross_site(request, settings):
        raise ProblemError(
            "cross_site",
            "requests from pages of other websites are refused: send them from a server, or serve both under one name",
        )


def _is_cross_site(request: Request, settings: ServiceSettings) -> bool:
    """Whether a browser says so; older ones only name the origin of the page."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None or origin is None:
        return site == "cross-site"
    try:
        host = urlsplit(origin).hostname or ""
    except ValueError:
        return True
    return host != _host_of(request.scope) and host not in (settings.hosts or ())


def _check_token(settings: ServiceSettings, request: Request, access: Access) -> None:
    if settings.token is None:
        raise ProblemError(
            "read_only", f"no {access} access without a token: start the service with 'mvr serve --token TOKEN'"
        )
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), settings.token.encode()):
        state = "wrong" if given else "missing"
        raise ProblemError(
            "bad_token", f"the token for {access} access is {state}: send it as 'Authorization: Bearer TOKEN'"
        )


class AllowedHosts:
    """Middleware that refuses requests for hosts other than the names of the service (protection against DNS rebinding)."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle or refuse one request."""
        if scope["type"] == "http" and (host := _host_of(scope)) not in self._hosts:
            message = f"this service is not called '{host[:100]}': if it is, start it with 'mvr serve --allow-host {host[:100]}'"
            response = problem_response(SERVICE_CODES["unknown_host"].status, "unknown_host", message)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _host_of(scope: Scope) -> str:
    """The name in the Host header, without the port."""
    try:
        return urlsplit(f"//{Headers(scope=scope).get('host', '')}").hostname or ""
    except ValueError:
        return ""
