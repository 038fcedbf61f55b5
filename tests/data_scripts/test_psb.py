from __future__ import annotations

from pathlib import Path

import pytest
from error_codes import raises_code
from fake_archives import check_error, off, table, write_folder, write_zip

from data_scripts import psb
from data_scripts.errors import DataError
from mvretrieval.evaluation.evaluation_set import read_classes
from mvretrieval.ingest.labels_csv import read_labels

TRAIN = """PSB 1
4 3

aircraft 0 0

airplane aircraft 1
7

F117\tairplane   2 812
100
insect 0 0
"""
TEST = "PSB 1\n2 2\nanimal 0 0\ndog animal 2\n86\n1800\n"
MODELS = {f"psb/benchmark/db/{i // 100}/m{i}/m{i}.off": off(i) for i in (7, 100, 812, 86, 1800, 900)}
BASE = "psb/benchmark/classification/v1/base"
COARSE = {"psb/benchmark/classification/v1/coarse1/test.cla": b"PSB 1\n0 0\n"}
FILES = MODELS | COARSE | {f"{BASE}/train.cla": TRAIN.encode(), f"{BASE}/test.cla": TEST.encode()}


def test_labels_are_the_paths_of_the_base_classification(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert psb.main([str(write_zip(tmp_path / "psb_v1.zip", FILES)), str(out)]) == 0
    rows = {row["name"]: row for row in table(out / "labels.csv")}
    assert {name: (row["split"], row["label"]) for name, row in rows.items()} == {
        "m7": ("train", "aircraft/airplane"),
        "m812": ("train", "aircraft/airplane/F117"),
        "m100": ("train", "aircraft/airplane/F117"),
        "m86": ("test", "animal/dog"),
        "m1800": ("test", "animal/dog"),
    }
    assert rows["m812"]["file"] == "train/aircraft__airplane__F117/m812.off"
    assert (rows["m812"]["leaf_class"], rows["m812"]["top_class"]) == ("F117", "aircraft")
    assert (out / rows["m812"]["file"]).read_bytes() == off(812)
    assert len(read_labels(out / "labels.csv").rows) == 5
    assert read_classes(out / "unseen-classes.txt") == {"animal/dog"}
    printed = capsys.readouterr()
    assert printed.out.startswith("mvr index psb-collection/ ")
    assert "2 train classes, published: 90" in printed.err
    assert "missing" not in printed.err


def test_missing_models_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lacking = {name: data for name, data in FILES.items() if "m86" not in name}
    assert psb.main([str(write_folder(tmp_path / "psb", lacking)), str(tmp_path / "out")]) == 0
    assert "1 classified models missing: m86" in capsys.readouterr().err
    assert len(table(tmp_path / "out/labels.csv")) == 4


def test_a_missing_classification_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lacking = {name: data for name, data in FILES.items() if not name.endswith("base/test.cla")}
    assert psb.main([str(write_folder(tmp_path / "psb", lacking)), str(tmp_path / "out")]) == 1
    check_error(capsys, "missing_labels", "base/test.cla")
    assert psb.main([str(write_folder(tmp_path / "other", {"a.txt": b""})), str(tmp_path / "out")]) == 1
    check_error(capsys, "wrong_data_set")


@pytest.mark.parametrize(
    ("text", "code", "value"),
    [
        ("", "truncated", ""),
        ("OFF\n4 4 0", "not_cla", "'OFF 4'"),
        ("PSB 2\n0 0", "not_cla", "'PSB 2'"),
        ("PSB 1\n1 1\ndog 0 2 86", "truncated", ""),
        ("PSB 1\n1 1\ndog 0 many", "not_a_number", "many"),
        ("PSB 1\n2 0\ndog animal 0\nanimal 0 0", "missing_parent", "'animal'"),
        ("PSB 1\n2 0\ndog 0 0\ndog 0 0", "duplicate_class", "'dog'"),
        ("PSB 1\n1 2\ndog 0 1 86", "wrong_model_count", "2"),
        ("PSB 1\n1 2\ndog 0 2 86 86", "wrong_model_count", "1 distinct"),
        ("PSB 1\n1 1\ndog 0 1 86 87", "trailing_data", "87"),
    ],
)
def test_a_damaged_classification_is_refused(text: str, code: str, value: str) -> None:
    with raises_code(DataError, code, value):
        psb.read_cla(text)


def test_the_example_of_the_format_page(tmp_path: Path) -> None:
    text = "PSB 1\n5 17\naircraft 0 4 1119 1121 1123 1125\nanimal 0 0\nquadruped animal 0\n"
    text += "dog quadruped 7 86 87 88 89 90 91 92\nhorse quadruped 6 103 104 105 106 107 108\n"
    assert [(one.path, len(one.models)) for one in psb.read_cla(text)] == [
        ("aircraft", 4),
        ("animal/quadruped/dog", 7),
        ("animal/quadruped/horse", 6),
    ]
