"""A service of `mvr serve`, asked from Python as a collection is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import numpy as np

from mvrender.errors import MeshError
from mvrender.loading import load
from mvrender.mesh import UpAxis
from mvretrieval.errors import ServiceError, UnknownObjectError
from mvretrieval.search.hits import Hit
from mvretrieval.search.options import RerankOptions
from mvretrieval.search.query import Query, Term

try:
    import httpx
except ModuleNotFoundError as error:
    raise ServiceError("asking a service needs httpx: pip install 'mvretrieval[client]'") from error

_NAMES_OTHERS = {".obj", ".gltf", ".dae"}
_SECONDS = 120.0
_PAUSE_SECONDS = 0.5


class Client:
    """A collection that a service serves.

    Example:
        with Client("http://127.0.0.1:8000", token="...") as things:
            for hit in things.search(Query(mesh="chair.glb"), k=5):
                print(hit.rank, hit.id, hit.score)
            things.add("stool.glb", metadata={"label": "stool"})
    """

    def __init__(self, url: str, token: str | None = None, timeout_seconds: float = _SECONDS) -> None:
        """Nothing is asked yet.

        Args:
            url: of the service.
            token: what it was started with; needed to change objects.
            timeout_seconds: for one request.

        Raises:
            ServiceError: the address is none.
        """
        if not url.startswith(("http://", "https://")):
            raise ServiceError(f"the address of a service begins with http:// or https://, not '{url}'")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout_seconds)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def __len__(self) -> int:
        """Number of objects."""
        return int(self.about()["objects"])

    def about(self) -> dict[str, Any]:
        """What is served: objects, encoder, whether it reads words, columns of filters, formats."""
        return self._ask("GET", "/api/collection")

    def search(
        self,
        query: Query,
        k: int = 10,
        where: str | None = None,
        rerank: RerankOptions | None = None,
        min_confidence: float | None = None,
    ) -> list[Hit]:
        """As `Collection.search`.

        Paths are files of this machine, which are sent along. A hit's path is empty unless the service tells paths.

        Raises:
            QueryError: an empty question.
            UnknownObjectError: there is no such object.
            ServiceError: the service refuses, with its reason, or cannot be reached.
        """
        rerank = rerank or RerankOptions()
        with ExitStack() as opened:
            files = _Files(opened, query.up)
            request = {
                "terms": [_term(term, i, files) for i, term in enumerate(query.all_terms())],
                "k": k,
                "where": where,
                "min_confidence": min_confidence,
                "expand": rerank.expand,
                "match_views": rerank.rerank_views,
                "match_weight": rerank.rerank_weight,
                "up": query.up,
                "background": query.background,
            }
            if files.parts:
                answer = self._ask("POST", "/api/search/upload", data={"query": json.dumps(request)}, files=files.parts)
            else:
                answer = self._ask("POST", "/api/search", json=request)
        return [_hit(plain) for plain in answer["hits"]]

    def add(
        self,
        path: str | Path,
        id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        up: UpAxis | None = None,
        replace: bool = False,
    ) -> str:
        """Send one mesh, with the files that it names. Findable at once. Returns the object's id.

        Args:
            path: mesh file of this machine.
            id: of the object; the file's name by default.
            metadata: labels.
            up: axis that is up in the file; the format's convention by default.
            replace: give the object `id` this mesh; it keeps its other labels.

        Raises:
            ServiceError: the service refuses, with its reason, or cannot be reached.
            UnknownObjectError: there is nothing to replace.
        """
        given = {"metadata": None if metadata is None else json.dumps(dict(metadata)), "up": up}
        with ExitStack() as opened:
            files = _Files(opened, up)
            files.add_mesh(Path(path), "")
            if replace:
                target = _place("objects", id or Path(path).name)
                answer = self._ask("PUT", target, data=_given(given), files=files.parts)
            else:
                answer = self._ask("POST", "/api/objects", data=_given({**given, "id": id}), files=files.parts)
        return str(answer["id"])

    def remove(self, *ids: str) -> int:
        """Remove objects; returns how many there were."""
        count = 0
        for object_id in ids:
            try:
                count += int(self._ask("DELETE", _place("objects", object_id))["removed"])
            except UnknownObjectError:
                continue
        return count

    def get(self, object_id: str) -> dict[str, Any]:
        """An object's labels (`metadata`), facts and notes."""
        return self._ask("GET", _place("objects", object_id))

    def objects(self, where: str | None = None) -> Iterator[dict[str, Any]]:
        """All objects that a filter keeps, in the order in which they were added."""
        after: int | None = 0
        while after is not None:
            page = self._ask("GET", "/api/objects", params=_given({"where": where, "after": after, "limit": 1000}))
            yield from page["objects"]
            after = page["next"]

    def set_metadata(self, object_id: str, values: Mapping[str, Any]) -> None:
        """Set labels of an object; None takes one away."""
        self._ask("PATCH", _place("objects", object_id), json={"metadata": dict(values)})

    def thumbnail(self, object_id: str, view: int = 0) -> bytes:
        """A small picture of one view of an object, as WebP."""
        return self._fetch("GET", _place("thumbnails", object_id), params={"view": view}).content

    def model(self, object_id: str) -> bytes:
        """An object's mesh as GLB, decimated if it is large."""
        return self._fetch("GET", _place("models", object_id)).content

    def index(self, folder: str, retry: bool = False, prune: bool = False) -> dict[str, Any]:
        """Index a folder that the service knows by that name, and wait until it is done. Returns the job.

        Raises:
            ServiceError: there is no such folder, or the job failed.
        """
        job = self._ask("POST", "/api/jobs", json={"folder": folder, "retry": retry, "prune": prune})
        while job["state"] in ("waiting", "running"):
            time.sleep(_PAUSE_SECONDS)
            job = self._ask("GET", f"/api/jobs/{job['number']}")
        if job["state"] == "failed":
            raise ServiceError(f"indexing {folder} failed: {job['message']}")
        return job

    def _ask(self, method: str, path: str, **rest: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._fetch(method, path, **rest).json()
        return answer

    def _fetch(self, method: str, path: str, **rest: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **rest)
        except httpx.HTTPError as error:
            raise ServiceError(
                f"{self._http.base_url} cannot be reached ({error}): does 'mvr serve' run there?"
            ) from error
        if answer.is_success:
            return answer
        code, message = _problem(answer)
        if code == "no_such_object":
            raise UnknownObjectError(message)
        if code == "token":
            raise ServiceError(f"{self._http.base_url} asks for its token: Client(url, token=...)")
        raise ServiceError(f"{message} ({answer.status_code} {code})")


class _Files:
    """Files of a request, under names of their own; closed with the stack."""

    def __init__(self, opened: ExitStack, up: UpAxis | None) -> None:
        self._opened = opened
        self._up = up
        self.parts: list[tuple[str, Any]] = []

    def add(self, path: Path, name: str) -> str:
        try:
            self.parts.append(("files", (name, self._opened.enter_context(path.open("rb")))))
        except OSError as error:
            raise ServiceError(f"{path} cannot be read: {error.strerror}") from error
        return name

    def add_mesh(self, path: Path, place: str) -> str:
        """The mesh first, then what it names in its own folder."""
        name = self.add(path, f"{place}{path.name}")
        if path.suffix.lower() in _NAMES_OTHERS:
            home = path.parent.resolve()
            for reference in _references(path, self._up):
                if reference.is_relative_to(home):
                    self.add(reference, f"{place}{reference.relative_to(home).as_posix()}")
        return name


def _references(path: Path, up: UpAxis | None) -> Sequence[Path]:
    try:
        return [Path(name) for name in load(path, up=up).references]
    except MeshError:
        return []  # the service says what is wrong with it, as with any other


def _term(term: Term, number: int, files: _Files) -> dict[str, Any]:
    """A term as the service reads it; what it names is sent along."""
    value = term.value
    if term.kind == "mesh":
        value = files.add_mesh(Path(value), f"{number}/")
    elif term.kind == "images":
        value = [files.add(Path(path), f"{number}/{i}/{Path(path).name}") for i, path in enumerate(value)]
    elif term.kind == "vector":
        value = np.asarray(value, np.float64).ravel().tolist()
    return {term.kind: value, "weight": term.weight}


def _hit(plain: Mapping[str, Any]) -> Hit:
    """What `Hit.to_json` made."""
    return Hit(
        rank=plain["rank"],
        id=plain["id"],
        path=plain["path"] or "",
        score=plain["score"],
        best_view=_given(plain["best_view"]),
        view_weights=np.array(plain["view_weights"], np.float32),
        metadata=plain["metadata"],
        facts=plain["facts"],
        parts=tuple(plain["parts"]),
        matches=tuple(plain["matches"] or ()),
        confidence=plain["confidence"],
    )


def _problem(answer: httpx.Response) -> tuple[str, str]:
    try:
        told = answer.json()
        return told["code"], told["message"]
    except (ValueError, KeyError, TypeError):
        return "unknown", answer.text[:200] or answer.reason_phrase


def _place(kind: str, object_id: str) -> str:
    return f"/api/{kind}/{quote(object_id)}"


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
