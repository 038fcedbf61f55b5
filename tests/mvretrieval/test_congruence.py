"""`Client` and `Collection` have the same verbs, with the same arguments, results and errors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from error_codes import raises_code
from made_meshes import SMALL, write_shapes
from PIL import Image
from serving import served

from mvrender.errors import MeshError
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.client import Client, RemoteObject
from mvretrieval.errors import (
    CollectionError,
    FilterError,
    LabelsError,
    NoTextError,
    QueryError,
    UnknownObjectError,
)
from mvretrieval.ingest.index_report import IndexOptions
from mvretrieval.search.options import RerankOptions, SearchOptions
from mvretrieval.search.query import Query, Term
from mvretrieval.service.settings import ServiceSettings

TOKEN = "secret"


@pytest.fixture(scope="module")
def meshes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shapes and a file without faces."""
    folder = tmp_path_factory.mktemp("meshes")
    write_shapes(folder, range(6))
    (folder / "empty.obj").write_text("# nothing\n")
    return folder


@pytest.fixture(scope="module")
def extra(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Shapes that are not in the folder."""
    return write_shapes(tmp_path_factory.mktemp("extra"), range(6, 12))


class Things:
    """A collection of its own, as `Collection` or through a `Client`."""

    def __init__(self, verbs: Collection | Client, folder: str) -> None:
        self.verbs = verbs
        self.folder = folder


@pytest.fixture(params=["collection", "client"])
def things(request: pytest.FixtureRequest, tmp_path: Path, meshes: Path) -> Iterator[Things]:
    options = OpenOptions(workers=1, concurrent=True)
    with Collection.create(tmp_path / "things", SMALL, options) as collection:
        if request.param == "collection":
            yield Things(collection, str(meshes))
        else:
            settings = ServiceSettings(token=TOKEN, folders={"meshes": meshes})
            with served(collection, settings) as url, Client(url, TOKEN) as client:
                yield Things(client, "meshes")


@pytest.mark.parametrize(
    "verb", ["__len__", "add", "get", "ids", "set_metadata", "remove", "search", "failures", "close"]
)
def test_verbs_have_the_same_signature(verb: str) -> None:
    remote, local = (inspect.signature(getattr(kind, verb)) for kind in (Client, Collection))
    assert remote.parameters == local.parameters


def test_a_remote_object_has_the_fields_of_a_record(things: Things) -> None:
    things.verbs.add_folder(things.folder)
    record = things.verbs.get("shape-001.ply")
    names = [field.name for field in fields(RemoteObject)]
    values = {name: getattr(record, name) for name in names}
    assert (values["id"], values["metadata"], values["notes"]) == ("shape-001.ply", {}, ())
    assert values["facts"]["format"] == "ply" and len(values["content_hash"]) > 10


def test_add_folder_reports_counts_and_failures(things: Things) -> None:
    report = things.verbs.add_folder(things.folder)
    assert (report.found, report.added, report.unchanged, dict(report.failed)) == (7, 6, 0, {"no_faces": 1})
    (failure,) = things.verbs.failures()
    assert (Path(failure[0]).name, failure[1]) == ("empty.obj", "no_faces")
    assert [(Path(path).name, code) for path, code, _ in report.failures] == [("empty.obj", "no_faces")]
    again = things.verbs.add_folder(things.folder, options=IndexOptions(retry=True))
    assert (again.added, again.unchanged, dict(again.failed)) == (0, 6, {"no_faces": 1})
    assert len(things.verbs) == 6 and list(things.verbs.ids()) == [f"shape-{n:03d}.ply" for n in range(6)]


def test_add_replace_label_and_remove(things: Things, extra: list[Path]) -> None:
    verbs = things.verbs
    assert verbs.add(extra[0]) == extra[0].name
    assert verbs.add(extra[1], id="chair", metadata={"label": "box", "n": 1}) == "chair"
    assert len(verbs) == 2
    with raises_code(CollectionError, "id_taken", "chair"):
        verbs.add(extra[2], id="chair")

    # With replace=True a known id gets the new mesh, and an unknown one is added.
    before = verbs.get("chair")
    assert verbs.add(extra[2], id="chair", metadata={"n": 2}, replace=True) == "chair"
    after = verbs.get("chair")
    assert after.content_hash != before.content_hash and after.metadata == {"label": "box", "n": 2}
    assert verbs.add(extra[3], id="table", replace=True) == "table"
    assert verbs.add(extra[4], replace=True) == extra[4].name
    assert len(verbs) == 4

    verbs.set_metadata("table", {"label": "ball", "n": 3})
    verbs.set_metadata("table", {"n": None})
    assert verbs.get("table").metadata == {"label": "ball"}
    assert list(verbs.ids("label = 'ball'")) == ["table"]
    assert verbs.remove("table", "missing", "chair") == 2
    assert sorted(verbs.ids()) == sorted([extra[0].name, extra[4].name])


def test_search(things: Things, meshes: Path, extra: list[Path], tmp_path: Path) -> None:
    verbs = things.verbs
    verbs.add_folder(things.folder)
    for n in range(6):
        verbs.set_metadata(f"shape-{n:03d}.ply", {"label": "even" if n % 2 == 0 else "odd"})
    image = tmp_path / "grey.png"
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(image)
    for query in (
        Query(mesh=meshes / "shape-003.ply"),
        Query(mesh=extra[0], up="+z"),
        Query(images=[image, image], background="keep"),
        Query(id="shape-001.ply"),
        Query(terms=[Term("mesh", extra[1]), Term("id", "shape-002.ply", -0.5)]),
    ):
        hits = verbs.search(query, SearchOptions(k=3))
        assert [hit.rank for hit in hits] == [1, 2, 3]
        assert [hit.id for hit in verbs.search(query, k=3)] == [hit.id for hit in hits]
        assert {hit.metadata["label"] for hit in verbs.search(query, where="label = 'odd'")} == {"odd"}
        rerank = RerankOptions(expand=2, expand_alpha=1.0, rerank_views=4, rerank_weight=0.3)
        assert all(hit.matches for hit in verbs.search(query, k=2, rerank=rerank))
    assert verbs.search(Query(mesh=meshes / "shape-003.ply"))[0].id == "shape-003.ply"


def test_errors_have_the_same_class_and_code(things: Things, meshes: Path, tmp_path: Path) -> None:
    verbs = things.verbs
    verbs.add(meshes / "shape-001.ply")
    for call in (
        lambda: verbs.get("missing"),
        lambda: verbs.set_metadata("missing", {"label": "box"}),
        lambda: verbs.search(Query(id="missing")),
    ):
        with raises_code(UnknownObjectError, "no_such_object", "missing"):
            call()
    with pytest.raises(FilterError) as unknown_column:
        verbs.search(Query(id="shape-001.ply"), where="colour = 'red'")
    with pytest.raises(FilterError) as unknown_in_ids:
        list(verbs.ids("colour = 'red'"))
    assert unknown_column.value.code == unknown_in_ids.value.code
    with pytest.raises(LabelsError):
        verbs.set_metadata("shape-001.ply", {"Size": 1, "size": 2})
    with raises_code(NoTextError, "no_text_tower"):
        verbs.search(Query(text="a chair"))
    with raises_code(QueryError, "empty_query"):
        verbs.search(Query())
    with raises_code(QueryError, "only_negative_terms"):
        verbs.search(Query(terms=[Term("id", "shape-001.ply", -1)]))
    with raises_code(QueryError, "bad_vector_shape"):
        verbs.search(Query(vector=np.ones(2, np.float32)))
    with raises_code(QueryError, "no_confidence"):
        verbs.search(Query(id="shape-001.ply"), min_confidence=0.5)
    with raises_code(QueryError, "no_faces"):
        verbs.search(Query(mesh=meshes / "empty.obj"))
    with raises_code(QueryError, "missing_file"):
        verbs.search(Query(mesh=tmp_path / "missing.ply"))
    with raises_code(MeshError, "no_faces"):
        verbs.add(meshes / "empty.obj")
    with raises_code(MeshError, "missing_file"):
        verbs.add(tmp_path / "missing.ply")
    (tmp_path / "text.png").write_text("not an image")
    with raises_code(QueryError, "unknown_image_format", "text.png"):
        verbs.search(Query(images=tmp_path / "text.png"))
    with raises_code(QueryError, "missing_file", "missing.png"):
        verbs.search(Query(images=tmp_path / "missing.png"))


def test_a_job_can_be_watched(meshes: Path, tmp_path: Path) -> None:
    with Collection.create(tmp_path / "things", SMALL, OpenOptions(workers=1, concurrent=True)) as collection:
        settings = ServiceSettings(token=TOKEN, folders={"meshes": meshes})
        with served(collection, settings) as url, Client(url, TOKEN) as client:
            job = client.add_folder("meshes", wait=False)
            assert job.folder == "meshes" and job.report is None
            progress: list[tuple[int, int]] = []
            report = client.add_folder("meshes", options=IndexOptions(progress=lambda *counts: progress.append(counts)))
            first = client.job(job.id)
            assert (first.state, first.is_over) == ("done", True)
            assert first.report is not None and first.report.added == 6 and report.unchanged == 6
            assert progress and progress[-1][0] == progress[-1][1]


def test_a_file_of_another_object_cannot_replace(tmp_path: Path) -> None:
    a, b = write_shapes(tmp_path / "meshes", range(2))
    with Collection.create(tmp_path / "things", SMALL, OpenOptions(workers=1)) as collection:
        collection.add_folder(tmp_path / "meshes")
        with raises_code(CollectionError, "file_taken", b.name):
            collection.add(b, id=a.name, replace=True)
        assert sorted(collection.ids()) == [a.name, b.name]
