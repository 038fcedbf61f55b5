"""The command line: exit codes, what goes to stdout, and the page."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Mvr, as_json, runner
from made_meshes import shape, write_shapes
from PIL import Image

from mvretrieval.api import Collection
from mvretrieval.cli import demo
from mvretrieval.cli.commands import COMMANDS
from mvretrieval.cli.index_kinds import HELP
from mvretrieval.ingest.reembed import reembed
from mvretrieval.search import pipeline
from mvretrieval.search.encode import EncodedTerm, encode_query
from mvretrieval.search.query import Query
from mvretrieval.session.session import Session

FLAGS = ["--encoder", "builtin:", "--rig", "ring:3@30", "--size", "64", "--workers", "1"]


@pytest.fixture
def mvr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mvr:
    return runner(monkeypatch, capsys)


@pytest.fixture
def folder(things: Collection) -> Path:
    return things.folder


# -- the program itself ------------------------------------------------------------------------------------------------


def test_the_installed_program_runs() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("mvr"), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_is_no_error(unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "mvretrieval", "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_program_ends_with_the_exit_code_of_its_command_after_exit_handlers() -> None:
    program = (
        "import atexit, sys, mvretrieval.__main__ as program\n"
        "def main():\n"
        "    atexit.register(print, 'exit handler')\n"
        "    raise {}\n"
        "program.main = main\n"
        "program.command()"
    )
    for raised, code in (
        ("SystemExit(3)", 3),
        ("SystemExit(0)", 0),
        ("SystemExit('why')", 1),
        ("ValueError('why')", 1),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program.format(raised)], capture_output=True, text=True, check=False
        )
        assert done.returncode == code and done.stdout == "exit handler\n"
        assert ("why" in done.stderr) == ("why" in raised)


FAILURES = [
    (["search", "{c}"], "empty_query", ""),
    (["search", "{c}", "--id", "shape-000.ply", "-k", "0"], "bad_k", "0"),
    (["search", "{c}", "--id", "shape-00.ply"], "no_such_object", "did you mean 'shape-0"),
    (["search", "{c}", "--id", "shape-000.ply", "--where", "labl = 'x'"], "", "did you mean 'label'"),
    (["search", "{c}", "--text", "a chair"], "no_text_tower", "builtin"),
    (["search", "{c}", "--mesh", "nothing.glb"], "", "nothing.glb"),
    (["search", "nowhere", "--id", "x"], "", "mvr index"),
    (["search", "{c}", "--id", "shape-000.ply", "--html", "/dev/null/page.html"], "", "/dev/null/page.html"),
    (["index", "{c}", "."], "", ""),
    (["index", "new"], "nothing_to_index", "--view-manifest"),
    (["remove", "{c}"], "nothing_to_remove", "--where"),
    (["eval", "{c}", "--by", "lable"], "", "did you mean 'label'"),
    (["eval", "{c}", "--classes", "nowhere.txt"], "", "nowhere.txt"),
    (["info", "nowhere"], "", "nowhere"),
    (["calibrate", "{c}", "--remove", "--by", "label"], "remove_with_options", "--by"),
    (["index", "new", "nowhere", "--encoder", "builtin:"], "no_such_folder", "nowhere"),
    (["index", "new", ".", "--encoder", "builtin:", "--workers", "0"], "", "0"),
    (["index", "new", ".", "--encoder", "builtn:"], "", "did you mean 'builtin'"),
    (["index", "new", ".", "--encoder", "builtin:", "--rig", "rign:3"], "", "did you mean 'ring'"),
    (["render", "nowhere.obj", "--out", "/dev/null/x"], "not_written", "/dev/null/x"),
    (["reindex", "{c}", "--dba-alpha", "2"], "dba_alpha_without_dba", "--dba"),
    (["reindex", "{c}", "--no-adapter", "--center"], "no_adapter_with_whitening", "--no-adapter"),
]


@pytest.mark.parametrize(("arguments", "error_code", "contains"), FAILURES)
def test_a_failure_is_1_and_one_message(
    mvr: Mvr, folder: Path, arguments: list[str], error_code: str, contains: str
) -> None:
    given = [a.replace("{c}", str(folder)) for a in arguments]
    code, out, err = mvr(*given)
    assert code == 1 and out == ""
    assert contains in err and "Traceback" not in err
    assert f"mvr {arguments[0]}: " in err
    message = err.rstrip("\n").rpartition(f"mvr {arguments[0]}: ")[2]
    code, out, err = mvr(*given, "--json")
    found = json.loads(out)
    assert code == 1 and found["schema"] == 1 and found["error"]["message"] == message and message not in err
    assert re.fullmatch(r"[a-z][a-z0-9_]+", found["error"]["code"]) and found["error"]["code"] != "error"
    assert error_code in ("", found["error"]["code"])
    assert not Path("new").exists()


def test_verbose_shows_the_traceback_of_an_error(mvr: Mvr, folder: Path) -> None:
    code, out, err = mvr("search", folder, "--id", "nothing", "-v")
    assert code == 1 and out == "" and "UnknownObjectError" in err and "Traceback" in err


def test_quiet_prints_results_and_errors_only(mvr: Mvr, tmp_path: Path) -> None:
    write_shapes(tmp_path / "m", [0, 1])
    (tmp_path / "m" / "bad.obj").write_text("v 0 0 0\n")
    code, out, err = mvr("index", tmp_path / "c", tmp_path / "m", *FLAGS, "-q")
    assert code == 0 and "2 objects" in out and err == ""
    code, out, err = mvr(
        "render", tmp_path / "m", "--out", tmp_path / "v", "--rig", "ring:2@20", "--size", 64, "--quiet"
    )
    assert code == 0 and out and err.count("\n") == 1 and "bad.obj" in err and "no_faces" in err


def test_control_characters_in_names_are_escaped(mvr: Mvr, tmp_path: Path) -> None:
    (mesh,) = write_shapes(tmp_path / "m", [0])
    mesh.rename(tmp_path / "m" / "\x1b[31mred\nline 椅子.ply")
    assert (
        mvr("index", tmp_path / "c", tmp_path / "m", "--encoder", "builtin:", "--rig", "ring:2@20", "--size", 64)[0]
        == 0
    )
    code, out, _ = mvr("search", tmp_path / "c", "--mesh", *(tmp_path / "m").iterdir())
    assert code == 0 and r"\x1b[31mred\nline 椅子.ply" in out and "\x1b" not in out
    bad = tmp_path / "m" / "\x1b[31mbad.obj"
    bad.write_text("v 0 0 0\n")
    for command in (("index", tmp_path / "c", tmp_path / "m"), ("search", tmp_path / "c", "--mesh", bad)):
        _, out, err = mvr(*command)
        assert r"\x1b[31mbad.obj" in out + err and "\x1b" not in out + err
    _, out, err = mvr("render", bad, "--out", tmp_path / "v")
    assert r"\x1b[31mbad.obj" in err and "\x1b" not in out + err


# -- commands ----------------------------------------------------------------------------------------------------------


def test_index_search_info_eval_remove(mvr: Mvr, tmp_path: Path) -> None:
    meshes, c = tmp_path / "my meshes", tmp_path / "c"
    write_shapes(meshes, range(8))
    (meshes / "bad.obj").write_text("v 0 0 0\n")
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\n" + "".join(f"my meshes/shape-{n:03d}.ply,kind{n % 4}\n" for n in range(8)))
    code, out, err = mvr("index", c, meshes, *FLAGS, "--labels", labels)
    assert code == 0 and "c: 8 objects" in out and "1 failed: 1 no_faces" in out
    assert "ring:3@30" in err and "builtin:" in err
    code, out, _ = mvr("index", c, meshes, "--workers", "1", "--json", "--strict")
    report = json.loads(out)
    assert code == 1 and (report["objects"], report["unchanged"], report["failed"]) == (8, 8, {"no_faces": 1})
    assert mvr("index", c, meshes, "--rig", "ring:4@30")[0] == 1

    code, out, _ = mvr("search", c, "--id", "shape-001.ply", "-k", "3", "--json", "--where", "label != 'kind0'")
    hits = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [hit["rank"] for hit in hits] == [1, 2, 3]
    assert set(hits[0]) == {
        "schema",
        "rank",
        "id",
        "path",
        "score",
        "best_view",
        "view_weights",
        "metadata",
        "facts",
        "parts",
    }
    assert all(hit["metadata"]["label"] != "kind0" for hit in hits)
    code, out, _ = mvr("search", c, "--id", "shape-001.ply", "-k", "3")
    assert code == 0 and len(out.splitlines()) == 4
    assert "no hits where" in mvr("search", c, "--id", "shape-001.ply", "--where", "label = 'x'")[1]

    code, out, _ = mvr("info", c, "--json")
    facts = json.loads(out)
    assert code == 0 and facts["objects"] == 8 and [f["code"] for f in facts["failures"]] == ["no_faces"]
    assert "bad.obj" in mvr("info", c, "--failures")[1]

    code, out, _ = mvr("eval", c, "--json")
    means = json.loads(out)
    assert code == 0 and means["queries"] == 8 and 0 <= means["mAP"] <= 1
    classes = tmp_path / "classes.txt"
    classes.write_text("kind1\nkind2\n")
    assert json.loads(mvr("eval", c, "--json", "--classes", classes)[1])["queries"] == 4

    code, out, _ = mvr("remove", c, "shape-000.ply", "--where", "label = 'kind1'")
    assert code == 0 and out == "removed 3, 5 left\n"
    assert mvr("remove", c, "shape-000.ply")[0] == 1
    removed = as_json(mvr("remove", c, "shape-002.ply", "shape-003.ply", "--json"))
    assert removed == {"removed": ["shape-002.ply", "shape-003.ply"], "objects": 3}


def test_json_of_render_reindex_and_export(mvr: Mvr, tmp_path: Path) -> None:
    meshes, c = tmp_path / "m", tmp_path / "c"
    files = write_shapes(meshes, range(3))
    (meshes / "bad.obj").write_text("v 0 0 0\n")
    command = ("render", meshes, "--out", tmp_path / "v", "--rig", "ring:2@20", "--size", 64, "--json")
    found = as_json(mvr(*command))
    assert found["sheet"] == str(tmp_path / "v" / "sheet.png") and Path(found["sheet"]).exists()
    assert sorted(row["path"] for row in found["rendered"]) == sorted(map(str, files))
    assert {"id", "faces", "up", "notes"} <= set(found["rendered"][0])
    assert [(row["path"], row["code"]) for row in found["failures"]] == [(str(meshes / "bad.obj"), "no_faces")]
    for file in files:
        file.unlink()
    code, out, _ = mvr(*command)
    assert code == 1 and json.loads(out)["sheet"] is None and json.loads(out)["rendered"] == []

    files = write_shapes(meshes, range(3))
    assert mvr("index", c, meshes, *FLAGS)[0] == 0
    files[0].unlink()
    found = as_json(mvr("reindex", c, "--rig", "ring:2@30", "--drop-missing", "--index", "hnsw", "--dba", 1, "--json"))
    assert (found["objects"], found["dim"], found["index"]) == (2, 1024, "exact")
    assert [(row["id"], row["code"]) for row in found["removed"]] == [("shape-000.ply", "missing_file")]

    place = tmp_path / "c.faiss"
    found = as_json(mvr("export", c, "--faiss", place, "--json"))
    assert found == {"faiss": str(place), "ids": f"{place}.json", "vectors": 2}
    assert all(Path(found[name]).exists() for name in ("faiss", "ids"))


def test_the_kind_of_index_is_chosen_shown_and_changed(mvr: Mvr, tmp_path: Path) -> None:
    write_shapes(tmp_path / "meshes", range(2))
    assert mvr("index", "--index", "help")[1] == mvr("reindex", "--index=help")[1] == HELP + "\n"
    wrong = mvr("index", tmp_path / "c", tmp_path / "meshes", *FLAGS, "--index", "HSNW32", "--json")
    assert wrong[0] == 1 and json.loads(wrong[1])["error"]["code"] == "bad_index_kind" and not (tmp_path / "c").exists()
    assert mvr("index", tmp_path / "c", tmp_path / "meshes", *FLAGS, "--index", "HNSW32,SQ8")[0] == 0
    assert "exact (HNSW32,SQ8 with more objects), 2 objects" in mvr("info", tmp_path / "c")[1]
    other = mvr("index", tmp_path / "c", tmp_path / "meshes", "--index", "ivf")
    assert other[0] == 1 and f"mvr reindex {tmp_path / 'c'} --index ivf" in other[2]
    assert mvr("reindex", tmp_path / "c", "--index", "ivf")[1].endswith("2 objects, index: ivf (exact so far)\n")
    assert as_json(mvr("info", tmp_path / "c", "--json"))["index"] == {"kind": "exact", "wanted": "ivf", "objects": 2}
    assert mvr("index", tmp_path / "c", tmp_path / "meshes", "--index", "ivf")[0] == 0
    for flags in (["--nprobe", "3"], ["--ef-search", "30"]):
        assert mvr("search", tmp_path / "c", "--id", "shape-000.ply", *flags)[0] == 0
    assert "nprobe is at least 1" in mvr("search", tmp_path / "c", "--id", "shape-000.ply", "--nprobe", "0")[2]


def test_a_label_with_the_name_of_a_fact_is_noted(mvr: Mvr, tmp_path: Path) -> None:
    (file,) = write_shapes(tmp_path / "meshes", [0])
    (tmp_path / "labels.csv").write_text(f"file,faces,maker\n{file},3,a\n")
    code, _, err = mvr("index", tmp_path / "c", tmp_path / "meshes", *FLAGS, "--labels", tmp_path / "labels.csv")
    assert code == 0 and "note: in filters, faces is the label and not the fact" in err
    assert mvr("info", tmp_path / "c", "--failures")[1].endswith("failures      none\n")


def test_an_empty_collection_has_no_hits(mvr: Mvr, tmp_path: Path, shapes: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = mvr("index", tmp_path / "c", tmp_path / "empty", *FLAGS)
    assert code == 1 and f"no mesh found in {tmp_path / 'empty'}; the formats are .3mf" in err
    assert not (tmp_path / "c").exists()  # and pins no encoder
    code, _, err = mvr("render", tmp_path / "empty", "--out", tmp_path / "views")
    assert code == 1 and "no mesh found in" in err
    (tmp_path / "empty" / "bad.obj").write_text("v 0 0 0\n")
    code, _, err = mvr("index", tmp_path / "d", tmp_path / "empty", "--labels", tmp_path / "nowhere.csv", *FLAGS)
    assert code == 1 and "nowhere.csv" in err and not (tmp_path / "d").exists()
    code, out, _ = mvr("index", tmp_path / "d", tmp_path / "empty", *FLAGS)
    assert code == 1 and "d: 0 objects" in out and f"delete {tmp_path / 'd'}" in out
    code, out, _ = mvr("index", tmp_path / "d", tmp_path / "empty", "--json")
    report = json.loads(out)
    assert code == 1 and (report["schema"], report["objects"], report["failed"]) == (1, 0, {"no_faces": 1})
    code, out, _ = mvr("search", tmp_path / "d", "--mesh", shapes / "shape-000.ply")
    assert code == 0 and out == "no hits: the collection is empty\n"
    code, _, err = mvr("eval", tmp_path / "d")
    assert code == 1 and f"{tmp_path / 'd'} is empty: add objects" in err
    code, out, _ = mvr("search", tmp_path / "d", "--mesh", shapes / "shape-000.ply", "--json")
    assert code == 0 and out == ""


def test_the_page_embeds_its_images_and_needs_no_network(mvr: Mvr, folder: Path, shapes: Path, tmp_path: Path) -> None:
    image = tmp_path / "a <b> & photo.png"
    Image.fromarray(np.full((50, 50, 3), 90, np.uint8)).save(image)
    page = tmp_path / "pages" / "page.html"
    sources = ["--mesh", shapes / "shape-001.ply", "--image", image, "--minus-id", "shape-002.ply"]
    code, out, err = mvr("search", folder, *sources, "--html", page, "-k", "4")
    assert code == 0 and len(out.splitlines()) == 5 and str(page) in err
    html = page.read_text()
    images = re.findall(r'<img src="([^"]*)"', html)
    assert len(images) == 3 + 4 and all(url.startswith("data:image/webp;base64,") for url in images)
    text = re.sub(r'"data:[^"]*"', '""', html)
    assert not re.search(r"https?:|//|<script|<link|@import|url\(", text)
    assert "a &lt;b&gt; &amp; photo.png" in text and "<b>" not in text


def test_database_side_augmentation_needs_neither_files_nor_encoder(mvr: Mvr, folder: Path, tmp_path: Path) -> None:
    c = tmp_path / "c"
    shutil.copytree(folder, c)
    with Collection.open(c, write=True) as collection:
        collection.session.store.set_meta("view_fingerprint", "of an encoder that is not here")

    def augmentation() -> Any:
        return as_json(mvr("info", c, "--json"))["augmentation"]

    code, out, _ = mvr("reindex", c, "--dba", "3", "--dba-alpha", "2")
    assert code == 0 and out.startswith(f"{c}: 12 objects, database-side augmentation: 3 neighbours")
    assert augmentation() == {"k": 3, "alpha": 2.0, "up_to_date": True}
    assert mvr("remove", c, "shape-000.ply")[0] == 0
    assert not augmentation()["up_to_date"] and "next 'mvr index'" in mvr("info", c)[1]
    assert mvr("reindex", c, "--dba", "3")[0] == 0
    assert augmentation() == {"k": 3, "alpha": 3.0, "up_to_date": True} and "outdated" not in mvr("info", c)[1]
    assert mvr("reindex", c, "--dba", "0")[:2] == (0, f"{c}: 11 objects, database-side augmentation: off\n")
    assert augmentation() is None
    code, _, err = mvr("reindex", c, "--dba=-1")
    assert code == 1 and "-1" in err


def test_expansion_and_reranking(mvr: Mvr, folder: Path) -> None:
    search = ("search", folder, "--id", "shape-001.ply", "-k", "5", "--json")

    def hits(*more: str) -> list[dict[str, Any]]:
        code, out, _ = mvr(*search, *more)
        assert code == 0
        return [json.loads(line) for line in out.splitlines()]

    plain, reranked = hits(), hits("--rerank-views")
    assert "matches" not in plain[0] and len(reranked) == 5
    assert hits("--rerank-views", "7", "--rerank-weight", "0")[0]["score"] == pytest.approx(plain[0]["score"], abs=1e-5)
    assert all(hit["score"] == hit["matches"][0] for hit in hits("--rerank-views", "--rerank-weight", "1"))
    assert hits("--expand", "2")[0]["score"] != plain[0]["score"]
    for wrong, value in (("--expand=-1", "-1"), ("--rerank-weight=2", "2")):
        code, out, _ = mvr(*search, wrong)
        error = json.loads(out)["error"]
        assert code == 1 and error["code"] == "bad_rerank_options" and value in error["message"]
    assert mvr(*search, "--rerank-views", "1", "2")[0] == 2


def test_search_repeats_a_query_that_was_encoded_before_a_reembedding(
    mvr: Mvr, things: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    c = tmp_path / "c"
    shutil.copytree(things.folder, c)
    encoded: list[int] = []

    def encode(session: Session, query: Query) -> list[EncodedTerm]:
        terms = encode_query(session, query)
        if not encoded:
            with Collection.open(c, write=True) as other:
                reembed(other.session, replace(other.describer.config, center=True))
        encoded.append(session.dim)
        return terms

    monkeypatch.setattr(pipeline, "encode_query", encode)
    found = mvr("search", c, "--id", "shape-001.ply", "--json")
    monkeypatch.undo()
    assert len(encoded) == 2
    assert found == mvr("search", c, "--id", "shape-001.ply", "--json")
    assert found != mvr("search", things.folder, "--id", "shape-001.ply", "--json")
    assert vars(demo)["search"] is pipeline.search  # `mvr demo` holds the writer lock: nothing can come in between


def test_render_writes_views_and_a_sheet(mvr: Mvr, tmp_path: Path) -> None:
    meshes = tmp_path / "meshes"
    write_shapes(meshes / "sub", [0])
    write_shapes(meshes, [1])
    (meshes / "bad.obj").write_text("v 0 0 0\n")
    out_folder = tmp_path / "views"
    arguments = ["--out", out_folder, "--rig", "ring:2@30", "--size", "64", "--styles", "clay,depth"]
    code, out, err = mvr("render", meshes, *arguments)
    assert code == 0 and out.strip() == str(out_folder / "sheet.png") and "no_faces" in err
    names = sorted(str(p.relative_to(out_folder)) for p in out_folder.rglob("*.*") if p.is_file())
    assert len(names) == 2 * 2 * 2 + 1 + 2
    assert "sub/shape-000.ply/clay_00.png" in names and "shape-001.ply/depth_01.png" in names
    with Image.open(out_folder / "shape-001.ply/clay_00.png") as image:
        assert image.size == (64, 64)
    assert mvr("render", meshes / "bad.obj", *arguments)[0] == 1
    # View images give the vectors of their meshes, except where an edge only in depth refines the clay style.
    same = ["--encoder", "builtin:", "--size", "64", "--styles", "clay"]
    assert mvr("index", tmp_path / "a", meshes, "--rig", "ring:2@30", *same)[0] == 0
    assert mvr("index", tmp_path / "b", "--view-manifest", out_folder / "views-clay.csv", *same)[0] == 0
    with Collection.open(tmp_path / "a") as rendered, Collection.open(tmp_path / "b") as read:
        assert read.describer.config == rendered.describer.config
        for own_id in ("sub/shape-000.ply", "shape-001.ply"):
            of_mesh, of_images = (c.session.views(c.session.row_id_of(own_id)) for c in (rendered, read))
            assert np.array_equal(of_mesh[1], of_images[1]) and (of_mesh[0] * of_images[0]).sum(axis=-1).min() > 0.9999


def test_rendered_views_keep_the_ids_of_odd_names(mvr: Mvr, tmp_path: Path) -> None:
    """Equal names in two folders, names that would be one without their folders, blanks, quotes, long paths."""
    deep = "/".join(["d" * 60] * 5)
    ids = ["chair.ply", "chair.ply~2", "x/y.ply", "x__y.ply", "lead .ply", '"q", ü.ply', f"{deep}/z.ply"]
    names = ["a/chair.ply", "b/chair.ply", "a/x/y.ply", "a/x__y.ply", "a/ lead .ply", 'a/"q", ü.ply', f"a/{deep}/z.ply"]
    for n, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shape(n).export(tmp_path / name)
    out = tmp_path / "views"
    first = mvr("render", tmp_path / "a" / "x__y.ply", "--out", out, "--rig", "ring:2@30", "--size", "64")
    again = mvr("render", tmp_path / "a", tmp_path / "b", "--out", out, "--rig", "ring:2@30", "--size", "64")
    assert first[0] == again[0] == 0
    assert (
        mvr(
            "index",
            tmp_path / "c",
            "--view-manifest",
            out / "views-texture.csv",
            "--encoder",
            "builtin:",
            "--size",
            "64",
        )[0]
        == 0
    )
    with Collection.open(tmp_path / "c") as collection:
        assert sorted(collection.session.store.some_ids()) == sorted(ids)
        vectors = np.stack([collection.session.store.vector_of(collection.session.row_id_of(name)) for name in ids])
    assert (
        mvr("index", tmp_path / "m", tmp_path / "a", tmp_path / "b", *FLAGS[:2], "--rig", "ring:2@30", "--size", "64")[
            0
        ]
        == 0
    )
    with Collection.open(tmp_path / "m") as collection:
        paths = {record.path: row_id for row_id, record in collection.session.store.records(list(range(1, 8))).items()}
        assert np.array_equal(
            vectors, [collection.session.store.vector_of(paths[str(tmp_path / name)]) for name in names]
        )


def test_rendering_into_an_unusable_folder_fails_and_keeps_its_files(mvr: Mvr, tmp_path: Path) -> None:
    write_shapes(tmp_path / "meshes", [0, 1])
    out = tmp_path / "views"
    out.mkdir()
    (out / "shape-000.ply").write_text("in the way")
    code, _, err = mvr("render", tmp_path / "meshes", "--out", out, "--rig", "ring:2@30", "--size", "64")
    assert code == 0 and "shape-000.ply: its views cannot be written: File exists (not_written)" in err
    listed = (out / "views-texture.csv").read_text()
    assert "shape-001.ply" in listed and "shape-000.ply" not in listed
    (out / "views-texture.csv").write_text("id,file\n")
    code, _, err = mvr("render", tmp_path / "meshes", "--out", out, "--rig", "ring:2@30", "--size", "64")
    assert code == 1 and "views-texture.csv" in err


def test_the_doctor_and_the_messages_name_extras_that_exist() -> None:
    from mvretrieval.cli.doctor import _formats

    root = Path(__file__).parents[2]
    section = (root / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"^([a-z]+) = \[", section, re.MULTILINE))
    named = {re.findall(r"'([a-z]+)'", finding.name)[0] for finding in _formats()}
    for folder in ("mvretrieval", "render", "training"):
        for file in (root / folder).rglob("*.py"):
            named |= set(re.findall(r"mvretrieval\[([a-z]+)\]", file.read_text()))
    assert {"cad", "serve"} <= named and named <= extras
