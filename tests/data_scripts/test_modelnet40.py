"""ModelNet40, and the behaviour common to all scripts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_archives import check_error, damage, files_of, off, table, write_folder, write_tar, write_zip

from data_scripts import modelnet40
from data_scripts.layout import Layout
from mvrender.loading import load
from mvretrieval.ingest.labels_csv import read_labels

FILES = {
    "ModelNet40/README.txt": b"about",
    "ModelNet40/bed/train/bed_0001.off": off(1),
    "ModelNet40/bed/test/bed_0516.off": off(2).replace(b"OFF\n", b"OFF"),
    "ModelNet40/night_stand/train/night_stand_0001.off": off(3),
}


def run(source: Path, out: Path, *more: str) -> int:
    return modelnet40.main([str(source), str(out), *more])


@pytest.mark.parametrize("kind", ["zip", "tar", "folder"])
def test_layout_labels_and_next_command(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    if kind == "folder":
        source = write_folder(tmp_path / "source", FILES)
    else:
        source = {"zip": write_zip, "tar": write_tar}[kind](tmp_path / f"ModelNet40.{kind}", FILES)
    out = tmp_path / "out"
    assert run(source, out) == 0
    assert table(out / "labels.csv") == [
        {"file": "test/bed/bed_0516.off", "label": "bed", "split": "test", "name": "bed_0516", "up": "+z"},
        {"file": "train/bed/bed_0001.off", "label": "bed", "split": "train", "name": "bed_0001", "up": "+z"},
        {
            "file": "train/night_stand/night_stand_0001.off",
            "label": "night_stand",
            "split": "train",
            "name": "night_stand_0001",
            "up": "+z",
        },
    ]
    printed = capsys.readouterr()
    assert printed.out == f"mvr index modelnet40-collection/ {out} --labels {out}/labels.csv\n"
    assert "2 train models, published: 9,843" in printed.err
    assert "2 classes, published: 40" in printed.err
    labels = read_labels(out / "labels.csv")
    assert all(Path(file).is_file() for file in labels.rows)
    assert labels.up[str(out / "test/bed/bed_0516.off")] == "+z"
    assert load(out / "test/bed/bed_0516.off", up="+z").facts["faces"] == 4


def test_an_interrupted_run_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_zip(tmp_path / "ModelNet40.zip", FILES)
    out = tmp_path / "out"
    write = Layout.write

    def interrupted(layout: Layout, file: str, data: bytes) -> None:
        if file.startswith("train/night_stand"):
            path = layout.path(file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f"{path.name}.partial").write_bytes(data[:5])
            raise KeyboardInterrupt
        write(layout, file, data)

    with monkeypatch.context() as patched:
        patched.setattr(Layout, "write", interrupted)
        assert run(source, out) == 130
    before = files_of(out)
    assert not (out / "labels.csv").exists()
    assert not (out / "train/night_stand/night_stand_0001.off").exists()
    assert run(source, out) == 0
    after = files_of(out)
    assert len(table(out / "labels.csv")) == 3
    assert {name: after[name] for name in before if name.endswith(".off")} == {
        name: known for name, known in before.items() if name.endswith(".off")
    }
    assert not [name for name in after if name.endswith(".partial")]
    (out / "train/bed/bed_0001.off").write_bytes(b"OFF")  # truncated in place
    assert run(source, out) == 0
    assert (out / "train/bed/bed_0001.off").read_bytes() == off(1)


def test_a_damaged_member_is_left_out_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_zip(tmp_path / "ModelNet40.zip", FILES)
    damage(source, off(3))
    assert run(source, tmp_path / "out") == 0
    assert [row["name"] for row in table(tmp_path / "out/labels.csv")] == ["bed_0516", "bed_0001"]
    assert "ModelNet40/night_stand/train/night_stand_0001.off damaged" in capsys.readouterr().err
    assert run(source, tmp_path / "out", "--strict") == 1


@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", b"OFF\n4 4 0\n0 0 0\n1 0 0\n", b"OFF\n4 0 0\n", b"OFF\nx y z\n"]
)
def test_invalid_meshes_are_left_out(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_folder(tmp_path / "source", FILES | {"ModelNet40/bed/train/bed_0001.off": content})
    assert run(source, tmp_path / "out") == 0
    assert "bed_0001" not in (tmp_path / "out/labels.csv").read_text()
    assert "bed/train/bed_0001.off" in capsys.readouterr().err


def test_files_of_a_folder_are_hard_linked(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", FILES)
    assert run(source, tmp_path / "out") == 0
    name = "ModelNet40/bed/train/bed_0001.off"
    assert (source / name).samefile(tmp_path / "out/train/bed/bed_0001.off")


def test_a_wrong_archive_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_zip(tmp_path / "other.zip", {"some/thing.obj": b"v 0 0 0"})
    assert run(source, tmp_path / "out") == 1
    check_error(capsys, "wrong_data_set", "ModelNet40/CLASS/{train,test}")
    assert not (tmp_path / "out").exists()


def test_a_folder_holds_one_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_zip(tmp_path / "ModelNet40.zip", FILES)
    out = tmp_path / "out"
    assert run(source, out) == 0
    record = json.loads((out / "data_set.json").read_text())
    assert record["data_set"] == "modelnet40"
    assert record["licence"] == modelnet40.DATA_SET.licence
    (out / "data_set.json").write_text(json.dumps({**record, "data_set": "psb"}))
    assert run(source, out) == 1
    check_error(capsys, "other_data_set", "psb")
    (out / "data_set.json").write_text("[]")
    assert run(source, out) == 1
    check_error(capsys, "bad_record")


def test_nested_folders_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_folder(tmp_path / "source", FILES)
    for a, b in ((source, source), (source, source / "out"), (source, tmp_path)):
        assert run(a, b) == 1
        check_error(capsys, "nested_folders")


def test_about_needs_no_folders(capsys: pytest.CaptureFixture[str]) -> None:
    assert modelnet40.main(["--about"]) == 0
    printed = capsys.readouterr().out
    assert modelnet40.DATA_SET.source in printed
    assert "licence" in printed
    with pytest.raises(SystemExit):
        modelnet40.main([])
