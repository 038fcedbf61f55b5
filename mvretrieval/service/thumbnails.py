"""Thumbnails, and meshes to be turned about."""

from __future__ import annotations

import io
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from mvrender.pool import Job
from mvretrieval.search.thumbnails import view_thumbnail
from mvretrieval.service.guard import guarded
from mvretrieval.service.model_cache import ModelsCache
from mvretrieval.service.problems import ProblemError, Responses, refusals
from mvretrieval.service.search_service import SearchService

_WEBP: Responses = {200: {"content": {"image/webp": {}}, "description": "a picture"}}
_GLB: Responses = {200: {"content": {"model/gltf-binary": {}}, "description": "the mesh in the unit sphere, +Y up"}}


def routes(served: SearchService) -> APIRouter:
    """Routes that show."""
    router = guarded(served.settings, "pictures")
    collection = served.collection
    models = ModelsCache(collection.folder)

    @router.get("/thumbnails/{object_id:path}", response_class=Response, responses={**_WEBP, **refusals(404)})
    def thumbnail(
        request: Request,
        object_id: str,
        view: Annotated[int, Query(ge=0, le=9999, description="of the object's views")] = 0,
    ) -> Response:
        """A small picture of one view of an object."""
        row_id = collection.row_id_of(object_id)

        def picture() -> bytes:
            found = (
                view_thumbnail(collection.session, row_id, view) if view < collection.describer.rig.n_views else None
            )
            if found is None:
                raise ProblemError(HTTPStatus.NOT_FOUND, "no_picture", f"'{object_id}' has no picture of view {view}")
            out = io.BytesIO()
            found.save(out, "WEBP", quality=80)
            return out.getvalue()

        return _cached(request, f"{collection.get(object_id).content_hash[:16]}-{view}", picture, "image/webp")

    @router.get("/strips/{object_id:path}", response_class=Response, responses={**_WEBP, **refusals(404)})
    def strip(request: Request, object_id: str) -> Response:
        """Small pictures of all views of an object, side by side."""
        record = collection.get(object_id)

        def picture() -> bytes:
            found = collection.session.store.strip_of(record.row_id)
            if not found:
                raise ProblemError(HTTPStatus.NOT_FOUND, "no_picture", f"'{object_id}' has no pictures")
            return found

        return _cached(request, f"{record.content_hash[:16]}-strip", picture, "image/webp")

    @router.get(
        "/models/{object_id:path}",
        response_class=Response,
        responses={**_GLB, **refusals(404, 413, 415, 422, 429, 503)},
    )
    def model(request: Request, object_id: str) -> Response:
        """The mesh of an object as GLB, decimated if it is large."""
        record = collection.get(object_id)

        def glb() -> bytes:
            found = models.get(record.content_hash)
            if found is None:
                path = Path(record.path)
                root = Path(collection.store.root_of(record.row_id) or path.parent)
                job = Job(path, root, record.facts["up"])
                with served.limiter.turn():
                    found = collection.pool().convert(job).glb
                models.put(record.content_hash, found)
            return found

        return _cached(request, f"{record.content_hash[:16]}-glb", glb, "model/gltf-binary")

    return router


def _cached(request: Request, tag: str, make: object, media_type: str) -> Response:
    """An answer that the browser keeps, and is told of where it has it already."""
    headers = {"ETag": f'"{tag}"', "Cache-Control": "private, max-age=60"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(make(), media_type=media_type, headers=headers)  # type: ignore[operator]
