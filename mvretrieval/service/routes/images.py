"""Routes for thumbnails of views, and for meshes as GLB."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mvrender.jobs import RenderJob
from mvretrieval.ingest.imported_objects import is_imported_path
from mvretrieval.search.thumbnails import view_thumbnail
from mvretrieval.service.auth import api_router
from mvretrieval.service.model_cache import ModelCache
from mvretrieval.service.problems import ProblemError, Responses, problem_responses
from mvretrieval.service.search_service import SearchService
from mvretrieval.store.records import ObjectRecord
from mvretrieval.store.uploads import current_path

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
        make = partial(_thumbnail, service, record, view)
        return _cached_response(request, f"{record.content_hash[:16]}-{view}", make, "image/webp")

    @router.get("/strips/{object_id:path}", response_class=Response, responses={**_WEBP, **problem_responses(404)})
    def strip(request: Request, object_id: str) -> Response:
        """Thumbnails of all views of an object, side by side."""
        record = collection.get(object_id)
        make = partial(_strip, service, record)
        return _cached_response(request, f"{record.content_hash[:16]}-strip", make, "image/webp")

    @router.get(
        "/models/{object_id:path}",
        response_class=Response,
        responses={**_GLB, **problem_responses(404, 413, 415, 422, 429, 503)},
    )
    def model(request: Request, object_id: str) -> Response:
        """Mesh of an object as GLB; large meshes are decimated."""
        record = collection.get(object_id)
        make = partial(_model, service, models, record)
        return _cached_response(request, f"{record.content_hash[:16]}-glb", make, "model/gltf-binary")

    return router


def _thumbnail(service: SearchService, record: ObjectRecord, view: int) -> bytes:
    session = service.session
    image = view_thumbnail(session, record.row_id, view) if view < session.describer.rig.n_views else None
    if image is None:
        raise ProblemError("no_image", f"'{record.id}' has no image of view {view}")
    out = io.BytesIO()
    image.save(out, "WEBP", quality=80)
    return out.getvalue()


def _strip(service: SearchService, record: ObjectRecord) -> bytes:
    strip = service.session.store.strip_of(record.row_id)
    if not strip:
        raise ProblemError("no_image", f"'{record.id}' has no images")
    return strip


def _model(service: SearchService, models: ModelCache, record: ObjectRecord) -> bytes:
    if is_imported_path(record.path):
        raise ProblemError("no_image", f"'{record.id}' was imported as a vector and has no mesh")
    cached = models.get(record.content_hash)
    if cached is not None:
        return cached
    path = current_path(record.path, service.session.folder)
    root = Path(service.session.store.root_of(record.row_id) or path.parent)
    if not path.is_relative_to(root):  # an upload, in a collection that was moved and may only be read
        root = path.parent
    with service.limiter.turn():
        glb = service.session.render_pool().convert(RenderJob(path, root, record.facts["up"])).glb
    models.put(record.content_hash, glb)
    return glb


def _cached_response(request: Request, tag: str, make: Callable[[], bytes], media_type: str) -> Response:
    """A response that the browser caches; `make` is only called if the browser does not have it already."""
    headers = {"ETag": f'"{tag}"', "Cache-Control": "private, max-age=60"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(make(), media_type=media_type, headers=headers)
