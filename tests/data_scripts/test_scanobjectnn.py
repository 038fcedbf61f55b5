from __future__ import annotations

import io
from pathlib import Path

import h5py
import numpy as np
import pytest
import trimesh
from fake_archives import check_error, files_of, table, write_folder, write_zip
from PIL import Image

from data_scripts import point_views, scanobjectnn
from data_scripts.layout import Layout
from mvrender.cameras import ring
from mvretrieval.ingest.labels_csv import read_labels


def cloud(n: int = 40, kind: int = 5) -> bytes:
    """A raw object; half of the points are labeled as wall."""
    points = np.random.default_rng(n).normal(size=(n, 11)).astype("<f4")
    points[:, 6:9] = 200
    points[:, 10] = np.where(np.arange(n) % 2, kind, 1)
    return np.concatenate([[n], points.ravel()]).astype("<f4").tobytes()


RAW = {
    "object_dataset/chair/005_00007.bin": cloud(40),
    "object_dataset/chair/005_00007_part.bin": b"parts",
    "object_dataset/bag/scene0000_00_00041.bin": cloud(60),
    "object_dataset/bag/005_00020.bin": cloud(80),
    "object_dataset/split_new.txt": b"005_00020.bin\t0\tt\n005_00007.bin\t4\nscene0000_00_00041.bin\t0\n",
}


def h5_file() -> bytes:
    """Three clouds of eight points: label 0, 9, 14; every fourth point is background. Compressed like the release."""
    file = io.BytesIO()
    with h5py.File(file, "w") as made:
        made.create_dataset(
            "data", data=np.arange(72, dtype=np.float32).reshape(3, 8, 3) / 10, compression="gzip", shuffle=True
        )
        made.create_dataset("label", data=np.array([0, 9, 14], np.uint8))
        made.create_dataset(
            "mask", data=np.where(np.arange(24).reshape(3, 8) % 4 == 0, -1, 5).astype(np.int8), chunks=(1, 8)
        )
    return file.getvalue()


H5 = {f"h5_files/main_split/{split}_objectdataset.h5": h5_file() for split in ("training", "test")}
FAST = ("--views", "4", "--size", "48")


def run(source: Path, out: Path, *more: str) -> int:
    return scanobjectnn.main([str(source), str(out), *FAST, *more])


def test_raw_objects_become_views_and_ply(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(write_zip(tmp_path / "object_dataset.zip", RAW), out) == 0
    assert {(row["file"], row["label"], row["split"]) for row in table(out / "labels.csv")} == {
        ("views/train/chair/005_00007", "chair", "train"),
        ("views/train/bag/scene0000_00_00041", "bag", "train"),
        ("views/test/bag/005_00020", "bag", "test"),
    }
    assert len(read_labels(out / "labels.csv").rows) == 3
    views = [row for row in table(out / "views.csv") if row["id"] == "views/train/chair/005_00007"]
    assert [row["file"].rsplit("/", 1)[-1] for row in views] == ["000.png", "001.png", "002.png", "003.png"]
    assert [row["azimuth_deg"] for row in views] == ["0", "90", "180", "270"]
    for row in views:
        with Image.open(out / row["file"]) as rendered:
            assert rendered.size == (48, 48)
            assert len(rendered.getcolors() or []) == 2  # white, and the colour of the points
    points = trimesh.load(out / "points/train/chair/005_00007.ply")
    assert points.vertices.shape == (40, 3)
    assert points.colors[0].tolist() == [200, 200, 200, 255]
    printed = capsys.readouterr()
    assert printed.out.startswith("mvr index scanobjectnn-collection/ --view-manifest ")
    assert "3 raw objects, published: 2,902" in printed.err


def test_background_can_be_removed(tmp_path: Path) -> None:
    assert run(write_folder(tmp_path / "raw", RAW), tmp_path / "out", "--no-background") == 0
    assert trimesh.load(tmp_path / "out/points/train/chair/005_00007.ply").vertices.shape == (20, 3)
    assert run(write_folder(tmp_path / "h5", H5), tmp_path / "out-h5", "--no-background") == 0
    assert trimesh.load(tmp_path / "out-h5/points/test/bag/test-00000.ply").vertices.shape == (6, 3)


def test_h5_files_have_class_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run(write_zip(tmp_path / "h5_files.zip", H5), out) == 0
    rows = table(out / "labels.csv")
    assert [(row["split"], row["label"]) for row in rows] == [
        (split, label) for split in ("test", "train") for label in ("bag", "table", "toilet")
    ]
    points = trimesh.load(out / "points/train/table/train-00001.ply")
    np.testing.assert_allclose(points.vertices, np.arange(24, 48).reshape(8, 3) / 10, rtol=1e-6)
    assert "3 train objects, published: 2,309" in capsys.readouterr().err


def test_a_damaged_object_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = RAW | {"object_dataset/bag/005_00020.bin": cloud(80)[:-4], "object_dataset/sink/005_00021.bin": b""}
    files |= {
        f"object_dataset/sink/005_0003{i}.bin": np.array([x], "<f4").tobytes()
        for i, x in enumerate((np.nan, np.inf, -1))
    }
    assert run(write_folder(tmp_path / "raw", files), tmp_path / "out") == 0
    assert len(table(tmp_path / "out/labels.csv")) == 2
    assert "bag/005_00020.bin has 3,520 bytes, not 3,524 for 80 points" in capsys.readouterr().err
    damaged = {name: data[:200] if "test_" in name else data for name, data in H5.items()}
    assert run(write_folder(tmp_path / "h5", damaged), tmp_path / "out-h5") == 1
    check_error(capsys, "corrupt_file", "test_objectdataset.h5")


def test_an_interrupted_run_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = write_folder(tmp_path / "raw", RAW), tmp_path / "out"
    write = Layout.write

    def interrupted(layout: Layout, file: str, data: bytes) -> None:
        if file.endswith("002.png"):
            raise KeyboardInterrupt
        write(layout, file, data)

    with monkeypatch.context() as patched:
        patched.setattr(Layout, "write", interrupted)
        assert run(source, out) == 130
    before = files_of(out)
    assert run(source, out) == 0
    after = files_of(out)
    assert {name: after[name] for name in before} == before
    assert len([name for name in after if name.endswith(".png")]) == 12


def test_missing_files_are_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splitless = write_folder(tmp_path / "raw", {n: d for n, d in RAW.items() if not n.endswith(".txt")})
    assert run(splitless, tmp_path / "out") == 1
    check_error(capsys, "missing_split", "split_new.txt")
    assert run(splitless, tmp_path / "out", "--split", "none") == 0
    assert {row["split"] for row in table(tmp_path / "out/labels.csv")} == {""}
    (splitless / "object_dataset/split_new.txt").write_bytes("005_00020.bin\tétagère\tt".encode("latin-1"))
    assert run(splitless, tmp_path / "out3") == 1
    check_error(capsys, "not_utf8", "split_new.txt")
    half = write_folder(tmp_path / "half", {n: d for n, d in H5.items() if "test_" not in n})
    assert run(half, tmp_path / "out2") == 1
    check_error(capsys, "missing_split", "test_ of main_split/*_objectdataset.h5")
    assert run(write_folder(tmp_path / "h5", H5), tmp_path / "out2", "--variant", "objectdataset_augmentedrot") == 1
    check_error(capsys, "missing_split", "--split main_split --variant objectdataset")
    assert run(write_folder(tmp_path / "other", {"a.off": b"OFF"}), tmp_path / "out2") == 1
    check_error(capsys, "wrong_data_set")


def test_other_options_need_another_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_folder(tmp_path / "raw", RAW)
    assert run(source, tmp_path / "out") == 0
    assert run(source, tmp_path / "out", "--size", "64") == 1
    check_error(capsys, "other_data_set", "64")


def test_cameras_agree_with_the_rigs() -> None:
    """A point in front of the camera hides the opposite point."""
    rig = ring(4, 30)
    for azimuth, direction in zip(point_views.azimuths_deg(4), rig.directions, strict=True):
        points = np.stack([direction, -direction]).astype(np.float32)
        colours = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
        image = np.asarray(point_views.draw(points, colours, azimuth, 30, 64))
        assert (image.reshape(-1, 3) == [255, 0, 0]).all(axis=1).any()
        assert not (image.reshape(-1, 3) == [0, 0, 255]).all(axis=1).any()


def test_orientation_of_the_image() -> None:
    points = np.array([[0, 1, 0], [1, 0, 0], [-1, -1, 0]], np.float32)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    image = np.asarray(point_views.draw(points, colours, 0, 0, 64))
    rows, columns = np.nonzero((image == [255, 0, 0]).all(axis=2))
    assert rows.max() < 24
    rows, columns = np.nonzero((image == [0, 255, 0]).all(axis=2))
    assert columns.min() > 40
