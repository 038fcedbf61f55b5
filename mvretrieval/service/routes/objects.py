"""Routes for objects: list, show, add, replace, label, remove."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, File, Form, Query, Response, UploadFile
from pydantic import Json

from mvrender.mesh import UpAxis
from mvretrieval.api import Collection
from mvretrieval.ingest.imported_objects import is_imported_path
from mvretrieval.service.auth import api_router
from mvretrieval.service.problems import ProblemError, problem_responses
from mvretrieval.service.schemas import (
    MAX_ID_LENGTH,
    FailureModel,
    Labels,
    LabelValue,
    MetadataRequest,
    ObjectModel,
    ObjectPage,
    RemovedModel,
)
from mvretrieval.service.search_service import SearchService
from mvretrieval.service.uploads import Uploads, saved_uploads
from mvretrieval.store.uploads import UPLOADS, new_upload, upload_of

_Files = Annotated[
    list[UploadFile], File(min_length=1, description="the mesh first, then its materials, buffers and textures")
]
_Id = Annotated[
    str | None,
    Form(min_length=1, max_length=MAX_ID_LENGTH, description="name of the file by default, with ~2 if it is taken"),
]
_Metadata = Annotated[Json[Labels | None] | None, Form(description="labels, as JSON")]
_Up = Annotated[UpAxis | None, Form(description="up axis of the file; the format's convention by default")]


def object_read_routes(service: SearchService) -> APIRouter:
    """Routes that read objects and failures."""
    router = api_router(service.settings, "objects")
    collection, session = service.collection, service.session

    @router.get("/objects", responses=problem_responses(422))
    def list_objects(
        where: Annotated[str | None, Query(max_length=4000, description="filter")] = None,
        after: Annotated[int, Query(ge=0, le=2**62, description="`next` of the previous page")] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> ObjectPage:
        """Objects, in the order in which they were added."""
        with session.reading():
            service.check_filter(where)
            row_ids = [int(row_id) for row_id in session.store.select(where) if row_id > after][: limit + 1]
            records = session.store.records(row_ids[:limit])
        page = [service.object_model(records[row_id]) for row_id in row_ids[:limit]]
        return ObjectPage(objects=page, next=row_ids[limit - 1] if len(row_ids) > limit else None)

    @router.get("/objects/{object_id:path}", responses=problem_responses(404))
    def get_object(object_id: str) -> ObjectModel:
        """One object."""
        return service.object_model(collection.get(object_id))

    @router.get("/failures")
    def list_failures() -> list[FailureModel]:
        """Files that could not be indexed."""
        return [
            FailureModel(file=_file_shown(path, service.settings.show_paths), code=code, message=message)
            for path, code, message in collection.failures()
        ]

    return router


def object_write_routes(service: SearchService) -> APIRouter:
    """Routes that change objects."""
    router = api_router(service.settings, "objects", "write")
    collection = service.collection

    @router.post("/objects", status_code=HTTPStatus.CREATED, responses=problem_responses(409, 413, 415, 422, 429, 503))
    def add_object(files: _Files, id: _Id = None, metadata: _Metadata = None, up: _Up = None) -> ObjectModel:
        """Add a mesh. It can be found at once."""
        with saved_uploads(files, service.settings, service.incoming) as uploads:
            _check_id(id or uploads.first.name)
            new = _NewObject(uploads, id, metadata, up)
            with service.writing(), service.limiter.turn():
                return service.object_model(collection.get(_store(collection, new, replace=False)))

    @router.put(
        "/objects/{object_id:path}",
        responses={
            int(HTTPStatus.CREATED): {"model": ObjectModel, "description": "a new object"},
            **problem_responses(409, 413, 415, 422, 429, 503),
        },
    )
    def put_object(
        files: _Files, object_id: str, response: Response, metadata: _Metadata = None, up: _Up = None
    ) -> ObjectModel:
        """Replace the mesh of an object, or add it. An existing object keeps its id and its other labels."""
        with saved_uploads(files, service.settings, service.incoming) as uploads:
            new = _NewObject(uploads, _check_id(object_id), metadata, up)
            with service.writing(), service.limiter.turn():
                if service.session.store.row_id_of(object_id) is None:
                    response.status_code = HTTPStatus.CREATED
                return service.object_model(collection.get(_store(collection, new, replace=True)))

    @router.patch("/objects/{object_id:path}", responses=problem_responses(404, 409, 422, 503))
    def set_metadata(object_id: str, request: MetadataRequest) -> ObjectModel:
        """Set labels of an object."""
        with service.writing():
            collection.set_metadata(object_id, request.metadata)
            return service.object_model(collection.get(object_id))

    @router.delete("/objects/{object_id:path}", responses=problem_responses(404, 409, 503))
    def remove_object(object_id: str) -> RemovedModel:
        """Remove an object. Its file stays, unless it was uploaded."""
        with service.writing():
            record = collection.get(object_id)
            removed = collection.remove(object_id)
            _delete_upload(collection, record.path)
        return RemovedModel(removed=removed)

    return router


def _file_shown(path: str, show_paths: bool) -> str:
    """The path of a failure, without the folders if these are hidden; that of an imported vector holds its id alone."""
    return path if show_paths or is_imported_path(path) else Path(path).name


def _check_id(object_id: str) -> str:
    """Refuse an id that cannot be part of a URL."""
    if not object_id.isprintable() or not object_id.strip() or {".", "..", ""} & set(object_id.split("/")):
        raise ProblemError(
            "bad_id",
            "an id consists of printable characters; its parts between slashes are neither empty nor '.' nor '..'",
        )
    return object_id


@dataclass(frozen=True)
class _NewObject:
    uploads: Uploads
    id: str | None
    metadata: dict[str, LabelValue] | None
    up: UpAxis | None


def _store(collection: Collection, new: _NewObject, replace: bool) -> str:
    """Move uploaded files into the collection's folder and add the first as an object.

    Args:
        collection: open for writing.
        new: the upload.
        replace: replace an object with this id; otherwise the new object gets another id if this one is taken.

    Returns:
        Id of the object.
    """
    folder = new_upload(collection.folder)
    store = collection.session.store
    old = None if new.id is None or not replace else store.row_id_of(new.id)
    old_path = None if old is None else store.records([old])[old].path
    try:
        shutil.copytree(new.uploads.folder, folder)
        mesh = folder / new.uploads.first.relative_to(new.uploads.folder)
        object_id = collection.add(mesh, new.id, new.metadata, new.up, replace=replace)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if old_path is not None:
        _delete_upload(collection, old_path)
    return object_id


def _delete_upload(collection: Collection, path: str) -> None:
    """Delete the upload that a file of a removed object belongs to, if it was uploaded."""
    if name := upload_of(path):
        shutil.rmtree(collection.folder / UPLOADS / name, ignore_errors=True)
