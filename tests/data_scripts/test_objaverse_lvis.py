from __future__ import annotations

import functools
import gzip
import http.server
import json
import threading
from pathlib import Path

import pytest
from made_archives import files_of, glb, table, write_folder, write_zip

from data_scripts import objaverse_lvis
from mvretrieval.ingest.labels_csv import read_labels

ANNOTATIONS = {"Christmas_tree": ["u1", "u2"], "chair": ["u3", "u1"], "0.38-caliber": ["u4"]}
PATHS = {f"u{i}": f"glbs/000-00{i}/u{i}.glb" for i in range(1, 6)}
FILES = {path: glb(i) for i, path in enumerate(PATHS.values())}
LVIS = {"lvis-annotations.json.gz": gzip.compress(json.dumps(ANNOTATIONS).encode())}
INDEX = {"object-paths.json.gz": gzip.compress(json.dumps(PATHS).encode())}


def run(source: Path, out: Path, *more: str) -> int:
    return objaverse_lvis.main([str(source), str(out), *more])


def test_objects_with_a_category_are_laid_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
    said = capsys.readouterr()
    assert said.out == f"mvr index objaverse-lvis-collection/ {out} --labels {out}/labels.csv\n"
    assert "1 objects have several categories" in said.err
    assert "4 objects, and 46,832 were published" in said.err


def test_categories_and_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_folder(tmp_path / "objaverse", FILES | LVIS)
    assert run(source, tmp_path / "out", "--categories", "Christmas_tree", "--limit", "1") == 0
    assert [row["name"] for row in table(tmp_path / "out/labels.csv")] == ["u1"]
    assert "published" not in capsys.readouterr().err
    assert run(source, tmp_path / "out2", "--categories", "tree") == 1
    assert "no category is called tree" in capsys.readouterr().err


def test_missing_and_damaged_objects_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {n: d for n, d in FILES.items() if "u2" not in n} | LVIS
    source = write_folder(tmp_path / "objaverse", files | {PATHS["u3"]: b"<html>"})
    assert run(source, tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "1 objects are missing: u2" in said
    assert "u3.glb is no GLB file" in said
    assert [row["name"] for row in table(tmp_path / "out/labels.csv")] == ["u1", "u4"]
    before = files_of(tmp_path / "out")
    (source / PATHS["u3"]).write_bytes(glb(2))  # mended
    assert run(source, tmp_path / "out") == 0
    after = files_of(tmp_path / "out")
    assert {n for n in after if n.endswith(".glb") and after[n] != before.get(n)} == {"chair/u3.glb"}


def test_what_is_missing_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(write_folder(tmp_path / "a", FILES), tmp_path / "out") == 1
    assert "lacks lvis-annotations.json.gz" in capsys.readouterr().err
    assert run(write_folder(tmp_path / "b", LVIS), tmp_path / "out") == 1
    assert "holds no GLB files" in capsys.readouterr().err
    assert run(write_folder(tmp_path / "c", LVIS | {"x.glb": glb()}), tmp_path / "out") == 1
    assert "none of the 1 GLB files" in capsys.readouterr().err
    damaged = {"lvis-annotations.json.gz": LVIS["lvis-annotations.json.gz"][:-9]}
    assert run(write_folder(tmp_path / "d", FILES | damaged), tmp_path / "out") == 1
    assert "is damaged" in capsys.readouterr().err
    whole = LVIS["lvis-annotations.json.gz"]
    garbled = {"lvis-annotations.json.gz": whole[:10] + b"\xff" + whole[11:]}  # no kind of block
    assert run(write_folder(tmp_path / "e", FILES | garbled), tmp_path / "out") == 1
    assert "is damaged (its compression is damaged: Error" in capsys.readouterr().err


def test_download_fetches_the_chosen_objects_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
        assert "this is not Objaverse 1.0" in capsys.readouterr().err
        server.shutdown()
