"""The service behind a real socket, with the client and with raw requests."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
import trimesh
import tyro
from error_codes import raises_code
from made_meshes import SMALL, shape, write_shapes
from PIL import Image
from serving import served
from waiting import PATIENCE_S, wait_for

from mvrender.jobs import Rendered, RenderJob
from mvrender.pool import RenderPool
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.cli.serve import Options, run
from mvretrieval.client import Client
from mvretrieval.errors import CollectionError, QueryError, ServiceError, UnknownObjectError, WeightsError
from mvretrieval.ingest.index_report import IndexOptions
from mvretrieval.search.options import RerankOptions
from mvretrieval.search.query import Query, Term
from mvretrieval.service.settings import UPLOAD_LIMITS, ServiceSettings

TOKEN = "a secret"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def reading(things: Collection) -> Iterator[str]:
    """A read-only service."""
    with served(things, ServiceSettings()) as url:
        yield url


@pytest.fixture
def meshes(tmp_path: Path) -> Path:
    write_shapes(tmp_path / "meshes", range(4))
    return tmp_path / "meshes"


@pytest.fixture
def own(tmp_path: Path, meshes: Path) -> Iterator[Collection]:
    """A collection of four that may be changed, open as a service opens it."""
    with Collection.create(
        tmp_path / "own", SMALL, OpenOptions(workers=2, limits=UPLOAD_LIMITS, images_in_workers=True, concurrent=True)
    ) as collection:
        collection.add_folder(meshes)
        yield collection


def settings(**changed: Any) -> ServiceSettings:
    return replace(ServiceSettings(token=TOKEN, queue_timeout_s=PATIENCE_S), **changed)


def problem(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an error."""
    content = response.json()
    assert set(content) == {"code", "message", "error"} and content["message"]
    assert "Traceback" not in response.text
    return response.status_code, content["code"]


def test_client_and_collection_return_the_same_hits(
    things: Collection, reading: str, shapes: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(tmp_path / "grey.png")
    image = tmp_path / "ball.png"
    from mvretrieval.search.thumbnails import view_thumbnail

    view = view_thumbnail(things.session, things.session.row_id_of("shape-001.ply"), 1)
    assert view is not None
    view.save(image)
    vector = things.session.store.vector_of(things.session.row_id_of("shape-003.ply"))
    queries = [
        Query(mesh=shapes / "shape-005.ply"),
        Query(mesh=shapes / "shape-005.ply", up="+z"),
        Query(images=[image, tmp_path / "grey.png"]),
        Query(images=image, background="keep"),
        Query(id="shape-002.ply"),
        Query(vector=vector),
        Query(
            terms=[
                Term("mesh", shapes / "shape-001.ply"),
                Term("id", "shape-002.ply", -0.5),
                Term("images", [image], 0.3),
            ]
        ),
    ]
    refinement = RerankOptions(expand=2, rerank_views=4, rerank_weight=0.3)
    with Client(reading) as client:
        for query in queries:
            for where, rerank in ((None, None), ("label = 'ball'", None), (None, refinement)):
                if rerank is not None and query.vector is not None:
                    continue  # a bare vector has no views to match
                local = things.search(query, k=3, where=where, rerank=rerank)
                remote = client.search(query, k=3, where=where, rerank=rerank)
                assert [hit.id for hit in remote] == [hit.id for hit in local]
                for hit, expected in zip(
                    (hit.to_json() for hit in remote), (hit.to_json() for hit in local), strict=True
                ):
                    # Both encode the same images; results may round differently in batches of another size.
                    assert hit.pop("path") == "" and expected.pop("path")
                    assert hit["score"] == pytest.approx(expected["score"], abs=1e-4)
                    assert hit["best_view"]["view"] == expected["best_view"]["view"]
                    assert hit["metadata"] == expected["metadata"] and hit["facts"] == expected["facts"]
                    assert np.allclose(hit["view_weights"], expected["view_weights"], atol=1e-4)


def test_query_views_are_included_on_request(reading: str, shapes: Path) -> None:
    file = shapes / "shape-005.ply"
    query = {"terms": [{"mesh": file.name}, {"id": "shape-001.ply", "weight": -1}], "include_query_views": True}
    with file.open("rb") as data:
        response = httpx.post(f"{reading}/api/search/upload", data={"query": json.dumps(query)}, files={"files": data})
    mesh, known = response.json()["query"]
    assert mesh["kind"] == "mesh" and len(mesh["views"]) == 3 and mesh["views"][0].startswith("data:image/webp;base64,")
    assert known == {"label": "shape-001.ply", "kind": "id", "weight": -1.0, "views": []}


def test_objects_are_added_replaced_labeled_and_removed(own: Collection, meshes: Path, tmp_path: Path) -> None:
    (new,) = write_shapes(tmp_path / "new", [9])
    with served(own, settings()) as url, Client(url, TOKEN) as client:
        assert client.add(new, metadata={"label": "ball", "n": 9}) == new.name
        assert client.search(Query(mesh=new))[0].id == new.name
        assert client.get(new.name).metadata == {"label": "ball", "n": 9}
        with raises_code(CollectionError, "id_taken", new.name):
            client.add(new, id=new.name)
        assert client.add(new, id="another") == "another"
        # Another file of the same name is another object.
        assert client.add(new) == f"{new.name}~2" and client.remove(f"{new.name}~2") == 1

        facts = client.get("shape-000.ply").facts
        client.set_metadata("shape-000.ply", {"label": "box"})
        assert client.add(new, id="shape-000.ply", replace=True, metadata={"n": 1}) == "shape-000.ply"
        replaced = client.get("shape-000.ply")
        assert replaced.metadata == {"label": "box", "n": 1} and replaced.facts != facts
        assert client.search(Query(mesh=new), k=3)[2].score == pytest.approx(1, abs=1e-3)
        client.set_metadata("shape-000.ply", {"n": None})
        assert list(client.ids("label = 'box'")) == ["shape-000.ply"]

        assert len(client) == 6
        assert client.remove("another", "missing", "shape-000.ply") == 2
        with raises_code(UnknownObjectError, "no_such_object"):
            client.get("another")
        assert set(client.ids()) == {"shape-001.ply", "shape-002.ply", "shape-003.ply", new.name}
    # Files that were uploaded go with their objects; those that were there before stay.
    assert len(list((own.folder / "uploads").iterdir())) == 1
    assert (meshes / "shape-000.ply").exists()


def test_referenced_files_are_uploaded_with_a_mesh(own: Collection, tmp_path: Path) -> None:
    home = tmp_path / "textured"
    (home / "textures").mkdir(parents=True)
    Image.fromarray(np.full((8, 8, 3), (255, 0, 0), np.uint8)).save(home / "textures" / "red.png")
    (home / "a.mtl").write_text("newmtl m\nmap_Kd textures/red.png\n")
    (home / "a.obj").write_text(
        "mtllib a.mtl\nusemtl m\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nf 1/1 2/2 3/3\n"
    )
    with served(own, settings()) as url, Client(url, TOKEN) as client:
        client.add(home / "a.obj")
        assert client.get("a.obj").facts["textured"] and client.get("a.obj").notes == ()
        assert client.search(Query(mesh=home / "a.obj"))[0].score == pytest.approx(1, abs=1e-3)
        scene = trimesh.load(trimesh.util.wrap_as_stream(client.model("a.obj")), file_type="glb")
        (part,) = scene.geometry.values()
        assert np.asarray(part.visual.material.baseColorTexture)[0, 0, :3].tolist() == [255, 0, 0]


def test_access_with_and_without_token(things: Collection, own: Collection, reading: str) -> None:
    assert problem(httpx.delete(f"{reading}/api/objects/shape-000.ply")) == (403, "read_only")
    with served(own, settings()) as url:
        for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": f"Basic {TOKEN}"}):
            assert problem(httpx.delete(f"{url}/api/objects/shape-000.ply", headers=headers)) == (401, "bad_token")
            assert problem(httpx.post(f"{url}/api/jobs", headers=headers, json={"folder": "x"})) == (401, "bad_token")
        assert httpx.get(f"{url}/api/objects").status_code == 200
        assert httpx.delete(f"{url}/api/objects/shape-000.ply", headers=BEARER).json() == {"removed": 1}
    with served(own, settings(auth=True)) as url:
        for path in ("/api/objects", "/api/metrics", "/api/thumbnails/shape-001.ply", "/api/models/shape-001.ply"):
            assert problem(httpx.get(url + path)) == (401, "bad_token")
            assert httpx.get(url + path, headers=BEARER).status_code == 200
        assert problem(httpx.post(f"{url}/api/search", json={"terms": [{"id": "shape-001.ply"}]})) == (401, "bad_token")
        assert httpx.get(f"{url}/health").status_code == 200


def test_each_limit_has_its_own_status_and_code(own: Collection, tmp_path: Path) -> None:
    small = settings(
        max_upload_bytes=100_000,
        max_files=3,
        max_image_pixels=10_000,
        max_hits=20,
        limits=replace(UPLOAD_LIMITS, max_faces=100),
    )
    (ring,) = write_shapes(tmp_path, [3])
    dense = tmp_path / "dense.ply"
    trimesh.creation.icosphere(subdivisions=3).export(dense)
    wide = tmp_path / "wide.png"
    Image.new("RGB", (200, 100)).save(wide)
    machine = OpenOptions(workers=1, limits=small.limits, images_in_workers=True, concurrent=True)
    with Collection.open(own.folder, machine) as reader, served(reader, small) as url:

        def upload(*files: Any, **query: Any) -> tuple[int, str]:
            data = {"query": json.dumps(query)}
            return problem(httpx.post(f"{url}/api/search/upload", data=data, files=[("files", file) for file in files]))

        def of(name: str, content: bytes = b"x") -> tuple[str, bytes]:
            return name, content

        mesh = of("dense.ply", dense.read_bytes())
        assert upload(mesh, terms=[{"mesh": "dense.ply"}]) == (413, "too_large")
        assert upload(of("wide.png", wide.read_bytes()), terms=[{"images": ["wide.png"]}]) == (413, "too_many_pixels")
        assert upload(*[of(f"{i}.ply") for i in range(4)], terms=[{"mesh": "0.ply"}]) == (413, "too_many_files")
        assert upload(of("a.xyz"), terms=[{"mesh": "a.xyz"}]) == (415, "unknown_format")
        assert upload(of("a.png"), terms=[{"images": ["a.png"]}]) == (415, "unknown_image_format")
        assert upload(of("a.ply"), terms=[{"mesh": "a.ply"}])[0] == 422
        assert upload(of("a.ply"), terms=[{"mesh": "b.ply"}]) == (422, "missing_upload")
        assert upload(of("a.ply"), of("./a.ply"), terms=[{"mesh": "a.ply"}]) == (422, "duplicate_file")

        big = b"0" * 200_000
        assert problem(httpx.post(f"{url}/api/search", content=big)) == (413, "too_large")
        assert problem(httpx.post(f"{url}/api/search", content=iter([big[:100_000], big]))) == (413, "too_large")

        def post(**query: Any) -> tuple[int, str]:
            return problem(httpx.post(f"{url}/api/search", json=query))

        known = {"id": "shape-001.ply"}
        assert post(terms=[known], k=21) == (422, "too_many_hits")
        assert post(terms=[]) == (422, "bad_request")
        assert post(terms=[{"id": "missing"}]) == (404, "no_such_object")
        assert post(terms=[known], where="colour = 'red'") == (422, "no_such_column")
        assert post(terms=[{"text": "a chair"}]) == (422, "no_text_tower")
        assert post(terms=[{"id": "shape-001.ply", "weight": 0}]) == (422, "bad_request")
        assert post(terms=[{"id": "shape-001.ply", "weight": -1}]) == (422, "only_negative_terms")
        assert post(terms=[{"vector": [1.0, 2.0]}]) == (422, "bad_vector_shape")
        assert problem(httpx.get(f"{url}/nowhere")) == (404, "not_found")
        assert "/openapi.json lists" in httpx.get(f"{url}/nowhere").text and httpx.get(f"{url}/openapi.json").is_success
        assert "PUT is not allowed at '/api/search': use POST" in httpx.put(f"{url}/api/search").text
        assert ring.exists()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{'terms'", "the body is not JSON"),
        (b"[]", "'the request' must be a JSON object"),
        (b"{}", "'terms' is missing"),
        (b'{"terms": []}', "'terms' needs 1 or more entries"),
        (b'{"terms": 3}', "'terms' must be a list, not 3"),
        (b'{"terms": [{"id": "a"}], "k": "x"}', "'k' must be an integer, not \"x\""),
        (b'{"terms": [{"id": "a"}], "k": 0}', "'k' must be at least 1, not 0"),
        (b'{"terms": [{"id": "a"}], "kk": 1}', "'kk' is unknown"),
        (b'{"terms": [{"id": "a"}], "up": "up"}', "'up' must be one of '+x'"),
        (b'{"terms": [{"id": "a", "weight": 0}]}', "terms.0.weight: the weight is 0: leave the term out"),
        (b'{"terms": [{"shape": "a"}]}', "terms.0: a term has one of mesh"),
    ],
)
def test_messages_of_invalid_requests(reading: str, body: bytes, message: str) -> None:
    response = httpx.post(f"{reading}/api/search", content=body, headers={"Content-Type": "application/json"})
    assert problem(response) == (422, "bad_request")
    assert response.json()["message"].startswith(message)


def test_requests_beyond_the_queue_are_refused(own: Collection, meshes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = meshes / "shape-001.ply"
    query = {"query": json.dumps({"terms": [{"mesh": file.name}]})}
    gate, inside = threading.Event(), list[RenderJob]()
    render = RenderPool.render

    def held(pool: RenderPool, job: RenderJob) -> Rendered:
        inside.append(job)
        assert gate.wait(PATIENCE_S)
        return render(pool, job)

    def search(url: str) -> httpx.Response:
        files = {"files": (file.name, file.read_bytes())}
        return httpx.post(f"{url}/api/search/upload", data=query, files=files)

    monkeypatch.setattr(RenderPool, "render", held)
    for refusal, retry_after, crowded in (
        ((429, "queue_full"), "1", settings(max_waiting=0)),
        ((503, "queue_timeout"), "10", settings(queue_timeout_s=0.001)),
    ):
        gate.clear()
        inside.clear()
        with served(own, crowded) as url, ThreadPoolExecutor(4) as many:
            served_ones = [many.submit(search, url) for _ in range(4)]  # two for each worker
            try:
                wait_for(lambda: len(inside) == 4)
                refused = search(url)
                assert problem(refused) == refusal and refused.headers["retry-after"] == retry_after
                # A query by vector or id needs no turn.
                assert httpx.post(f"{url}/api/search", json={"terms": [{"id": "shape-001.ply"}]}).status_code == 200
            finally:
                gate.set()
            assert [each.result().status_code for each in served_ones] == [200] * 4
            assert search(url).status_code == 200


def test_concurrent_queries_return_the_same_hits(own: Collection, meshes: Path, tmp_path: Path) -> None:
    files = [*sorted(meshes.iterdir()), *write_shapes(tmp_path / "more", range(4, 12))]
    expected = {file: [(hit.id, round(hit.score, 4)) for hit in own.search(Query(mesh=file))] for file in files}
    with served(own, settings()) as url, Client(url) as client, ThreadPoolExecutor(6) as many:
        results = many.map(lambda file: client.search(Query(mesh=file)), files * 3)
        for file, hits in zip(files * 3, results, strict=True):
            assert [hit.id for hit in hits] == [name for name, _ in expected[file]]
            assert np.allclose([hit.score for hit in hits], [score for _, score in expected[file]], atol=2e-4)


def test_responses_contain_no_paths(own: Collection, meshes: Path, tmp_path: Path) -> None:
    (meshes / "bad.ply").write_text("ply")
    own.add_folder(meshes)
    evil = [("files", (name, b"solid")) for name in ("../../escaped.stl", "/etc/escaped.stl", "C:\\escaped.stl", "..")]
    with served(own, settings()) as url:
        found = [
            httpx.get(f"{url}/api/objects"),
            httpx.get(f"{url}/api/objects/shape-001.ply"),
            httpx.get(f"{url}/api/failures"),
            httpx.get(f"{url}/api/collection"),
            httpx.get(f"{url}/api/objects/missing"),
            httpx.post(f"{url}/api/search", json={"terms": [{"id": "shape-001.ply"}]}),
            httpx.post(f"{url}/api/search", json={"terms": [{"mesh": str(meshes / "shape-001.ply")}]}),
            httpx.post(f"{url}/api/search", json={"terms": [{"text": "chair"}]}),
            *[
                httpx.post(
                    f"{url}/api/search/upload",
                    data={"query": json.dumps({"terms": [{"images": ["a.png"]}]})},
                    files={"files": f},
                )
                for f in [("a.png", b"\x89PNG\r\n\x1a\n" + bytes(40))]
            ],
            *[httpx.post(f"{url}/api/objects", headers=BEARER, files=[file]) for file in evil],
        ]
        assert found[2].json()[0]["file"] == "bad.ply"
        assert found[6].status_code == 422 and found[-1].status_code == 422
        for response in (*found[:6], *found[7:]):  # the seventh repeats the path of the request
            assert str(tmp_path) not in response.text and "/tmp" not in response.text, response.text
    assert not [path for path in tmp_path.rglob("*escaped*") if not path.is_relative_to(own.folder / "uploads")]
    with served(own, settings(show_paths=True)) as url:
        assert httpx.get(f"{url}/api/objects/shape-001.ply").json()["path"] == str(meshes / "shape-001.ply")


def test_images_and_models_are_cached(own: Collection) -> None:
    with served(own, settings()) as url:
        for path, kind in (("thumbnails", "image/webp"), ("strips", "image/webp"), ("models", "model/gltf-binary")):
            first = httpx.get(f"{url}/api/{path}/shape-003.ply")
            assert first.status_code == 200 and first.headers["content-type"] == kind
            again = httpx.get(f"{url}/api/{path}/shape-003.ply", headers={"If-None-Match": first.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        assert problem(httpx.get(f"{url}/api/thumbnails/shape-003.ply?view=3")) == (404, "no_image")
        assert problem(httpx.get(f"{url}/api/thumbnails/missing")) == (404, "no_such_object")
        model = trimesh.load(trimesh.util.wrap_as_stream(first.content), file_type="glb", force="mesh")
        assert len(model.faces) == len(shape(3).faces) and np.abs(model.vertices).max() <= 1.001
        (cached,) = (own.folder / "models").iterdir()
        cached.write_bytes(b"from the cache")
        assert httpx.get(f"{url}/api/models/shape-003.ply").content == b"from the cache"


def test_model_of_a_missing_file(own: Collection, meshes: Path) -> None:
    (meshes / "shape-002.ply").unlink()
    with served(own, settings()) as url:
        assert problem(httpx.get(f"{url}/api/models/shape-002.ply")) == (404, "missing_file")
        assert httpx.get(f"{url}/api/thumbnails/shape-002.ply").status_code == 200


def test_a_job_indexes_a_folder_while_searches_run(own: Collection, tmp_path: Path) -> None:
    more = tmp_path / "more"
    write_shapes(more, range(4, 40))
    with served(own, settings(folders={"more": more})) as url, Client(url, TOKEN) as client:
        with raises_code(ServiceError, "no_such_folder", "did you mean 'more'"):
            client.add_folder("moer")
        with raises_code(ServiceError, "unsupported_option", "labels"):
            client.add_folder("more", options=IndexOptions(labels=tmp_path / "labels.csv"))
        started = httpx.post(f"{url}/api/jobs", headers=BEARER, json={"folder": "more"})
        job_id = started.json()["id"]
        assert started.status_code == 202
        searches = 0
        while (job := httpx.get(f"{url}/api/jobs/{job_id}", headers=BEARER).json())["state"] in ("waiting", "running"):
            assert client.search(Query(id="shape-001.ply"), k=1)
            assert client.search(Query(mesh=more / "shape-005.ply"), k=1)
            searches += 1
        assert (job["state"], job["message"], searches > 0) == ("done", "36 added", True)
        assert len(client) == 40
        assert client.add_folder("more").unchanged == 36


def test_a_stopped_job_keeps_its_objects(own: Collection, tmp_path: Path) -> None:
    more = tmp_path / "more"
    write_shapes(more, range(4, 200))
    with served(own, settings(folders={"more": more})) as url, httpx.Client(base_url=url, headers=BEARER) as http:
        job_id = http.post("/api/jobs", json={"folder": "more"}).json()["id"]
        waiting = http.post("/api/jobs", json={"folder": "more"}).json()["id"]
        assert problem(http.delete("/api/objects/shape-001.ply")) == (409, "indexing_in_progress")
        assert http.delete(f"/api/jobs/{waiting}").json()["state"] == "stopped"
        wait_for(lambda: http.get(f"/api/jobs/{job_id}").json()["done"] >= 20)
        http.delete(f"/api/jobs/{job_id}")
        wait_for(lambda: http.get(f"/api/jobs/{job_id}").json()["state"] != "running")
        job = http.get(f"/api/jobs/{job_id}").json()
        assert job["state"] == "stopped" and re.match(r"stopped after \d+ of 196 files", job["message"])
        count = http.get("/api/collection").json()["objects"]
        assert 4 < count < 200
        assert http.delete("/api/objects/shape-001.ply").status_code == 200
        assert http.get("/api/jobs/77").status_code == 404
    assert len(own) == count - 1


def test_what_was_acknowledged_survives_a_stop(tmp_path: Path, meshes: Path) -> None:
    folder = tmp_path / "c"
    with Collection.create(folder, SMALL, OpenOptions(workers=1)) as collection:
        collection.add_folder(meshes)
    command = [sys.executable, "-m", "mvretrieval", "serve", str(folder), "--port", "0", "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "MVR_TOKEN": TOKEN})
    assert process.stderr is not None
    found = re.search(r"at (http://\S+)", process.stderr.readline())
    assert found, process.stderr.read()
    new = write_shapes(tmp_path / "new", range(10, 40))
    added: list[Any] = []
    refused: list[Any] = []
    with Client(found[1], TOKEN) as client:
        for file in new:
            if len(added) == 5:
                process.send_signal(signal.SIGTERM)
            try:
                added.append(client.add(file))
            except ServiceError as error:
                refused.append(str(error))
                break
    assert len(added) >= 5, refused  # otherwise it was not told to stop
    assert process.wait(PATIENCE_S) == 0
    assert process.stderr.read() == ""
    assert not refused or "cannot be reached" in refused[0] or "is stopping" in refused[0]
    with Collection.open(folder) as collection:
        assert {collection.get(name).id for name in added} == set(added)
        assert len(list((folder / "uploads").iterdir())) == len(added)
        assert collection.search(Query(mesh=new[0]))[0].id == new[0].name


def test_uploads_without_an_object_are_deleted_after_a_week(own: Collection, meshes: Path) -> None:
    with served(own, settings()) as url, Client(url, TOKEN) as client:
        client.add(meshes / "shape-001.ply", id="uploaded")
    orphan = own.folder / "uploads" / "0123456789abcdef"
    shutil.copytree(meshes, orphan)
    with served(own, settings()):
        assert orphan.exists()  # it may belong to a backup of the database
    os.utime(orphan, (time.time() - 8 * 24 * 3600,) * 2)
    with served(own, settings()) as url, Client(url, TOKEN) as client:
        assert not orphan.exists()
        assert client.model("uploaded")


def test_uploads_are_found_after_the_collection_moved(own: Collection, meshes: Path, tmp_path: Path) -> None:
    with served(own, settings()) as url, Client(url, TOKEN) as client:
        for name in ("mine", "other"):
            client.add(meshes / "shape-001.ply", id=name)
    own.close()
    moved = tmp_path / "elsewhere" / "things"
    moved.parent.mkdir()
    shutil.move(own.folder, moved)
    options = OpenOptions(workers=1, limits=UPLOAD_LIMITS, concurrent=True)
    with (
        Collection.open(moved, options) as collection,
        served(collection, settings()) as url,
        Client(url, TOKEN) as client,
    ):
        shutil.rmtree(moved / "models", ignore_errors=True)
        assert client.model("mine")
        assert Path(collection.get("mine").path).is_relative_to(moved)
        client.remove("mine")
        assert len(list((moved / "uploads").iterdir())) == 1


def test_a_stalled_body_times_out(own: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    fail_after = anyio.fail_after

    def counted(limit_s: float) -> Any:
        limits.append(limit_s)
        return fail_after(limit_s)

    monkeypatch.setattr(anyio, "fail_after", counted)
    request = b"POST /api/search HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    body = [b'{"terms": ', b'[{"id": ', b'"shape-001.ply"', b"}]}"]
    with served(own, settings()) as url:
        address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        monkeypatch.setattr("mvretrieval.service.limits._BODY_PAUSE_S", PATIENCE_S)
        with socket.create_connection(address, timeout=PATIENCE_S) as raw:
            raw.sendall(request % sum(map(len, body)))
            for n, part in enumerate(body, 1):
                wait_for(lambda n=n: len(limits) == n)  # type: ignore[misc]  # the service waits for this part, by a limit of its own
                raw.sendall(part)
            assert raw.makefile("rb").readline().startswith(b"HTTP/1.1 200")
        assert limits == [PATIENCE_S] * len(body)
        monkeypatch.setattr("mvretrieval.service.limits._BODY_PAUSE_S", 0.3)
        with socket.create_connection(address, timeout=PATIENCE_S) as raw:
            raw.sendall(request % 99 + b"{")
            response = raw.makefile("rb").read()  # to the end: the connection is closed
    assert response.startswith(b"HTTP/1.1 408") and b"body_timeout" in response


def test_cross_site_requests_are_refused(reading: str) -> None:
    query = {"terms": [{"id": "shape-001.ply"}]}

    def search_from(site: str) -> httpx.Response:
        return httpx.post(f"{reading}/api/search", headers={"Sec-Fetch-Site": site}, json=query)

    assert problem(search_from("cross-site")) == (403, "cross_site")
    assert [search_from(site).status_code for site in ("same-origin", "same-site", "none")] == [200] * 3
    # A link from anywhere leads to the page, as it should.
    assert httpx.get(reading, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_unknown_hosts_are_refused(own: Collection) -> None:
    """DNS rebinding: a website whose name resolves to this machine could use the service through a browser here."""
    with served(own, settings(hosts=frozenset({"127.0.0.1", "::1", "things.example"}))) as url:
        for path in ("/", "/health", "/api/objects", "/page/app.js"):
            assert httpx.get(url + path).status_code == 200
            for host in ("things.example", "Things.Example:80", "[::1]:8000"):
                assert httpx.get(url + path, headers={"Host": host}).status_code == 200
            for host in ("evil.example", "127.0.0.1.evil.example:8000", "evil.example:x", "[", ""):
                assert problem(httpx.get(url + path, headers={"Host": host})) == (421, "unknown_host")


def test_prometheus_metrics(own: Collection) -> None:
    with served(own, settings()) as url:
        wait_for(lambda: httpx.get(f"{url}/ready").status_code == 200)
        for name in ("shape-001.ply", "shape-002.ply", "missing"):
            httpx.get(f"{url}/api/objects/{name}")
        # A request is counted once its response has been sent, possibly after the next one.
        series = 'mvr_requests_total{method="GET",route="/api/objects/{object_id:path}",status='
        expected = f'{series}"200"}} 2.0', f'{series}"404"}} 1.0'
        wait_for(lambda: all(line in httpx.get(f"{url}/api/metrics").text for line in expected))
        text = httpx.get(f"{url}/api/metrics").text
    assert "mvr_objects 4.0" in text and "mvr_ready 1.0" in text


def test_missing_encoder_weights_are_reported_and_ids_still_work(own: Collection, tmp_path: Path, meshes: Path) -> None:
    folder = tmp_path / "copy"
    own.session.save_index()
    shutil.copytree(own.folder, folder)
    with Collection.open(folder) as collection:
        moved = replace(collection.describer.config, encoder="image_only:mobilenet_v2@/nowhere.safetensors").to_json()
        collection.session.store.set_meta("describer", moved)
    with (
        Collection.open(folder, OpenOptions(workers=1, concurrent=True)) as collection,
        served(collection, ServiceSettings()) as url,
    ):
        wait_for(lambda: "being loaded" not in httpx.get(f"{url}/ready").text)
        assert problem(httpx.get(f"{url}/ready")) == (503, "not_ready")
        assert httpx.post(f"{url}/api/search", json={"terms": [{"id": "shape-001.ply"}]}).status_code == 200
        assert problem(httpx.post(f"{url}/api/search", json={"terms": [{"text": "a chair"}]})) == (
            503,
            "missing_checkpoint",
        )
        with Client(url) as client, raises_code(WeightsError, "missing_checkpoint", "nowhere"):
            client.search(Query(mesh=meshes / "shape-001.ply"))


def test_unreachable_service_and_bad_url() -> None:
    with raises_code(ServiceError, "bad_url", "127.0.0.1:8000"):
        Client("127.0.0.1:8000")
    with Client("http://127.0.0.1:9") as client, raises_code(ServiceError, "unreachable", "mvr serve"):
        client.info()


def test_every_operation_matches_the_api_description(own: Collection, meshes: Path) -> None:
    """The edges of every parameter; `python -m benchmarks schema` tries thousands of cases."""
    pytest.importorskip("schemathesis")
    configuration = Path(__file__).parents[2] / "benchmarks" / "schemathesis.toml"
    with served(own, settings(folders={"meshes": meshes})) as url:
        command = [
            sys.executable,
            "-m",
            "schemathesis.cli",
            "--config-file",
            str(configuration),
            "run",
            f"{url}/openapi.json",
        ]
        options = ["-H", f"Authorization: {BEARER['Authorization']}", "--phases", "coverage"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, cwd=own.folder.parent)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) generated, \1 passed", done.stdout)[1]) > 100  # type: ignore[index]


def test_hits_have_a_confidence_after_calibration(things: Collection, shapes: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    things.session.save_index()
    shutil.copytree(things.folder, tmp_path / "calibrated")
    with (
        Collection.open(tmp_path / "calibrated", OpenOptions(workers=1, concurrent=True)) as calibrated,
        served(calibrated, ServiceSettings()) as url,
    ):
        query = Query(mesh=shapes / "shape-004.ply")
        with Client(url) as client:
            assert client.info()["calibration"] is None and client.search(query)[0].confidence is None
            with raises_code(QueryError, "no_confidence", "mvr calibrate"):
                client.search(query, min_confidence=0.5)
            calibrated.calibrate("label")
            assert "same 'label'" in client.info()["calibration"]
            confidences = [hit.confidence for hit in client.search(query)]
            assert confidences == pytest.approx([hit.confidence for hit in calibrated.search(query)], abs=1e-3)
            assert len(client.search(query, min_confidence=confidences[1])) >= 2
            where = f"id = '{client.search(query, k=12)[-1].id}'"  # the least similar object
            assert client.search(query, where=where, min_confidence=1.0) == []
        request = {"terms": [{"id": "shape-004.ply"}], "where": where, "min_confidence": 1.0}
        response = httpx.post(f"{url}/api/search", json=request).json()
        assert response["hits"] == [] and response["no_match"]


@pytest.mark.parametrize(
    ("arguments", "error", "value"),
    [
        (["--auth"], "token_required", "--auth"),
        (["--port", "99999"], "bad_port", "99999"),
        (["--host", "nowhere.invalid"], "cannot_listen", "nowhere.invalid"),
        (["--folder", "x=."], "token_required", "--folder"),
        (["--token", "a", "--folder", "x"], "bad_folder_option", "'x'"),
        (["--token", "a", "--folder", "x=/nowhere"], "missing_folder", "/nowhere"),
        (["--max-upload-mb", "0"], "bad_limit", "max_upload_bytes"),
        (["--max-seconds", "0"], "bad_limit", "time limit"),
    ],
)
def test_invalid_options_of_mvr_serve(
    things: Collection,
    arguments: list[str],
    error: str,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MVR_TOKEN", raising=False)
    options = tyro.cli(Options, args=[str(things.folder), "--workers", "1", *arguments])
    with raises_code(ServiceError, error, value):
        run(options)


@pytest.mark.parametrize("spelling", ["dots", "symlink", "moved"])
def test_uploads_survive_another_path_of_the_collection(
    own: Collection, meshes: Path, tmp_path: Path, spelling: str
) -> None:
    with served(own, settings()) as url, Client(url, TOKEN) as client:
        client.add(meshes / "shape-001.ply", id="uploaded")
    own.session.save_index()
    (tmp_path / "sub").mkdir()
    name = own.folder.name
    folder = tmp_path / {"dots": f"sub/../{name}", "symlink": "link", "moved": "moved"}[spelling]
    if spelling == "symlink":
        folder.symlink_to(own.folder)
    if spelling == "moved":
        shutil.copytree(own.folder, folder)
    own.session._writer.release()
    with (
        Collection.open(folder, OpenOptions(workers=1, concurrent=True), write=True) as again,
        served(again, settings()) as url,
    ):
        assert len(list((again.folder / "uploads").iterdir())) == 1
        with Client(url, TOKEN) as client:
            assert client.remove("uploaded") == 1
        assert list((again.folder / "uploads").iterdir()) == []


def test_expensive_queries_are_refused(own: Collection, meshes: Path) -> None:
    file = meshes / "shape-001.ply"
    with served(own, settings()) as url:

        def search(*terms: Any) -> tuple[int, str]:
            files = {"files": (file.name, file.read_bytes())}
            return problem(
                httpx.post(f"{url}/api/search/upload", data={"query": json.dumps({"terms": terms})}, files=files)
            )

        assert search({"mesh": file.name}, {"mesh": file.name}) == (422, "duplicate_file")
        assert search({"images": [file.name] * 64}) == (422, "duplicate_file")
        assert search(*({"mesh": f"{n}.ply"} for n in range(5))) == (422, "too_many_meshes")
        large = json.dumps({"terms": [[]] * 2_000_000})
        json_type = {"Content-Type": "application/json"}
        assert problem(httpx.post(f"{url}/api/search", content=large, headers=json_type)) == (413, "too_large")


def test_waiting_writers_do_not_block_searches(own: Collection, meshes: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.ply"
    trimesh.creation.icosphere(subdivisions=7).export(slow)
    with served(own, settings()) as url, Client(url, TOKEN) as client, ThreadPoolExecutor(8) as many:
        client.search(Query(mesh=meshes / "shape-001.ply"))
        adding = [many.submit(client.add, slow, f"slow {n}") for n in range(8)]
        wait_for(lambda: len(client) > 4)
        client.search(Query(mesh=meshes / "shape-001.ply"))
        assert sum(added.done() for added in adding) < 8
        for added in adding:
            added.result()


def test_invalid_ids_and_labels_are_refused(own: Collection, meshes: Path) -> None:
    file = {"files": ("a.ply", (meshes / "shape-001.ply").read_bytes())}
    with served(own, settings()) as url, httpx.Client(base_url=url, headers=BEARER) as http:
        for name in ("a\nb", "../a", "a/./b", " ", "a//b"):
            assert problem(http.post("/api/objects", data={"id": name}, files=file)) == (422, "bad_id")
        assert problem(http.patch("/api/objects/shape-001.ply", json={"metadata": {"Q": 1, "q": 2}})) == (
            422,
            "duplicate_label",
        )
        given = {"metadata": '{"x": 1e999}'}
        assert problem(http.post("/api/objects", data=given, files=file)) == (422, "bad_request")
        assert http.get("/api/collection").json()["objects"] == 4


def test_filters_and_errors_reveal_no_paths(own: Collection, tmp_path: Path) -> None:
    gltf = json.dumps({"asset": {"version": "2.0"}, "buffers": [{"uri": "x.bin", "byteLength": 4}], "meshes": [],
                       "bufferViews": [{"buffer": 0, "byteLength": 4}]})  # fmt: skip
    with served(own, settings()) as url:
        assert problem(httpx.get(f"{url}/api/objects", params={"where": "path like '/%'"})) == (422, "no_such_column")
        request = {"terms": [{"id": "shape-001.ply"}], "where": "not path like '/a%'"}
        assert problem(httpx.post(f"{url}/api/search", json=request)) == (422, "no_such_column")
        query = {"query": json.dumps({"terms": [{"mesh": "a.gltf"}]})}
        response = httpx.post(f"{url}/api/search/upload", data=query, files={"files": ("a.gltf", gltf.encode())})
        assert response.status_code == 422 and "/tmp" not in response.text and str(tmp_path) not in response.text
