"""Objects of older readers, files of formats that are not read, and notes: what owners are told, and the way to mend it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import Mvr, runner
from made_meshes import write_shapes

from mvretrieval import Collection, DescriberConfig, import_vectors
from mvretrieval.ingest.outdated import outdated_by_format
from mvretrieval.store.store import VERSION

CONFIG = DescriberConfig(encoder="builtin:", rig="ring:3@30", size=64)
FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def things(tmp_path: Path) -> Iterator[Collection]:
    """Four objects, of which two are marked as loaded with an older reader."""
    write_shapes(tmp_path / "meshes", range(4))
    with Collection.create(tmp_path / "things", CONFIG) as collection:
        collection.add_folder(tmp_path / "meshes")
        collection.set_metadata("shape-000.ply", {"label": "a"})
        with collection.session.store.transaction():
            collection.session.store.db.run("UPDATE objects SET reader = 1 WHERE id < 'shape-002'")
        yield collection


def test_outdated_objects_alone_are_rendered_again(things: Collection, tmp_path: Path) -> None:
    assert outdated_by_format(things.session) == {"ply": 2}
    before = {id: things.get(id) for id in things.ids()}
    vectors = {id: things.session.store.vector_of(things.session.row_id_of(id)) for id in before}
    write_shapes(tmp_path / "meshes", [5, 6])  # other files do not matter
    (tmp_path / "meshes" / "shape-000.ply").write_bytes((tmp_path / "meshes" / "shape-005.ply").read_bytes())
    done: list[tuple[int, int]] = []
    assert things.reembed_outdated(lambda n, total: done.append((n, total))) == (2, [])
    assert done == [(1, 2), (2, 2)] and outdated_by_format(things.session) == {}
    assert list(things.ids()) == list(before) and things.get("shape-000.ply").metadata == {"label": "a"}
    for id, vector in vectors.items():
        now = things.session.store.vector_of(things.session.row_id_of(id))
        assert np.allclose(now, vector, atol=1e-5) == (id != "shape-000.ply")
    assert things.reembed_outdated() == (0, [])


def test_a_file_that_fails_leaves_its_object(things: Collection, tmp_path: Path) -> None:
    (tmp_path / "meshes" / "shape-000.ply").write_text("nothing")
    (tmp_path / "meshes" / "shape-001.ply").unlink()
    count, failed = things.reembed_outdated()
    assert count == 0 and {(id, code) for id, code, _ in failed} == {
        ("shape-000.ply", "unreadable"), ("shape-001.ply", "missing_file"),
    }  # fmt: skip
    assert len(things) == 4 and outdated_by_format(things.session) == {"ply": 2}


@pytest.fixture
def mvr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mvr:
    return runner(monkeypatch, capsys)


def test_the_commands_tell_and_mend(things: Collection, mvr: Mvr) -> None:
    folder = things.folder
    things.close()
    assert "2 objects may look different with the present readers (2 ply)" in mvr("info", folder)[1]
    assert json.loads(mvr("info", folder, "--json")[1])["outdated"] == {"ply": 2}
    code, _, err = mvr("reindex", folder, "--outdated", "--size", "96")
    assert code == 1 and "--outdated keeps the configuration" in err
    code, out, _ = mvr("reindex", folder, "--outdated")
    assert code == 0 and "2 outdated objects rendered and embedded again" in out
    assert "outdated" not in mvr("info", folder)[1]
    assert "0 outdated objects" in mvr("reindex", folder, "--outdated")[1]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_objects_of_older_collections_are_outdated(version: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FIXTURES / version / "augmented", tmp_path / "c"))
    with Collection.open(folder, write=True) as collection:
        assert collection.session.store.db.one("PRAGMA user_version") == (VERSION,)
        assert sum(outdated_by_format(collection.session).values()) == len(collection) == 12
    assert (folder / f"collection.sqlite.{version}").exists()


def test_files_of_other_formats_are_counted(mvr: Mvr, tmp_path: Path) -> None:
    write_shapes(tmp_path / "m", [0])
    for name in ("a.blend", "sub/b.MAX", "sub/c.max", ".hidden.max", "t.png", "readme.txt", "m.mtl"):
        (tmp_path / "m" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "m" / name).write_bytes(b"")
    flags = ("--encoder", "builtin:", "--rig", "ring:3@30", "--size", "64")
    _, out, _ = mvr("index", tmp_path / "c", tmp_path / "m", *flags)
    assert "3 files passed over, since their formats are not read: 2 .max, 1 .blend" in out
    assert "3 files in the last run: 2 .max, 1 .blend" in mvr("info", tmp_path / "c")[1]
    (tmp_path / "m" / "a.blend").unlink()
    report = json.loads(mvr("index", tmp_path / "c", tmp_path / "m", "--json")[1])
    assert report["passed_over"] == {".max": 2}
    assert json.loads(mvr("info", tmp_path / "c", "--json")[1])["passed_over"] == {".max": 2}
    assert "passed over" not in mvr("index", tmp_path / "c", tmp_path / "m" / "shape-000.ply")[1]


def test_notes_by_kind(mvr: Mvr, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    square = "v 0 0 0\nv 1 0 0\nv 0 1 {}\nf 1 2 3\n"
    for i in range(3):
        (tmp_path / "m" / f"{i}.obj").write_text(f"mtllib lost{i}.mtl\n" + square.format(i))
    (tmp_path / "m" / "curved.obj").write_text("surf 0 1 0 1 1 2 3\n" + square.format(9))
    write_shapes(tmp_path / "m", [0])
    flags = ("--encoder", "builtin:", "--rig", "ring:3@30", "--size", "64")
    assert mvr("index", tmp_path / "c", tmp_path / "m", *flags)[0] == 0
    lines = mvr("info", tmp_path / "c", "--notes")[1].splitlines()
    kinds = lines[next(i for i, line in enumerate(lines) if line.startswith("objects  note")) + 1 :]
    assert kinds[0].startswith("3        reference '...' is missing") and kinds[0].endswith("0.obj")
    assert kinds[1].startswith("1        curves and free-form surfaces") and len(kinds) == 2
    facts = json.loads(mvr("info", tmp_path / "c", "--notes", "--json")[1])
    assert len(facts["notes"]) == 4 and [kind["objects"] for kind in facts["note_kinds"]] == [3, 1]


def test_imported_vectors_are_never_outdated(tmp_path: Path) -> None:
    import_vectors(tmp_path / "v", ["a", "b"], np.eye(2, 4, dtype=np.float32))
    with Collection.open(tmp_path / "v") as collection:
        assert len(collection) == 2 and outdated_by_format(collection.session) == {}
