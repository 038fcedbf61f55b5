"""Objects over HTTP: listing, adding, replacing, labelling, removing."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, File, Form, Query, UploadFile
from pydantic import Json

from mvrender.mesh import UpAxis
from mvretrieval.api import Collection
from mvretrieval.service.guard import guarded
from mvretrieval.service.models import (
    MAX_ID,
    FailureModel,
    Labels,
    LabelValue,
    MetadataRequest,
    ObjectModel,
    ObjectPage,
    Removed,
)
from mvretrieval.service.problems import ProblemError, refusals
from mvretrieval.service.search_service import SearchService
from mvretrieval.service.uploads import Kept, forget_upload, kept, new_upload

_Files = Annotated[
    list[UploadFile], File(min_length=1, description="the mesh first, then what it names (materials, textures)")
]
_Id = Annotated[
    str | None,
    Form(min_length=1, max_length=MAX_ID, description="the file's name by default, with ~2 where that is taken"),
]
_Metadata = Annotated[Json[Labels | None] | None, Form(description="labels, as JSON")]
_Up = Annotated[UpAxis | None, Form(description="axis that is up in the file")]


def reading(served: SearchService) -> APIRouter:
    """Routes that tell of objects."""
    router = guarded(served.settings, "objects")
    collection = served.collection

    @router.get("/objects", responses=refusals(422))
    def objects(
        where: Annotated[str | None, Query(max_length=4000, description="filter")] = None,
        after: Annotated[int, Query(ge=0, le=2**62, description="`next` of the page before")] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> ObjectPage:
        """Objects in the order in which they were added."""
        with collection.reading():
            served.check_filter(where)
            row_ids = [int(row_id) for row_id in collection.store.select(where) if row_id > after][: limit + 1]
            records = collection.store.records(row_ids[:limit])
        some = [served.object(records[row_id]) for row_id in row_ids[:limit]]
        return ObjectPage(objects=some, next=row_ids[limit - 1] if len(row_ids) > limit else None)

    @router.get("/objects/{object_id:path}", responses=refusals(404))
    def one(object_id: str) -> ObjectModel:
        """One object."""
        return served.object(collection.get(object_id))

    @router.get("/failures")
    def failures() -> list[FailureModel]:
        """Files that could not be indexed, and why."""
        return [
            FailureModel(file=path if served.settings.show_paths else Path(path).name, code=code, message=message)
            for path, code, message in collection.store.failures()
        ]

    return router


def writing(served: SearchService) -> APIRouter:
    """Routes that change objects."""
    router = guarded(served.settings, "objects", writes=True)
    collection = served.collection

    @router.post("/objects", status_code=HTTPStatus.CREATED, responses=refusals(409, 413, 415, 422, 429, 503))
    def add(files: _Files, id: _Id = None, metadata: _Metadata = None, up: _Up = None) -> ObjectModel:
        """Add a mesh. It can be found at once."""
        with kept(files, served.settings) as uploads:
            new = _New(uploads, _check_id(id or next(iter(uploads.paths.values())).name), metadata, up)
            with served.written(), served.limiter.turn():
                if id is not None and collection.store.row_id_of(id) is not None:
                    raise ProblemError(HTTPStatus.CONFLICT, "id_taken", f"there is an object '{id}': PUT replaces it")
                return served.object(collection.get(_take(collection, new, replaces=False)))

    @router.put("/objects/{object_id:path}", responses=refusals(404, 409, 413, 415, 422, 429, 503))
    def replace(files: _Files, object_id: str, metadata: _Metadata = None, up: _Up = None) -> ObjectModel:
        """Give an object another mesh; its id stays, and its labels but for those that are set."""
        with kept(files, served.settings) as uploads, served.written(), served.limiter.turn():
            collection.row_id_of(object_id)
            return served.object(
                collection.get(_take(collection, _New(uploads, object_id, metadata, up), replaces=True))
            )

    @router.patch("/objects/{object_id:path}", responses=refusals(404, 409, 422, 503))
    def label(object_id: str, request: MetadataRequest) -> ObjectModel:
        """Set labels of an object."""
        with served.written():
            collection.set_metadata(object_id, request.metadata)
            return served.object(collection.get(object_id))

    @router.delete("/objects/{object_id:path}", responses=refusals(404, 409, 503))
    def remove(object_id: str) -> Removed:
        """Remove an object; the file that it was made from stays, unless it was uploaded."""
        with served.written():
            record = collection.get(object_id)
            removed = collection.remove(object_id)
            forget_upload(collection, record.path)
        return Removed(removed=removed)

    return router


def _check_id(object_id: str) -> str:
    """Refuse what no address can name."""
    if not object_id.isprintable() or not object_id.strip() or {".", "..", ""} & set(object_id.split("/")):
        raise ProblemError(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "bad_id",
            "an id is printable, its parts between slashes neither empty nor dots",
        )
    return object_id


@dataclass(frozen=True)
class _New:
    uploads: Kept
    id: str
    metadata: dict[str, LabelValue] | None
    up: UpAxis | None


def _take(collection: Collection, new: _New, replaces: bool) -> str:
    """Files into a folder of the collection, the first of them as an object. Returns the id that it got.

    Args:
        collection: open for writing.
        new: what came.
        replaces: an object of that id gets these files; otherwise the new one gets another id.
    """
    folder = new_upload(collection)
    old = collection.store.row_id_of(new.id) if replaces else None
    old_path = None if old is None else collection.store.records([old])[old].path
    try:
        shutil.copytree(new.uploads.folder, folder)
        mesh = folder / next(iter(new.uploads.paths.values())).relative_to(new.uploads.folder)
        object_id = collection.add(mesh, new.id, new.metadata, new.up, replace=replaces)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if old_path is not None:
        forget_upload(collection, old_path)
    return object_id
