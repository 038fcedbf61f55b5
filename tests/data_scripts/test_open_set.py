from __future__ import annotations

import functools
import http.server
import io
import json
import shlex
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from fake_archives import check_error, files_of, image, table, write_folder, write_zip
from PIL import Image, ImageDraw

from data_scripts import open_set
from mvretrieval.cli import reproduce
from mvretrieval.cli.main import main
from mvretrieval.evaluation.protocols import OpenSetQueries
from mvretrieval.evaluation.reproduce.table import read_table
from mvretrieval.ingest.labels_csv import read_labels

DEGREES = range(0, 360, 15)


def views(folder: str, grey: int = 0, degrees: tuple[int, ...] = tuple(DEGREES)) -> dict[str, bytes]:
    return {f"{folder}/image/h_{deg}.jpg": image(grey + deg // 15) for deg in degrees}


OTHERS = {
    "train/L Blocks/spacer_66/pointcloud/pt_1024.pts": b"0 0 0",
    "train/L Blocks/spacer_66/voxel/vox_32.ply": b"ply",
}
OBJECTS = (
    views("train/L Blocks/spacer_66")
    | views("train/Clips/a,b", 30)
    | views("query/gear_1", 60)
    | views("target/gear_2", 90)
)
LABELS = {"query_label.txt": b"gear_1,Gears\n", "target_label.txt": b"gear_2,Gears\r\n\n"}


def release(folder: Path, objects: dict[str, bytes] = OBJECTS | OTHERS, labels: dict[str, bytes] = LABELS) -> Path:
    """The zip, and the two lists beside it, as downloaded."""
    write_folder(folder, labels)
    write_zip(folder / "OS-ESB-core.zip", {f"OS-ESB-core/{name}": data for name, data in objects.items()})
    return folder


def run(source: Path, out: Path, *more: str) -> int:
    return open_set.main([str(source), str(out), *more])


def test_the_release_with_both_orders_of_views(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(release(tmp_path / "os"), out) == 0
    rows = table(out / "labels.csv")
    assert {row["file"]: (row["label"], row["split"]) for row in rows} == {
        "train/L Blocks/spacer_66": ("L Blocks", "train"),
        "train/Clips/a,b": ("Clips", "train"),
        "query/Gears/gear_1": ("Gears", "query"),
        "target/Gears/gear_2": ("Gears", "target"),
    }
    assert set(read_labels(out / "labels.csv").rows) == {str(out / row["file"]) for row in rows}
    for file, order in (("views.csv", list(DEGREES)), ("views_text_order.csv", sorted(DEGREES, key=str))):
        of_one = [row for row in table(out / file) if row["id"] == "query/Gears/gear_1"]
        assert [float(row["azimuth_deg"]) for row in of_one] == order
        assert [row["file"] for row in of_one] == [f"query/Gears/gear_1/h_{deg}.jpg" for deg in order]
        assert {row["elevation_deg"] for row in of_one} == {"30"}
        assert (out / of_one[1]["file"]).read_bytes() == image(60 + order[1] // 15)
        assert len(table(out / file)) == 96
    assert [row["azimuth_deg"] for row in table(out / "views_text_order.csv")[:3]] == ["0", "105", "120"]
    printed = capsys.readouterr()
    assert printed.out == f"mvr index open-set-collection/ --view-manifest {out}/views.csv --labels {out}/labels.csv\n"
    assert "2 train objects, published: 98" in printed.err
    assert "1 unseen classes, published: 24" in printed.err
    assert not list(out.rglob("*.ply"))


def test_the_published_queries_are_those_of_mvr_eval(tmp_path: Path) -> None:
    assert run(release(tmp_path / "os"), tmp_path / "out") == 0
    assert OpenSetQueries.read(tmp_path / "out/queries.json").ids == ("query/Gears/gear_1",)


def test_class_folders_with_a_split_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def sample(path: str) -> dict[str, object]:
        label = path.split("/")[0].lower().replace(")_(", "___")
        return {"path": path, "label": label, "label_list": label.split("___"), "label_idx": 0}

    train, query, target, gone = "Flat)_(Clips/x", "Solid)_(Gears/g 1", "Solid)_(Gears/g2", "Solid)_(Gears/g3"
    split = {
        "train": {"sample": [sample(train)]},
        "retrieval": {"query": [sample(query)], "target": [sample(target), sample(gone)]},
    }
    files = {f"ESB_MM/{name}": data for path in (train, query, target) for name, data in views(path).items()}
    files["splits/esb__level_all__t2r8.json"] = json.dumps(split).encode()
    out = tmp_path / "out"
    assert run(write_folder(tmp_path / "data", files), out, "--set", "esb") == 0
    assert {row["file"]: row["split"] for row in table(out / "labels.csv")} == {
        "train/flat___clips/x": "train",
        "query/solid___gears/g 1": "query",
        "target/solid___gears/g2": "target",
    }
    printed = capsys.readouterr().err
    assert "1 objects of the split without views: target Solid)_(Gears/g3" in printed
    assert "1 target objects, published: 452" in printed


def test_a_damaged_view_is_left_out_of_its_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = {"query/gear_1/image/h_45.jpg": b"<html>", "target/gear_2/image/h_0.jpg": image()[:-200]}
    assert run(release(tmp_path / "os", OBJECTS | bad), tmp_path / "out") == 0
    listed = [row["file"] for row in table(tmp_path / "out/views.csv")]
    assert len(listed) == 94
    assert "query/Gears/gear_1/h_45.jpg" not in listed
    assert len(table(tmp_path / "out/labels.csv")) == 4
    assert "query/gear_1/image/h_45.jpg is not a readable image" in capsys.readouterr().err


def test_other_numbers_of_views_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = views("target/gear_2", degrees=(0, 90))
    objects = {name: data for name, data in OBJECTS.items() if not name.startswith("target/")} | few
    assert run(release(tmp_path / "os", objects), tmp_path / "out") == 0
    assert "1 objects with a number of views other than 24: target/Gears/gear_2 (2)" in capsys.readouterr().err


def test_a_second_run_writes_only_missing_files(tmp_path: Path) -> None:
    source, out = release(tmp_path / "os"), tmp_path / "out"
    assert run(source, out) == 0
    before = files_of(out)
    (out / "query/Gears/gear_1/h_90.jpg").unlink()
    (out / "labels.csv").unlink()
    assert run(source, out, "--set", "esb") == 0
    after = files_of(out)
    assert set(after) == set(before)
    rewritten = {name for name in after if after[name] != before[name] and name.endswith(".jpg")}
    assert rewritten <= {"query/Gears/gear_1/h_90.jpg"}


def test_a_missing_or_damaged_split_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(release(tmp_path / "os", labels={"query_label.txt": b"gear_1,Gears"}), tmp_path / "out") == 1
    check_error(capsys, "missing_split", "target_label.txt")
    assert run(write_folder(tmp_path / "bare", views("Clips/x")), tmp_path / "out") == 1
    check_error(capsys, "missing_split")
    assert run(write_folder(tmp_path / "meshes", {"a/b.off": b"OFF"}), tmp_path / "out") == 1
    check_error(capsys, "wrong_data_set", "image/h_DEG.jpg")
    assert run(release(tmp_path / "odd", labels=LABELS | {"query_label.txt": b"gear_1 Gears"}), tmp_path / "out") == 1
    check_error(capsys, "bad_split", "OBJECT,CLASS")
    latin = LABELS | {"query_label.txt": "gear_1,Zahnräder".encode("latin-1")}
    assert run(release(tmp_path / "latin", labels=latin), tmp_path / "out") == 1
    check_error(capsys, "not_utf8", "query_label.txt")
    split = {"train": {"sample": [{"path": "x"}]}, "retrieval": {"query": [], "target": []}}
    files = views("Clips/x") | {"esb.json": json.dumps(split).encode()}
    assert run(write_folder(tmp_path / "keyless", files), tmp_path / "out") == 1
    check_error(capsys, "bad_split", "esb.json")


def test_names_in_lists_cannot_escape_the_folder(tmp_path: Path) -> None:
    labels = {"query_label.txt": b"gear_1,../../evil", "target_label.txt": b"../query/gear_1,Gears"}
    out = tmp_path / "deep/er/out"
    run(release(tmp_path / "os", labels=labels), out)
    assert {path for path in tmp_path.rglob("h_0.jpg") if not path.is_relative_to(out)} == set()


def test_downloads_are_known_for_three_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "new", tmp_path / "out", "--download") == 1
    check_error(capsys, "no_set")
    assert run(tmp_path / "new", tmp_path / "out", "--set", "abo", "--download") == 1
    check_error(capsys, "no_download")


def test_archives_of_several_sets_in_one_folder_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = release(tmp_path / "downloads")
    out = tmp_path / "out"
    for more in (["--set", "ntu"], ["--set", "ntu", "--download", "http://127.0.0.1:1/OS-NTU-core.zip"]):
        assert run(folder, out, *more) == 1
        check_error(capsys, "several_sets", "OS-ESB-core.zip", "ntu", f"{folder}/os-ntu")
    assert run(folder / "OS-ESB-core.zip", out, "--set", "mn40") == 1
    check_error(capsys, "several_sets", f"{folder}/os-mn40")
    write_zip(folder / "OS-NTU-core.zip", {"OS-NTU-core/query/x/image/h_0.jpg": image()})
    for more in ([], ["--set", "esb"]):
        assert run(folder, out, *more) == 1
        check_error(capsys, "several_sets", "OS-NTU-core.zip")
    assert not out.exists()


def test_lists_of_another_set_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = LABELS | {"target_label.txt": b"chair_1,Chairs\nchair_2,Chairs\n"}
    assert run(release(tmp_path / "os", labels=lists), tmp_path / "out") == 1
    check_error(capsys, "no_views", "2 target objects", "OS-ESB-core/target/chair_1")


def test_two_sets_in_sequence_by_the_commands_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a local server that has the layout of the real one; the lists of both sets have the same names."""
    server_folder = tmp_path / "server"
    for name, label in (("ESB", "Gears"), ("NTU", "Chairs")):
        place = server_folder / f"OS-{name}-core"
        write_folder(place, {"query_label.txt": f"q,{label}".encode(), "target_label.txt": f"t,{label}".encode()})
        drawn = {
            f"OS-{name}-core/{file}": data for part in ("query/q", "target/t") for file, data in views(part).items()
        }
        write_zip(place / f"OS-{name}-core.zip", drawn)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    published = read_table("open-set")
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(server_folder))
    ) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(open_set, "_SERVER", f"http://127.0.0.1:{server.server_port}")
        for name, label in (("esb", "Gears"), ("ntu", "Chairs")):
            script = published.commands(f"os-{name}-openclip-l14")[0].replace("{dir}", str(tmp_path))
            assert open_set.main(shlex.split(script.replace("DOWNLOADS", str(tmp_path / "downloads")))[3:]) == 0
            rows = table(tmp_path / f"data/os-{name}/labels.csv")
            assert [(row["label"], row["split"]) for row in rows] == [(label, "query"), (label, "target")]
        server.shutdown()


def test_from_the_archive_to_a_row_of_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run the printed commands of the row, with the builtin encoder instead of its own."""
    drawn = {name: drawing(name.rsplit("/image/")[0], name) for name in OBJECTS}
    lists = {"query_label.txt": b"gear_1,Gears\n", "target_label.txt": b"gear_2,Gears\nnut,Nuts\n"}
    drawn |= {name: drawing("target/nut", name) for name in views("target/nut")}
    release(tmp_path / "downloads/os-esb", drawn, lists)
    published = read_table("open-set")
    (row,) = [row for row in published.rows if row.name == "esb-openclip-l14"]
    script, index = (command.replace("{dir}", str(tmp_path)) for command in published.commands(row.collection))
    arguments = shlex.split(script.replace("DOWNLOADS", str(tmp_path / "downloads")).replace(" --download", ""))
    assert open_set.main(arguments[3:]) == 0
    assert mvr(shlex.split(index.replace(row.encoder, "builtin:"))[1:]) == 0
    capsys.readouterr()
    assert mvr(["reproduce", "open-set", "--row", row.name, "--collections", str(tmp_path)]) == 1
    assert f"made with builtin: and no adapter, the row needs {row.encoder}" in capsys.readouterr().err
    patched = replace(published, rows=(replace(row, encoder="builtin:"),))
    monkeypatch.setattr(reproduce, "read_table", lambda name: patched)
    assert mvr(["reproduce", "open-set", "--row", row.name, "--collections", str(tmp_path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["rows"]
    assert (
        found["value"] == pytest.approx(100) and found["verdict"] == "not reproduced"
    )  # the gear query retrieves the other gear, not the nut


def drawing(shape: str, name: str) -> bytes:
    """A disc for gears and a bar for all others; the size depends on the name."""
    image = Image.new("RGB", (64, 64), "white")
    size = 10 + sum(name.encode()) % 5
    box = (32 - 2 * size, 32 - size, 32 + 2 * size, 32 + size) if "gear" in shape else (30, 2, 34, 40 + size)
    draw = ImageDraw.Draw(image)
    (draw.ellipse if "gear" in shape else draw.rectangle)(box, fill="grey")
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


def mvr(arguments: list[str]) -> int:
    with pytest.MonkeyPatch.context() as patched, pytest.raises(SystemExit) as ended:
        patched.setattr(sys, "argv", ["mvr", *arguments])
        main()
    return int(ended.value.code or 0)
