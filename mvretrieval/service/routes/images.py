"""Routes for thumbnails of views, and for meshes as GLB."""

from __future__ import annotations

import io
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mvrender.pool import Job
from mvretrieval.search.thumbnails import view_thumbnail
from mvretrieval.service.auth import api_router
from mvretrieval.service.model_cache import ModelCache
from mvretrieval.service.problems import ProblemError, Responses, problem_responses
from mvretrieval.service.search_service import SearchService

_WEBP: Responses = {200: {"content": {"image/webp": {}}, "description": "an image"}}
_GLB: Responses = {200: {"content": {"model/gltf-binary": {}}, "description": "the mesh in the unit sphere, +Y up"}}


def image_routes(service: SearchService) -> APIRouter:
    """Thumbnails and GLB models."""
    router = api_router(service.settings, "images")
    collection = service.collection
    models = ModelCache(collection.folder)

    @router.get(
        "/thumbnails/{object_id:path}", response_class=Response, responses={**_WEBP, **problem_responses(404, 422)}
    )
    def thumbnail(
        request: Request,
        object_id: str,
        view: Annotated[int, Query(ge=0, le=9999, description="index of the view")] = 0,
    ) -> Response:
        """Thumbnail of one view of an object."""
        record = collection.get(object_id)

        def webp() -> bytes:
            image = (
                view_thumbnail(service.session, record.row_id, view)
                if view < collection.describer.rig.n_views
                else None
            )
            if image is None:
                raise ProblemError("no_image", f"'{object_id}' has no image of view {view}")
            out = io.BytesIO()
            image.save(out, "WEBP", quality=80)
            return out.getvalue()

        return _cached_response(request, f"{record.content_hash[:16]}-{view}", webp, "image/webp")

    @router.get("/strips/{object_id:path}", response_class=Response, responses={**_WEBP, **problem_responses(404)})
    def strip(request: Request, object_id: str) -> Response:
        """Thumbnails of all views of an object, side by side."""
        record = collection.get(object_id)

        def webp() -> bytes:
            stored = service.session.store.strip_of(record.row_id)
            if not stored:
                raise ProblemError("no_image", f"'{object_id}' has no images")
            return stored

        return _cached_response(request, f"{record.content_hash[:16]}-strip", webp, "image/webp")

    @router.get(
        "/models/{object_id:path}",
        response_class=Response,
        responses={**_GLB, **problem_responses(404, 413, 415, 422, 429, 503)},
    )
    def model(request: Request, object_id: str) -> Response:
        """Mesh of an object as GLB; large meshes are decimated."""
        record = collection.get(object_id)

        def glb() -> bytes:
            cached = models.get(record.content_hash)
            if cached is not None:
                return cached
            path = Path(record.path)
            root = Path(service.session.store.root_of(record.row_id) or path.parent)
            with service.limiter.turn():
                converted = service.session.render_pool().convert(Job(path, root, record.facts["up"])).glb
            models.put(record.content_hash, converted)
            return converted

        return _cached_response(request, f"{record.content_hash[:16]}-glb", glb, "model/gltf-binary")

    return router


def _cached_response(request: Request, tag: str, make: Callable[[], bytes], media_type: str) -> Response:
    """A response that the browser caches; `make` is only called if the browser does not have it already."""
    headers = {"ETag": f'"{tag}"', "Cache-Control": "private, max-age=60"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(make(), media_type=media_type, headers=headers)
