"""Routes for searching."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Form, UploadFile
from pydantic import Json

from mvretrieval.service.auth import api_router
from mvretrieval.service.problems import problem_responses
from mvretrieval.service.schemas import SearchRequest, SearchResponse
from mvretrieval.service.search_service import SearchService
from mvretrieval.service.uploads import saved_uploads


def search_routes(service: SearchService) -> APIRouter:
    """Search without and with uploaded files."""
    router = api_router(service.settings, "search")

    @router.post("/search", responses=problem_responses(404, 422, 429, 503))
    def search(request: SearchRequest) -> SearchResponse:
        """Search with text, objects of the collection or vectors."""
        return service.search(request, {})

    @router.post("/search/upload", responses=problem_responses(404, 413, 415, 422, 429, 503))
    def search_upload(
        query: Annotated[Json[SearchRequest], Form(description="a SearchRequest as JSON; its terms name the files")],
        files: Annotated[list[UploadFile], File(min_length=1, description="meshes with their textures, and images")],
    ) -> SearchResponse:
        """Search with meshes and images too."""
        with saved_uploads(files, service.settings, service.incoming) as uploads:
            return service.search(query, uploads.paths)

    return router
