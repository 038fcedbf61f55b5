"""Indexing runs over folders of meshes: changes, labels, bad files, kills."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import small_collection
from counting import counts, encoded
from error_codes import raises_code
from made_meshes import SMALL, box, shape, write_shapes
from waiting import wait_for

from mvretrieval.api import Collection, OpenOptions
from mvretrieval.errors import CollectionError, DescriberError, LabelsError
from mvretrieval.ingest.index_report import IndexOptions, IndexReport
from mvretrieval.search.query import Query
from mvretrieval.store.store import FILE

MVR = [sys.executable, "-m", "mvretrieval"]
SMALL_FLAGS = ["--encoder", "builtin:", "--rig", "ring:3@30", "--size", "64", "--workers", "1"]


def _ids(collection: Collection) -> list[str]:
    return sorted(row[0] for row in collection.session.store.db.all("SELECT id FROM objects"))


def _encoded(collection: Collection, folder: Path, **options: object) -> tuple[IndexReport, int]:
    """Report of a run, and the number of images it encoded."""
    return encoded(collection, lambda: collection.add_folder(folder, options=IndexOptions(**options)))  # type: ignore[arg-type]


# -- files and objects -----------------------------------------------------------------------------------------------


def test_unchanged_files_are_skipped_and_changed_ones_replaced(collection: Collection, tmp_path: Path) -> None:
    meshes = tmp_path / "meshes"
    paths = write_shapes(meshes, range(4))
    report, encoded = _encoded(collection, meshes)
    assert counts(report) == {"added": 4} and encoded == 12
    report, encoded = _encoded(collection, meshes)
    assert counts(report) == {"unchanged": 4} and encoded == 0
    old = collection.search(Query(id="shape-001.ply"), k=1)[0]
    row_ids = {i: collection.session.row_id_of(i) for i in _ids(collection)}
    shape(2).apply_scale([1, 1, 1.01]).export(paths[1])
    os.utime(paths[0])
    report, encoded = _encoded(collection, meshes)
    assert counts(report) == {"replaced": 1, "unchanged": 3} and encoded == 3
    assert {i: collection.session.row_id_of(i) for i in _ids(collection)} == row_ids
    new = collection.search(Query(id="shape-001.ply"), k=1)[0]
    assert new.id == "shape-002.ply" and new.score > 0.99 > old.score


def test_identical_files_are_encoded_once(collection: Collection, tmp_path: Path) -> None:
    meshes = tmp_path / "meshes"
    (first,) = write_shapes(meshes, [1])
    for name in ("a.ply", "z.ply"):
        shutil.copy(first, meshes / name)
    report, encoded = _encoded(collection, meshes)
    assert counts(report) == {"added": 3, "identical": 2} and encoded == 3
    hits = collection.search(Query(id="a.ply"))
    assert [hit.id for hit in hits] == ["shape-001.ply", "z.ply"] or [hit.id for hit in hits] == [
        "z.ply",
        "shape-001.ply",
    ]
    assert all(hit.score == pytest.approx(1, abs=1e-5) for hit in hits)
    collection.remove("a.ply")
    assert len(collection) == 2


def test_moved_file_keeps_its_id(collection: Collection, tmp_path: Path) -> None:
    meshes = tmp_path / "meshes"
    paths = write_shapes(meshes, range(3))
    collection.add_folder(meshes)
    with collection.session.store.transaction():
        collection.session.store.set_metadata(collection.session.row_id_of("shape-001.ply"), {"note": "mine"})
    (meshes / "deep" / "er").mkdir(parents=True)
    paths[1].rename(meshes / "deep" / "er" / "another name.ply")
    report, encoded = _encoded(collection, meshes)
    assert counts(report) == {"moved": 1, "unchanged": 2} and encoded == 0
    record = collection.get("shape-001.ply")
    assert record.path.endswith("deep/er/another name.ply") and record.metadata == {"note": "mine"}
    report, _ = _encoded(collection, meshes)
    assert counts(report) == {"unchanged": 3}


def test_swapped_files_swap_their_vectors(collection: Collection, tmp_path: Path) -> None:
    meshes = tmp_path / "meshes"
    a, b = write_shapes(meshes, [0, 1])
    collection.add_folder(meshes)
    before = {i: collection.session.store.vector_of(collection.session.row_id_of(i)) for i in _ids(collection)}
    a.rename(meshes / "aside")
    b.rename(a)
    (meshes / "aside").rename(b)
    collection.add_folder(meshes)
    after = {i: collection.session.store.vector_of(collection.session.row_id_of(i)) for i in _ids(collection)}
    assert sorted(after) == [a.name, b.name]
    np.testing.assert_allclose(after[a.name], before[b.name], atol=1e-3)
    np.testing.assert_allclose(after[b.name], before[a.name], atol=1e-3)


def test_missing_files_are_reported_and_pruned(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meshes = tmp_path / "meshes"
    paths = write_shapes(meshes, range(3))
    collection.add_folder(meshes)
    paths[0].unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    report = collection.add_folder("../meshes")
    assert counts(report) == {"unchanged": 2, "gone": 1} and len(collection) == 3
    report = collection.add_folder("../meshes", options=IndexOptions(prune=True))
    assert counts(report) == {"unchanged": 2, "gone": 1, "removed": 1}
    assert _ids(collection) == ["shape-001.ply", "shape-002.ply"]
    assert "shape-000.ply" not in [hit.id for hit in collection.search(Query(mesh=paths[1]))]


def test_missing_folder_removes_no_objects(collection: Collection, tmp_path: Path) -> None:
    """Such as a disk that is not mounted."""
    meshes = tmp_path / "disk" / "meshes"
    write_shapes(meshes, range(2))
    collection.add_folder(meshes)
    meshes.rename(tmp_path / "unmounted")
    report = collection.add_folder(meshes, options=IndexOptions(prune=True))
    assert report.gone == 2 and report.removed == 0 and len(collection) == 2
    assert dict(report.failed) == {"missing_file": 1}
    meshes.mkdir()  # an unmounted disk leaves an empty folder
    report = collection.add_folder(meshes, options=IndexOptions(prune=True))
    assert report.gone == 2 and report.removed == 0 and len(collection) == 2
    meshes.rmdir()
    (tmp_path / "unmounted").rename(meshes)
    report = collection.add_folder(meshes, options=IndexOptions(prune=True))
    assert counts(report) == {"unchanged": 2} and collection.session.store.failures() == []


def test_unusual_file_names(collection: Collection, tmp_path: Path) -> None:
    names = [
        "two words.ply",
        "new\nline.ply",
        "grün 椅子 🪑.ply",
        "quo'te\".ply",
        "-dash.ply",
        "%s.ply",
        "UPPER.PLY",
        "tab\t.ply",
    ]
    meshes = tmp_path / "m é"
    meshes.mkdir()
    for i, name in enumerate(names):
        meshes.joinpath(name).write_bytes(shape(i).export(file_type="ply"))
    (meshes / os.fsdecode(b"bad \xff.ply")).write_bytes(b"")
    report = collection.add_folder(meshes)
    assert counts(report) == {"added": 8} and dict(report.failed) == {"bad_name": 1}
    assert _ids(collection) == sorted(names)
    for name in names:
        assert collection.search(Query(mesh=meshes / name), k=1)[0].id == name
        assert len(collection.search(Query(id=name), k=100)) == 7


def test_same_name_in_two_folders_gives_two_ids(collection: Collection, tmp_path: Path) -> None:
    write_shapes(tmp_path / "a", [0])
    write_shapes(tmp_path / "b", [1])[0].rename(tmp_path / "b" / "shape-000.ply")
    assert counts(collection.add_folder(tmp_path / "a", tmp_path / "b")) == {"added": 2}
    assert _ids(collection) == ["shape-000.ply", "shape-000.ply~2"]
    assert counts(collection.add_folder(tmp_path / "b", tmp_path / "a", tmp_path / "a")) == {"unchanged": 2}


def test_single_files_and_empty_folders(collection: Collection, tmp_path: Path) -> None:
    (path,) = write_shapes(tmp_path / "m", [0])
    (tmp_path / "empty").mkdir()
    report = collection.add_folder(path, tmp_path / "empty", path)
    assert counts(report) == {"added": 1} and not report.failed
    assert _ids(collection) == [path.name]


# -- labels ------------------------------------------------------------------------------------------------------------


def test_changed_labels_change_metadata_without_encoding(collection: Collection, tmp_path: Path) -> None:
    meshes = tmp_path / "meshes"
    write_shapes(meshes, range(3))
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label,n\nmeshes/shape-000.ply,box,1\nmeshes/shape-001.ply,ball,2\nmeshes/nothing.ply,x,3\n")
    report, _ = _encoded(collection, meshes, labels=labels)
    assert (report.labeled, report.unmatched_labels) == (2, 1) and Path(report.unmatched_label).is_absolute()
    assert collection.get("shape-000.ply").metadata == {"label": "box", "n": 1}
    assert collection.get("shape-002.ply").metadata == {}
    labels.write_text("file,label,n,new\nmeshes/shape-000.ply,crate,1,0.5\nmeshes/shape-001.ply,ball,,\n")
    report, encoded = _encoded(collection, meshes, labels=labels)
    assert encoded == 0 and counts(report) == {"unchanged": 3} and report.labeled == 2
    assert collection.get("shape-000.ply").metadata == {"label": "crate", "n": 1, "new": 0.5}
    assert collection.get("shape-001.ply").metadata == {"label": "ball"}
    report, _ = _encoded(collection, meshes, labels=labels)
    assert report.labeled == 0
    assert [hit.id for hit in collection.search(Query(id="shape-002.ply"), where="new > 0.1")] == ["shape-000.ply"]


def test_changed_up_axis_renders_again(collection: Collection, tmp_path: Path) -> None:
    meshes = tmp_path / "meshes"
    write_shapes(meshes, range(2))
    labels = tmp_path / "labels.csv"
    labels.write_text("file,up\nmeshes/shape-000.ply,+z\n")
    collection.add_folder(meshes)
    report, encoded = _encoded(collection, meshes, labels=labels)
    assert counts(report) == {"replaced": 1, "unchanged": 1} and encoded == 3
    assert collection.get("shape-000.ply").facts["up"] == "+z"
    report, encoded = _encoded(collection, meshes, labels=labels)
    assert counts(report) == {"unchanged": 2}


def test_bad_labels_stop_the_run_before_it_starts(collection: Collection, tmp_path: Path) -> None:
    write_shapes(tmp_path / "m", [0])
    labels = tmp_path / "labels.csv"
    labels.write_text("name,label\nx,y\n")
    with raises_code(LabelsError, "no_such_column"):
        collection.add_folder(tmp_path / "m", options=IndexOptions(labels=labels))
    assert len(collection) == 0


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_bad_meshes_do_not_stop_a_run(collection: Collection, tmp_path: Path) -> None:
    meshes = tmp_path / "meshes"
    write_shapes(meshes, range(2))
    (meshes / "aa empty.obj").write_bytes(b"")
    (meshes / "noise.glb").write_bytes(np.random.default_rng(0).bytes(500))
    (meshes / "points.obj").write_text("v 0 0 0\nv 1 1 1\n")
    (meshes / "dangling.ply").symlink_to(meshes / "nowhere.ply")
    (meshes / "folder.obj").mkdir()
    report = collection.add_folder(meshes)
    expected = {"empty_file": 1, "unreadable": 1, "no_faces": 1, "missing_file": 1}
    assert report.added == 2 and dict(report.failed) == expected
    stored = {Path(path).name: (code, message) for path, code, message in collection.session.store.failures()}
    assert {code for code, _ in stored.values()} == set(expected) and len(stored) == 4
    assert all(message for _, message in stored.values())


def test_failures_are_retried_if_the_file_changes_or_on_request(collection: Collection, tmp_path: Path) -> None:
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    bad = meshes / "bad.obj"
    bad.write_text("v 0 0 0\n")
    assert len(collection.add_folder(meshes).failures) == 1
    report = collection.add_folder(meshes)
    assert report.failures == [] and dict(report.failed) == {"no_faces": 1}
    report = collection.add_folder(meshes, options=IndexOptions(retry=True))
    assert len(report.failures) == 1
    bad.write_bytes(box(1, 2, 3).export(file_type="obj").encode())
    report = collection.add_folder(meshes)
    assert report.added == 1 and not report.failed and collection.session.store.failures() == []


def test_file_that_fails_keeps_its_earlier_views_until_fixed(collection: Collection, tmp_path: Path) -> None:
    (path,) = write_shapes(tmp_path / "m", [0])
    good, times = path.read_bytes(), path.stat()
    collection.add_folder(tmp_path / "m")
    path.write_bytes(b"not a mesh")
    report = collection.add_folder(tmp_path / "m")
    assert report.failures[0][2].endswith("the object keeps its earlier views")
    assert len(collection.search(Query(mesh=shape_file(tmp_path)))) == 1
    path.write_bytes(good)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    report = collection.add_folder(tmp_path / "m")
    assert counts(report) == {"unchanged": 1} and collection.session.store.failures() == []


def shape_file(folder: Path) -> Path:
    return write_shapes(folder / "query", [5])[0]


def test_cyclic_links_end(collection: Collection, tmp_path: Path) -> None:
    meshes = tmp_path / "meshes"
    write_shapes(meshes / "sub", range(2))
    (meshes / "sub" / "up").symlink_to(meshes)
    (meshes / "self").symlink_to(meshes / "self")
    (meshes / "self.ply").symlink_to(meshes / "self.ply")
    report = collection.add_folder(meshes)
    assert counts(report) == {"added": 2}
    assert [Path(path).name for path, _, _ in report.failures] == ["self.ply"]


def test_hidden_files_are_skipped_unless_named(collection: Collection, tmp_path: Path) -> None:
    meshes = tmp_path / "meshes"
    shown, twin = write_shapes(meshes, range(2))
    twin.rename(meshes / f"._{shown.name}")
    write_shapes(meshes / ".trash", [2])
    assert counts(collection.add_folder(meshes)) == {"added": 1}
    assert counts(collection.add_folder(meshes / ".trash", meshes / f"._{shown.name}")) == {"added": 2}


AS_UNPRIVILEGED = """
import os, sys
from pathlib import Path
from mvretrieval.api import Collection, OpenOptions
from mvretrieval.ingest.index_report import IndexOptions
folder, meshes = Path(sys.argv[1]), Path(sys.argv[2])
def index():
    with Collection.open(folder, OpenOptions(workers=1), write=True) as collection:
        report = collection.add_folder(meshes, meshes / "closed" / "shape-001.ply", options=IndexOptions(prune=True))
        print(report.unchanged, report.gone, report.removed, sorted(Path(p).name + " " + c for p, c, _ in report.failures))
index()  # imports modules that the other user may not read
for path in (folder, *folder.iterdir()):
    os.chown(path, 65534, 65534)
(meshes / "closed").chmod(0)
os.setgid(65534)
os.setuid(65534)
index()
"""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can change the user")
def test_file_without_permission_is_a_failure_and_not_gone() -> None:
    # In /tmp: the parents of tmp_path are closed to other users.
    base = Path("/tmp") / f"mvr-unprivileged-{os.getpid()}"
    meshes = base / "meshes"
    try:
        write_shapes(meshes / "open", [0])
        write_shapes(meshes / "closed", [1])
        with small_collection(base / "c") as collection:
            collection.add_folder(meshes)
        command = [sys.executable, "-c", AS_UNPRIVILEGED, str(base / "c"), str(meshes)]
        # Nothing is rendered, and the other user cannot write the cache of numba.
        environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        first, second = done.stdout.splitlines()
        assert first == "2 0 0 []"
        assert second.startswith("1 0 0 ['closed no_permission'")
        (meshes / "closed").chmod(0o755)
        with Collection.open(base / "c", OpenOptions(workers=1), write=True) as collection:
            assert len(collection.session.store.failures()) >= 1
            assert counts(collection.add_folder(meshes)) == {"unchanged": 2}
            assert collection.session.store.failures() == []
    finally:
        shutil.rmtree(base)


def test_full_disk_stops_the_run_and_the_next_resumes(collection: Collection, tmp_path: Path) -> None:
    meshes = tmp_path / "meshes"
    write_shapes(meshes, range(6))
    collection.add_folder(meshes)
    write_shapes(meshes, range(6, 30))
    pages = collection.session.store.db.all("PRAGMA page_count")[0][0]
    collection.session.store.db.run(f"PRAGMA max_page_count = {pages + 60}")
    with raises_code(CollectionError, "disk_full"):
        collection.add_folder(meshes)
    before = len(collection)
    assert 6 <= before < 30
    assert len(collection.search(Query(id="shape-000.ply"), k=100)) == before - 1
    collection.session.store.db.run("PRAGMA max_page_count = 100000")
    report = collection.add_folder(meshes)
    assert counts(report) == {"added": 30 - before, "unchanged": before}


def test_unwritable_index_is_a_warning(collection: Collection, tmp_path: Path) -> None:
    write_shapes(tmp_path / "m", range(2))
    for stem in ("index-1-1", "index-1-2"):
        (collection.folder / f"{stem}.vectors.part").mkdir()
    with pytest.warns(UserWarning, match="rebuilt"):
        collection.add_folder(tmp_path / "m")
    assert len(collection.search(Query(id="shape-000.ply"))) == 1


# -- whitening --------------------------------------------------------------------------------------------------------


def test_whitening_is_fitted_once_there_are_enough_objects(tmp_path: Path) -> None:
    config = replace(SMALL, whiten=8)
    write_shapes(tmp_path / "m", range(2))
    with Collection.create(tmp_path / "c", config, OpenOptions(workers=1)) as collection:
        assert "not fitted: whitening to 8" in collection.add_folder(tmp_path / "m").whitening
        write_shapes(tmp_path / "m", range(6))
        wrong = collection.add_folder(tmp_path / "m", options=IndexOptions(fit_where="nothing = 1")).whitening
        assert "not fitted: no column 'nothing'" in wrong
        assert (
            "has no objects where faces > 1e9"
            in collection.add_folder(tmp_path / "m", options=IndexOptions(fit_where="faces > 1e9")).whitening
        )
        assert collection.add_folder(tmp_path / "m").whitening == "fitted on 18 views"
        assert collection.session.index.get().dim == 8
        write_shapes(tmp_path / "m", range(8))
        assert collection.add_folder(tmp_path / "m").added == 2
        fresh = [hit.score for hit in collection.search(Query(mesh=tmp_path / "m" / "shape-006.ply"), k=3)]
        again = collection.add_folder(tmp_path / "m")
        assert again.unchanged == 8 and fresh[0] == pytest.approx(1, abs=1e-5)


# -- kills -------------------------------------------------------------------------------------------------------------


def _wait_for_objects(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    from mvretrieval.store.store import Store

    def enough() -> bool:
        assert process.poll() is None, "the run ended before it could be killed"
        if not (folder / FILE).exists():
            return False
        store = Store.open(folder)
        try:
            return store.count() >= count
        finally:
            store.close()

    wait_for(enough)


def test_killed_run_resumes(tmp_path: Path) -> None:
    meshes, folder = tmp_path / "meshes", tmp_path / "c"
    write_shapes(meshes, range(60))
    command = [*MVR, "index", str(folder), str(meshes), *SMALL_FLAGS]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        _wait_for_objects(folder, 1, process)
        # Reading works meanwhile; a second writer is refused.
        with Collection.open(folder) as reader:
            assert reader.search(Query(id=_ids(reader)[0]), k=3) is not None
            with raises_code(CollectionError, "collection_locked", str(process.pid)):
                Collection.open(folder, write=True)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with Collection.open(folder, OpenOptions(workers=1), write=True) as collection:
        survived = len(collection)
        assert 1 <= survived < 60
        report, encoded = _encoded(collection, meshes)
        assert counts(report) == {"added": 60 - survived, "unchanged": survived}
        assert encoded == 3 * (60 - survived)
        assert _ids(collection) == sorted(path.name for path in meshes.iterdir())
        truth = np.stack([collection.session.store.vector_of(int(n)) for n in collection.session.store.select(None)])
        hits = collection.search(Query(id="shape-030.ply"), k=100)
        own = collection.session.store.vector_of(collection.session.row_id_of("shape-030.ply"))
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(truth @ own)[::-1][1:], atol=1e-5)


def test_another_encoder_is_an_error(collection: Collection, tmp_path: Path) -> None:
    fingerprint = collection.describer.view_fingerprint
    with collection.session.store.transaction():
        stored = fingerprint.partition("encoder=")[0] + "encoder=[another]"
        collection.session.store.set_meta("view_fingerprint", stored)
    with raises_code(
        DescriberError, "other_encoder", "encoder: [another] (stored), [builtin", "mvr reindex"
    ) as refused:
        collection.add_folder(tmp_path)
    assert "rig" not in str(refused.value)  # equal on both sides
