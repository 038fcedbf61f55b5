"""Questions over HTTP."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Form, UploadFile
from pydantic import Json

from mvretrieval.service.guard import guarded
from mvretrieval.service.models import SearchAnswer, SearchRequest
from mvretrieval.service.problems import refusals
from mvretrieval.service.search_service import SearchService
from mvretrieval.service.uploads import kept


def routes(served: SearchService) -> APIRouter:
    """Routes that ask."""
    router = guarded(served.settings, "search")

    @router.post("/search", responses=refusals(404, 422, 429, 503))
    def search(request: SearchRequest) -> SearchAnswer:
        """Ask with words, known objects or vectors."""
        return served.search(request, {})

    @router.post("/search/upload", responses=refusals(404, 413, 415, 422, 429, 503))
    def search_with_files(
        query: Annotated[Json[SearchRequest], Form(description="a SearchRequest as JSON; its terms name the files")],
        files: Annotated[list[UploadFile], File(min_length=1, description="meshes with their textures, and pictures")],
    ) -> SearchAnswer:
        """Ask with meshes or pictures too."""
        with kept(files, served.settings) as uploads:
            return served.search(query, uploads.paths)

    return router
