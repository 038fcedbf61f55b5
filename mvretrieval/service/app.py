"""The service as one ASGI application."""

from __future__ import annotations

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
from mvretrieval.service import indexing, objects, searching, system
from mvretrieval.service import thumbnails as pictures
from mvretrieval.service.guard import KnownHosts
from mvretrieval.service.metrics import Meter, Metrics
from mvretrieval.service.problems import handle_problems
from mvretrieval.service.search_service import SearchService
from mvretrieval.service.settings import ServiceSettings
from mvretrieval.service.uploads import BodyLimit, settle_uploads

PAGE = Path(__file__).parent / "page"
_THREADS = 40  # for those who do not wait
_ABOUT = """Search one collection of 3D objects by what they look like: with meshes, pictures, words, known objects, vectors,
or a weighted mixture of them with minus terms. Errors are JSON with a `code` for programs and a `message` for people."""


def create_app(collection: Collection, settings: ServiceSettings | None = None) -> FastAPI:
    """The service over an open collection.

    Args:
        collection: open with `OpenOptions(concurrent=True)`, and for writing where `settings` has a token; stays the caller's to
            close, after the application has shut down.
        settings: what is allowed; by default everybody may read and nobody write.
    """
    settings = settings or ServiceSettings()
    served = SearchService(collection, settings)
    metrics = Metrics(served)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        # Requests that wait for a turn each keep a thread; the quick ones must not wait for these.
        anyio.to_thread.current_default_thread_limiter().total_tokens = (
            served.limiter.most + served.writers.most + _THREADS
        )
        if settings.token is not None:
            settle_uploads(collection)
        # In a thread: the service says from the start that it lives, and later that it is ready.
        threading.Thread(target=served.get_ready, daemon=True).start()
        yield
        served.jobs.close()

    app = FastAPI(
        title="mvretrieval", version=__version__, description=_ABOUT, lifespan=life, docs_url=None, redoc_url=None
    )
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(Meter, metrics=metrics)
    if settings.hosts is not None:
        app.add_middleware(KnownHosts, hosts=settings.hosts)

    routers = (
        system.open_routes(served),
        system.guarded_routes(served, metrics),
        searching.routes(served),
        pictures.routes(served),
        objects.reading(served),
        objects.writing(served),
        indexing.routes(served),
    )
    for router in routers:
        app.include_router(router)
    given = [route for router in routers for route in router.routes if isinstance(route, Route)]
    handle_problems(app, given, None if settings.show_paths else collection.folder)

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

    app.mount("/page", _Revalidated(directory=PAGE), name="page")
    return app


class _Revalidated(StaticFiles):
    """Files that a browser asks for anew each time, and gets when they have changed: modules of two versions do not mix."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response
