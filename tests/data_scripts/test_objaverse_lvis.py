from __future__ import annotations

import functools
import gzip
import http.server
import json
import threading
from pathlib import Path

import pytest
from fake_archives import check_error, files_of, glb, table, write_folder, write_zip

from data_scripts import objaverse_lvis
from mvretrieval.ingest.labels_csv import read_labels

ANNOTATIONS = {"Christmas_tree": ["u1", "u2"], "chair": ["u3", "u1"], "0.38-caliber": ["u4"]}
PATHS = {f"u{i}": f"glbs/000-00{i}/u{i}.glb" for i in range(1, 6)}
FILES = {path: glb(i) for i, path in enumerate(PATHS.values())}
LVIS = {"lvis-annotations.json.gz": gzip.compress(json.dumps(ANNOTATIONS).encode())}
INDEX = {"object-paths.json.gz": gzip.compress(json.dumps(PATHS).encode())}


def run(source: Path, out: Path, *more: str) -> int:
    return objaverse_lvis.main([str(source), str(out), *more])


def test_objects_with_a_category_are_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    source = write_zip(
        tmp_path / "objaverse.zip", {f"hf-objaverse-v1/{n}": d for n, d in (FILES | LVIS | INDEX).items()}
    )
    assert run(source, out) == 0
    rows = {row["name"]: row for row in table(out / "labels.csv")}
    assert {uid: (row["file"], row["label"], row["categories"]) for uid, row in rows.items()} == {
        "u1": ("Christmas_tree/u1.glb", "Christmas_tree", "Christmas_tree, chair"),
        "u2": ("Christmas_tree/u2.glb", "Christmas_tree", "Christmas_tree"),
        "u3": ("chair/u3.glb", "chair", "chair"),
        "u4": ("0.38-caliber/u4.glb", "0.38-caliber", "0.38-caliber"),
    }
    assert len(read_labels(out / "labels.csv").rows) == 4
    printed = capsys.readouterr()
    assert printed.out == f"mvr index objaverse-lvis-collection/ {out} --labels {out}/labels.csv\n"
    assert "1 objects have several categories" in printed.err
    assert "4 objects, published: 46,832" in printed.err


def test_categories_and_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_folder(tmp_path / "objaverse", FILES | LVIS)
    assert run(source, tmp_path / "out", "--categories", "Christmas_tree", "--limit", "1") == 0
    assert [row["name"] for row in table(tmp_path / "out/labels.csv")] == ["u1"]
    assert "published" not in capsys.readouterr().err
    assert run(source, tmp_path / "out2", "--categories", "tree") == 1
    check_error(capsys, "unknown_category", "tree")


def test_missing_and_damaged_objects_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {n: d for n, d in FILES.items() if "u2" not in n} | LVIS
    source = write_folder(tmp_path / "objaverse", files | {PATHS["u3"]: b"<html>"})
    assert run(source, tmp_path / "out") == 0
    printed = capsys.readouterr().err
    assert "1 objects are missing: u2" in printed
    assert "u3.glb is not a GLB file" in printed
    assert [row["name"] for row in table(tmp_path / "out/labels.csv")] == ["u1", "u4"]
    before = files_of(tmp_path / "out")
    (source / PATHS["u3"]).write_bytes(glb(2))  # repaired
    assert run(source, tmp_path / "out") == 0
    after = files_of(tmp_path / "out")
    assert {n for n in after if n.endswith(".glb") and after[n] != before.get(n)} == {"chair/u3.glb"}


def test_missing_and_damaged_lists_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(write_folder(tmp_path / "a", FILES), tmp_path / "out") == 1
    check_error(capsys, "missing_labels", "lvis-annotations.json.gz")
    assert run(write_folder(tmp_path / "b", LVIS), tmp_path / "out") == 1
    check_error(capsys, "wrong_data_set", "GLB")
    assert run(write_folder(tmp_path / "c", LVIS | {"x.glb": glb()}), tmp_path / "out") == 1
    check_error(capsys, "no_objects")
    damaged = {"lvis-annotations.json.gz": LVIS["lvis-annotations.json.gz"][:-9]}
    assert run(write_folder(tmp_path / "d", FILES | damaged), tmp_path / "out") == 1
    check_error(capsys, "bad_index", "is damaged")
    whole = LVIS["lvis-annotations.json.gz"]
    garbled = {"lvis-annotations.json.gz": whole[:10] + b"\xff" + whole[11:]}  # an invalid block type
    assert run(write_folder(tmp_path / "e", FILES | garbled), tmp_path / "out") == 1
    check_error(capsys, "bad_index", "compressed data are damaged: Error")


def test_download_gets_only_the_selected_objects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = write_folder(tmp_path / "site", FILES | LVIS | INDEX)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        options = ("--categories", "chair", "--download", address)
        assert run(tmp_path / "here", tmp_path / "out", *options) == 0
        assert sorted(table["name"] for table in table(tmp_path / "out/labels.csv")) == ["u1", "u3"]
        assert len(list((tmp_path / "here").rglob("*.glb"))) == 2
        assert run(tmp_path / "here", tmp_path / "out", *options) == 0
        (site / "object-paths.json.gz").write_bytes(gzip.compress(json.dumps({"u3": "../../evil.glb"}).encode()))
        assert run(tmp_path / "there", tmp_path / "out2", *options) == 1
        check_error(capsys, "bad_index", "../../evil.glb")
        server.shutdown()
