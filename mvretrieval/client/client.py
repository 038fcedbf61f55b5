"""The verbs of `Collection` over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace as changed
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, overload
from urllib.parse import quote

import httpx

from mvrender.errors import MeshError
from mvrender.mesh import UpAxis
from mvretrieval.client.errors import error_of
from mvretrieval.client.files import RequestFiles, term_to_json
from mvretrieval.client.records import (
    RemoteJob,
    RemoteObject,
    hit_from_json,
    job_from_json,
    object_from_json,
    without_none,
)
from mvretrieval.errors import QueryError, ServiceError, UnknownObjectError
from mvretrieval.ingest.index_report import IndexOptions, IndexReport
from mvretrieval.search.hits import Hit
from mvretrieval.search.options import RerankOptions, SearchOptions
from mvretrieval.search.query import Query

_TIMEOUT_S = 120.0
_POLL_INTERVAL_S = 0.5
_PAGE_SIZE = 1000
# Options of indexing that refer to this machine, and cannot be sent.
_LOCAL_OPTIONS = ("labels", "fit_where", "limits")


class Client:
    """A collection on a service, with the verbs of `Collection`.

    Errors have the class and the `code` of the same error in Python; errors of the service itself are `ServiceError`.

    Example:
        with Client("http://127.0.0.1:8000", token="...") as things:
            for hit in things.search(Query(mesh="chair.glb"), k=5):
                print(hit.rank, hit.id, hit.score)
            things.add("stool.glb", metadata={"label": "stool"})
    """

    def __init__(self, url: str, token: str | None = None, timeout_s: float = _TIMEOUT_S) -> None:
        """Nothing is requested yet.

        Args:
            url: of the service.
            token: that the service was started with; needed for changes.
            timeout_s: of one request.

        Raises:
            ServiceError: the URL is not one of HTTP.
        """
        if not url.startswith(("http://", "https://")):
            raise ServiceError(f"'{url}' is not a URL: start it with http:// or https://", code="bad_url")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout_s)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # -- reading --------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return int(self.info()["objects"])

    def info(self) -> dict[str, Any]:
        """Number of objects, encoder, whether it has a text tower, columns for filters, mesh formats and more."""
        return self._json("GET", "/api/collection")

    def ids(self, where: str | None = None) -> Iterator[str]:
        """Ids of all objects, or of those that a filter keeps, in the order in which they were added."""
        return (found.id for found in self.objects(where))

    def objects(self, where: str | None = None) -> Iterator[RemoteObject]:
        """All objects, or those that a filter keeps, in the order in which they were added."""
        after: int | None = 0
        while after is not None:
            params = without_none({"where": where, "after": after, "limit": _PAGE_SIZE})
            page = self._json("GET", "/api/objects", params=params)
            yield from map(object_from_json, page["objects"])
            after = page["next"]

    def get(self, object_id: str) -> RemoteObject:
        """One object: path, facts, notes and labels.

        Raises:
            UnknownObjectError: no object has this id.
        """
        return object_from_json(self._json("GET", _path("objects", object_id)))

    def failures(self) -> list[tuple[str, str, str]]:
        """(file, code, message) of the files that could not be indexed."""
        return [
            (failure["file"], failure["code"], failure["message"])
            for failure in self._fetch("GET", "/api/failures").json()
        ]

    def thumbnail(self, object_id: str, view: int = 0) -> bytes:
        """Thumbnail of one view of an object, as WebP."""
        return self._fetch("GET", _path("thumbnails", object_id), params={"view": view}).content

    def model(self, object_id: str) -> bytes:
        """Mesh of an object as GLB; large meshes are decimated."""
        return self._fetch("GET", _path("models", object_id)).content

    def search(
        self,
        query: Query,
        options: SearchOptions | None = None,
        *,
        k: int | None = None,
        where: str | None = None,
        rerank: RerankOptions | None = None,
        min_confidence: float | None = None,
    ) -> list[Hit]:
        """Search for a query (see `Collection.search`).

        Files of the query are on this machine and are uploaded. The path of a hit is empty unless the service shows paths.

        Raises:
            QueryError: the query is empty, a term cannot be read, or hits have no confidence to filter by.
            FilterError: the filter cannot be parsed.
            UnknownObjectError: a term names an object that does not exist.
            ServiceError: the service refuses the request, or cannot be reached.
        """
        given = {"k": k, "where": where, "rerank": rerank, "min_confidence": min_confidence}
        options = changed(options or SearchOptions(), **without_none(given))
        with ExitStack() as opened:
            files = RequestFiles(opened, query.up)
            request = {
                "terms": _terms_to_json(query, files),
                "k": options.k,
                "where": options.where,
                "min_confidence": options.min_confidence,
                "expand": options.rerank.expand,
                "expand_alpha": options.rerank.expand_alpha,
                "rerank_views": options.rerank.rerank_views,
                "rerank_weight": options.rerank.rerank_weight,
                "nprobe": options.index.nprobe,
                "ef_search": options.index.ef_search,
                "up": query.up,
                "background": query.background,
            }
            if files.parts:
                data = {"query": json.dumps(request)}
                response = self._json("POST", "/api/search/upload", data=data, files=files.parts)
            else:
                response = self._json("POST", "/api/search", json=request)
        return [hit_from_json(hit) for hit in response["hits"]]

    # -- writing --------------------------------------------------------------------------------------------------

    def add(
        self,
        path: str | Path,
        id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        up: UpAxis | None = None,
        replace: bool = False,
    ) -> str:
        """Upload one mesh with its materials, buffers and textures. It can be found at once.

        Args:
            path: mesh file of this machine.
            id: of the object; by default the name of the file, with ~2 if it is taken.
            metadata: labels.
            up: up axis of the file; the format's convention by default.
            replace: if an object has this id, replace its mesh; it keeps its other labels. Otherwise the object is added.

        Returns:
            The object's id.

        Raises:
            MeshError: the file cannot be rendered.
            ServiceError: the service refuses the request, or cannot be reached.
        """
        form = {"metadata": None if metadata is None else json.dumps(dict(metadata)), "up": up}
        with ExitStack() as opened:
            files = RequestFiles(opened, up)
            files.add_mesh(Path(path), "")
            if replace:
                target = _path("objects", id or Path(path).name)
                response = self._json("PUT", target, data=without_none(form), files=files.parts)
            else:
                response = self._json("POST", "/api/objects", data=without_none({**form, "id": id}), files=files.parts)
        return str(response["id"])

    def set_metadata(self, object_id: str, values: Mapping[str, Any]) -> None:
        """Set labels of an object; None removes one.

        Raises:
            LabelsError: a label cannot be stored.
            UnknownObjectError: no object has this id.
        """
        self._json("PATCH", _path("objects", object_id), json={"metadata": dict(values)})

    def remove(self, *ids: str) -> int:
        """Remove objects. They can no longer be found at once; files that were not uploaded stay.

        Returns:
            How many objects there were.
        """
        count = 0
        for object_id in ids:
            try:
                count += int(self._json("DELETE", _path("objects", object_id))["removed"])
            except UnknownObjectError:
                continue
        return count

    @overload
    def add_folder(
        self, folder: str, *, options: IndexOptions | None = None, wait: Literal[True] = True
    ) -> IndexReport: ...

    @overload
    def add_folder(self, folder: str, *, options: IndexOptions | None = None, wait: Literal[False]) -> RemoteJob: ...

    def add_folder(
        self, folder: str, *, options: IndexOptions | None = None, wait: bool = True
    ) -> IndexReport | RemoteJob:
        """Add every mesh in a folder of the service; files that are stored and unchanged are skipped.

        Args:
            folder: its name, as in `mvr serve --folder NAME=PATH`.
            options: `up`, `retry`, `prune` and `progress`.
            wait: return the report when the run is done; otherwise return the job at once.

        Raises:
            ServiceError: the service has no such folder, an option cannot be sent, or the run failed or was stopped.
        """
        options = options or IndexOptions()
        for name in _LOCAL_OPTIONS:
            if getattr(options, name) is not None:
                raise ServiceError(
                    f"a service takes no option {name}: index the folder on its machine with 'mvr index'",
                    code="unsupported_option",
                )
        body = {"folder": folder, "retry": options.retry, "prune": options.prune, "up": options.up}
        job = job_from_json(self._json("POST", "/api/jobs", json=body))
        if not wait:
            return job
        while not job.is_over:
            time.sleep(_POLL_INTERVAL_S)
            job = self.job(job.id)
            if options.progress is not None:
                options.progress(job.done, job.total)
        if job.report is None:
            raise ServiceError(f"indexing {folder}: {job.message}", code=job.code or "job_stopped")
        return job.report

    def job(self, job_id: int) -> RemoteJob:
        """State and progress of a job.

        Raises:
            ServiceError: there is no such job.
        """
        return job_from_json(self._json("GET", f"/api/jobs/{job_id}"))

    def stop_job(self, job_id: int) -> RemoteJob:
        """Stop a job. What it has indexed stays.

        Raises:
            ServiceError: there is no such job.
        """
        return job_from_json(self._json("DELETE", f"/api/jobs/{job_id}"))

    # -- requests -------------------------------------------------------------------------------------------------

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        content: dict[str, Any] = self._fetch(method, path, **options).json()
        return content

    def _fetch(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise ServiceError(
                f"{self._http.base_url} cannot be reached ({error}): check that 'mvr serve' runs there",
                code="unreachable",
            ) from error
        if not response.is_success:
            raise error_of(response)
        return response


def _path(kind: str, object_id: str) -> str:
    return f"/api/{kind}/{quote(object_id)}"


def _terms_to_json(query: Query, files: RequestFiles) -> list[dict[str, Any]]:
    terms = []
    for i, term in enumerate(query.all_terms()):
        try:
            terms.append(term_to_json(term, i, files))
        except MeshError as error:
            raise QueryError(error.message, code=error.code) from error
    return terms
