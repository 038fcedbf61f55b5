"""The service as an ASGI application."""

from __future__ import annotations

import shutil
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.routing import Route
from starlette.types import Scope

from mvretrieval import __version__
from mvretrieval.api import Collection
from mvretrieval.service.auth import AllowedHosts
from mvretrieval.service.codes import codes_as_markdown
from mvretrieval.service.limits import BodyLimit, StoppedRequests
from mvretrieval.service.metrics import Metrics, RequestMetrics
from mvretrieval.service.problems import install_error_handlers
from mvretrieval.service.routes.images import image_routes
from mvretrieval.service.routes.jobs import job_routes
from mvretrieval.service.routes.objects import object_read_routes, object_write_routes
from mvretrieval.service.routes.search import search_routes
from mvretrieval.service.routes.system import health_routes, system_routes
from mvretrieval.service.search_service import SearchService
from mvretrieval.service.settings import ServiceSettings
from mvretrieval.store.uploads import relocate_uploads, unused_uploads

PAGE = Path(__file__).parent / "page"
_KEPT_UNUSED_S = 7 * 24 * 3600.0  # uploads without an object: a backup of the database may be put back
_EXTRA_THREADS = 40  # for requests that do not wait for a turn
_DESCRIPTION = f"""Search a collection of 3D objects with meshes, images, text, known objects, vectors, or a weighted mixture of
them with negative terms.

## Errors

An error is JSON with a stable `code`, a `message` for people, and `error`, the class of the same error in Python if there is one.
Codes that are not listed here have the status of their class: 404 for UnknownObjectError; 422 for QueryError, FilterError,
LabelsError, NoTextError and MeshError; 503 for all others.

{codes_as_markdown()}
"""


def create_app(collection: Collection, settings: ServiceSettings | None = None) -> FastAPI:
    """Create the service for an open collection.

    Args:
        collection: open with `OpenOptions(concurrent=True)`, and for writing if `settings` has a token. The caller closes it, after
            the application has shut down.
        settings: access and limits; by default anyone can read and no one can write.
    """
    settings = settings or ServiceSettings()
    service = SearchService(collection, settings)
    metrics = Metrics(service)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # A request that waits for its turn keeps a thread; requests that need no turn must not wait for these.
        anyio.to_thread.current_default_thread_limiter().total_tokens = (
            service.limiter.capacity + service.writers.capacity + _EXTRA_THREADS
        )
        if settings.token is not None:
            relocate_uploads(collection.session.store, collection.folder)
            for upload in unused_uploads(collection.session.store, collection.folder, _KEPT_UNUSED_S):
                shutil.rmtree(upload, ignore_errors=True)
        service.open()
        # In a thread, so that /health responds from the start and /ready later.
        threading.Thread(target=service.load, daemon=True).start()
        yield
        service.close()

    app = FastAPI(
        title="mvretrieval",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.stop = service.stop
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(RequestMetrics, metrics=metrics)
    if settings.hosts is not None:
        app.add_middleware(AllowedHosts, hosts=settings.hosts)
    app.add_middleware(StoppedRequests)
    _add_api(app, service, metrics)
    _add_page(app)
    return app


def _add_api(app: FastAPI, service: SearchService, metrics: Metrics) -> None:
    routers = (
        health_routes(service),
        system_routes(service, metrics),
        search_routes(service),
        image_routes(service),
        object_read_routes(service),
        object_write_routes(service),
        job_routes(service),
    )
    for router in routers:
        app.include_router(router)
    routes = [route for router in routers for route in router.routes if isinstance(route, Route)]
    install_error_handlers(app, routes, None if service.settings.show_paths else service.collection.folder)


def _add_page(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="mvretrieval: API",
            swagger_js_url="/page/vendor/swagger-ui-bundle.js",
            swagger_css_url="/page/vendor/swagger-ui.css",
            swagger_favicon_url="/page/icon.svg",
        )

    app.mount("/page", _RevalidatedFiles(directory=PAGE), name="page")


class _RevalidatedFiles(StaticFiles):
    """Files that a browser revalidates at each request, so that JavaScript modules of two versions never mix."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response
