"""`mvr copy` and `mvr check`: consistent copies of a collection in use, and damage that is found before it gives wrong hits."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import Mvr, as_json, runner
from error_codes import raises_code
from made_meshes import SMALL, write_shapes

from mvretrieval.api import Collection, OpenOptions
from mvretrieval.errors import CollectionError
from mvretrieval.ingest.check_collection import check_collection
from mvretrieval.ingest.copy_collection import copy_collection
from mvretrieval.search.query import Query
from mvretrieval.store.uploads import UPLOADS, new_upload

N = 12


@pytest.fixture
def mvr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mvr:
    return runner(monkeypatch, capsys)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Collection]:
    """A collection with two uploads and a saved index."""
    write_shapes(tmp_path / "meshes", range(N))
    with Collection.create(tmp_path / "own", SMALL, OpenOptions(workers=1)) as collection:
        collection.add_folder(tmp_path / "meshes")
        for name in ("first", "second"):
            upload(collection, tmp_path / "meshes" / "shape-001.ply", name)
        collection.search(Query(id="first"))
        yield collection


def upload(collection: Collection, mesh: Path, name: str) -> None:
    folder = new_upload(collection.folder)
    folder.mkdir(parents=True)
    collection.add(Path(shutil.copy2(mesh, folder)), id=name)


def ranking(collection: Collection) -> list[tuple[str, float]]:
    return [(hit.id, round(hit.score, 6)) for hit in collection.search(Query(id="first"), k=N)]


def findings(folder: Path) -> list[str]:
    with Collection.open(folder) as collection:
        return [finding.code for finding in check_collection(collection.session)]


def test_a_copy_answers_as_the_original_and_is_whole(own: Collection, tmp_path: Path) -> None:
    report = copy_collection(own.folder, tmp_path / "backups" / "monday")  # the original is open for writing
    expected = ranking(own)
    own.close()
    shutil.rmtree(own.folder)
    assert (report.objects, report.uploads, report.missing) == (N + 2, 2, ())
    with Collection.open(tmp_path / "backups" / "monday") as copy:
        assert ranking(copy) == expected
        for name in ("first", "second"):
            assert Path(copy.get(name).path).is_relative_to(tmp_path / "backups" / "monday")
            assert Path(copy.get(name).path).is_file()
    assert findings(tmp_path / "backups" / "monday") == []
    assert [path.name for path in (tmp_path / "backups").iterdir()] == ["monday"]


def test_a_copy_of_a_collection_that_is_written_is_consistent(own: Collection, tmp_path: Path) -> None:
    done = threading.Event()

    def write() -> None:
        mesh, n = tmp_path / "meshes" / "shape-002.ply", 0
        while not done.is_set():
            upload(own, mesh, f"new-{n}")
            path = Path(own.get(f"new-{n}").path)
            if n % 2:
                own.remove(f"new-{n}")
                shutil.rmtree(path.parent)
            n += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for k in range(6):
            report = copy_collection(own.folder, tmp_path / f"copy-{k}")
            assert report.missing == ()
    finally:
        done.set()
        writer.join()
    for k in range(6):
        assert set(findings(tmp_path / f"copy-{k}")) <= {"index_unreadable"}


def test_a_copy_never_overwrites(own: Collection, tmp_path: Path, mvr: Mvr) -> None:
    (tmp_path / "there").mkdir()
    assert copy_collection(own.folder, tmp_path / "there").objects == N + 2  # empty
    with raises_code(CollectionError, "target_exists", "there"):
        copy_collection(own.folder, tmp_path / "there")
    with raises_code(CollectionError, "not_a_collection"):
        copy_collection(tmp_path / "meshes", tmp_path / "new")
    code, _, err = mvr("copy", own.folder, tmp_path / "meshes" / "shape-001.ply" / "x")
    assert code == 1 and "cannot be copied" in err
    assert as_json(mvr("copy", own.folder, tmp_path / "as-json", "--json"))["objects"] == N + 2


def test_a_copy_of_a_damaged_database_is_refused(own: Collection, tmp_path: Path) -> None:
    own.close()
    with (own.folder / "collection.sqlite").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 40_000)
    with pytest.raises(CollectionError) as raised:
        copy_collection(own.folder, tmp_path / "copy")
    assert raised.value.code in ("copy_damaged", "collection_damaged", "bad_collection")
    assert not (tmp_path / "copy").exists()


def test_missing_uploads_are_named(own: Collection, tmp_path: Path, mvr: Mvr) -> None:
    shutil.rmtree(Path(own.get("second").path).parent)
    assert copy_collection(own.folder, tmp_path / "copy").missing == ("second",)
    own.close()
    assert findings(own.folder) == ["upload_missing"]
    code, out, _ = mvr("check", own.folder)
    assert code == 1 and out.startswith("damaged: the uploaded files of 1 object (second) are missing")


def test_a_moved_collection_finds_its_uploads(own: Collection, tmp_path: Path) -> None:
    own.close()
    shutil.move(own.folder, tmp_path / "moved")
    assert findings(tmp_path / "moved") == []
    with Collection.open(tmp_path / "moved", write=True) as moved:
        assert Path(moved.get("first").path).is_file()
        assert moved.reembed(replace(moved.describer.config, rig="ring:2@30")) == []


def test_changed_bytes_of_the_index_are_found_and_repaired(own: Collection, mvr: Mvr) -> None:
    expected = ranking(own)
    own.close()
    (vectors,) = own.folder.glob("index-*.vectors")
    data = np.load(vectors)
    data[3] = -data[3]
    np.save(vectors.with_suffix(".npy"), data)
    vectors.with_suffix(".npy").replace(vectors)
    assert findings(own.folder) == ["index_damaged"]
    assert mvr("check", own.folder)[0] == 1
    report = as_json(mvr("check", own.folder, "--repair", "--json"))
    assert not report["damaged"] and report["findings"][0]["repaired"]
    with Collection.open(own.folder) as collection:
        assert ranking(collection) == expected
    code, out, _ = mvr("check", own.folder)
    assert code == 0 and "nothing wrong" in out


def test_what_is_worth_knowing_is_no_damage(own: Collection, tmp_path: Path, mvr: Mvr) -> None:
    unused = new_upload(own.folder)
    shutil.copytree(tmp_path / "meshes", unused)
    (tmp_path / "meshes" / "shape-004.ply").unlink()
    own.close()
    assert findings(own.folder) == ["upload_unused", "file_missing"]
    code, out, _ = mvr("check", own.folder, "--repair")
    assert code == 0 and "repaired: 1 uploads" in out and "1 object (shape-004.ply)" in out
    assert not unused.exists() and len(list((own.folder / UPLOADS).iterdir())) == 2


def test_bad_vectors_are_found(own: Collection) -> None:
    dim = own.session.dim
    own.close()
    for bad in (b"", b"\0" * 16, np.full(dim, np.nan, np.float32).tobytes()):
        with sqlite3.connect(own.folder / "collection.sqlite") as db:
            db.execute("UPDATE vectors SET vector = ? WHERE row_id = 3", (bad,))
        assert "bad_vectors" in findings(own.folder)


@pytest.mark.parametrize("key", ["describer", "calibration", "augmentation"])
@pytest.mark.parametrize("text", ["{", "[]", '{"k": 1, "x": {}}', "null"])
def test_damaged_records_are_said_to_be_damaged(key: str, text: str, own: Collection, mvr: Mvr) -> None:
    own.close()
    with sqlite3.connect(own.folder / "collection.sqlite") as db:
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, text))
    code, _, err = mvr("info", own.folder)
    assert code == 1 and f"its record '{key}' cannot be read" in err
