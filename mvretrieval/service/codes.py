"""Error codes of the REST API: HTTP status and meaning of each.

Errors of the library keep the code that they have in Python (`mvretrieval.errors`, `mvrender.errors`). A code of the library that
is not listed here gets the status of its class.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

from mvrender.errors import BackendError, MeshError, MvrenderError
from mvretrieval.errors import (
    CollectionError,
    FilterError,
    LabelsError,
    MvrError,
    NoTextError,
    QueryError,
    UnknownObjectError,
)


class Code(NamedTuple):
    """HTTP status and meaning of an error code."""

    status: HTTPStatus
    meaning: str


SERVICE_CODES: dict[str, Code] = {
    "bad_request": Code(HTTPStatus.UNPROCESSABLE_ENTITY, "a parameter or the body does not match the API description"),
    "read_only": Code(HTTPStatus.FORBIDDEN, "the service was started without a token and accepts no changes"),
    "cross_site": Code(HTTPStatus.FORBIDDEN, "the request comes from a page of another website"),
    "bad_token": Code(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong"),
    "unknown_host": Code(HTTPStatus.MISDIRECTED_REQUEST, "the Host header is not a name of the service"),
    "body_timeout": Code(HTTPStatus.REQUEST_TIMEOUT, "the body of the request arrives too slowly"),
    "too_large": Code(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too many bytes, or a mesh with too many faces or pixels"),
    "too_many_files": Code(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too many files in one request"),
    "too_many_meshes": Code(HTTPStatus.UNPROCESSABLE_ENTITY, "too many meshes in one query"),
    "too_many_hits": Code(HTTPStatus.UNPROCESSABLE_ENTITY, "k is larger than the service allows"),
    "bad_file_name": Code(HTTPStatus.UNPROCESSABLE_ENTITY, "the name of an uploaded file cannot be used"),
    "duplicate_file": Code(HTTPStatus.UNPROCESSABLE_ENTITY, "two files have the same name, or a query names one twice"),
    "missing_upload": Code(HTTPStatus.UNPROCESSABLE_ENTITY, "the query names a file that was not uploaded"),
    "bad_id": Code(HTTPStatus.UNPROCESSABLE_ENTITY, "the id cannot be part of a URL"),
    "no_image": Code(HTTPStatus.NOT_FOUND, "the object has no image of this view"),
    "no_such_folder": Code(HTTPStatus.NOT_FOUND, "the service has no folder of this name to index"),
    "no_such_job": Code(HTTPStatus.NOT_FOUND, "no job has this id"),
    "indexing_in_progress": Code(HTTPStatus.CONFLICT, "a folder is being indexed; other changes have to wait"),
    "queue_full": Code(HTTPStatus.TOO_MANY_REQUESTS, "too many requests or jobs are waiting"),
    "uploads_full": Code(HTTPStatus.SERVICE_UNAVAILABLE, "too many bytes of other requests are under way"),
    "stopping": Code(HTTPStatus.SERVICE_UNAVAILABLE, "the service is stopping"),
    "queue_timeout": Code(HTTPStatus.SERVICE_UNAVAILABLE, "the request waited too long for its turn"),
    "not_ready": Code(HTTPStatus.SERVICE_UNAVAILABLE, "the encoder and the index are not loaded"),
    "storage_failed": Code(HTTPStatus.SERVICE_UNAVAILABLE, "a file cannot be read or written; the disk may be full"),
    "internal_error": Code(
        HTTPStatus.INTERNAL_SERVER_ERROR, "unexpected error; the log of the service has the details"
    ),
}
"""Codes of errors that the service itself raises."""

LIBRARY_CODES: dict[str, Code] = {
    "no_such_object": Code(HTTPStatus.NOT_FOUND, "no object has this id"),
    "too_many_pixels": Code(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too many pixels in the images of one query"),
    "unknown_image_format": Code(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not an image of a supported format"),
    "id_taken": Code(HTTPStatus.CONFLICT, "an object has this id already"),
    "missing_file": Code(HTTPStatus.NOT_FOUND, "the file of the object no longer exists"),
    "out_of_memory": Code(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the mesh needs too much memory"),
    "timeout": Code(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the mesh takes too long to load or render"),
    "unknown_format": Code(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not a mesh of a supported format"),
    "needs_extra": Code(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the service lacks a package that reads this mesh format"),
    "bad_query": Code(HTTPStatus.UNPROCESSABLE_ENTITY, "the query cannot be used"),
    "bad_filter": Code(HTTPStatus.UNPROCESSABLE_ENTITY, "the filter cannot be used"),
    "filter_syntax": Code(HTTPStatus.UNPROCESSABLE_ENTITY, "the filter cannot be parsed"),
    "filter_too_long": Code(HTTPStatus.UNPROCESSABLE_ENTITY, "the filter has too many characters or conditions"),
    "no_such_column": Code(HTTPStatus.UNPROCESSABLE_ENTITY, "the filter names a label that no object has"),
    "bad_labels": Code(HTTPStatus.UNPROCESSABLE_ENTITY, "the labels cannot be stored"),
    "bad_label_value": Code(HTTPStatus.UNPROCESSABLE_ENTITY, "the value of a label is neither text nor a number"),
    "duplicate_label": Code(HTTPStatus.UNPROCESSABLE_ENTITY, "two labels have names that differ in case alone"),
    "too_many_labels": Code(HTTPStatus.UNPROCESSABLE_ENTITY, "the collection has no room for another label"),
    "imported_vectors": Code(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "the collection holds imported vectors, which have no meshes, images or encoder",
    ),
    "no_text_tower": Code(HTTPStatus.UNPROCESSABLE_ENTITY, "the encoder of the collection has no text tower"),
    "bad_collection": Code(HTTPStatus.SERVICE_UNAVAILABLE, "the collection cannot be read or written now"),
    "collection_locked": Code(HTTPStatus.SERVICE_UNAVAILABLE, "another process is writing to the collection"),
    "disk_full": Code(HTTPStatus.SERVICE_UNAVAILABLE, "the disk of the collection is full or failing"),
    "bad_describer": Code(HTTPStatus.SERVICE_UNAVAILABLE, "the encoder differs from that of the collection"),
    "no_weights": Code(HTTPStatus.SERVICE_UNAVAILABLE, "the weights of the encoder cannot be loaded"),
    "no_backend": Code(HTTPStatus.SERVICE_UNAVAILABLE, "no render backend works on the machine of the service"),
}
"""Codes of the library whose status differs from that of their class, and the most common others."""

# Status of the other codes, by class. The first class that matches counts.
_STATUS_OF_CLASS: tuple[tuple[type[Exception], HTTPStatus], ...] = (
    (UnknownObjectError, HTTPStatus.NOT_FOUND),
    (FilterError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (LabelsError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (NoTextError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (QueryError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (MeshError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (BackendError, HTTPStatus.SERVICE_UNAVAILABLE),
    (CollectionError, HTTPStatus.SERVICE_UNAVAILABLE),
    (MvrError, HTTPStatus.SERVICE_UNAVAILABLE),
    (MvrenderError, HTTPStatus.SERVICE_UNAVAILABLE),
)


def status_of(error: MvrError | MvrenderError) -> HTTPStatus:
    """HTTP status for an error of the library: by its code, otherwise by its class."""
    code = LIBRARY_CODES.get(error.code) or SERVICE_CODES.get(error.code)
    if code is not None:
        return code.status
    return next(status for kind, status in _STATUS_OF_CLASS if isinstance(error, kind))


def codes_as_markdown() -> str:
    """A table of all codes, for the API description."""
    rows = [
        f"| `{name}` | {code.status.value} | {code.meaning} |"
        for name, code in sorted((SERVICE_CODES | LIBRARY_CODES).items())
    ]
    return "\n".join(["| code | status | meaning |", "|---|---|---|", *rows])
