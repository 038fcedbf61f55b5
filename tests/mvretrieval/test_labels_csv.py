"""Labels from a CSV: paths, types, and errors."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from error_codes import raises_code
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mvretrieval.errors import LabelsError
from mvretrieval.ingest.labels_csv import read_labels


def _write(folder: Path, text: str | bytes) -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def _column(folder: Path, cells: list[str]) -> list[Any]:
    path = folder / "labels.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["file", "x"], *([f"{i}.obj", cell] for i, cell in enumerate(cells))])
    return [row["x"] for row in read_labels(path).rows.values()]


def test_files_are_relative_to_the_csv(tmp_path: Path) -> None:
    path = _write(tmp_path, "file,label\na.obj,x\nsub/b.obj,y\n../c.obj,z\n/abs/d.obj,w\n")
    labels = read_labels(path)
    assert labels.columns == ("label",)
    assert {file: row["label"] for file, row in labels.rows.items()} == {
        f"{tmp_path}/a.obj": "x",
        f"{tmp_path}/sub/b.obj": "y",
        f"{tmp_path.parent}/c.obj": "z",
        "/abs/d.obj": "w",
    }


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", " 2 ", "-3", "+4"], [1, 2, -3, 4]),
        (["1", "2.5", "1e3", ".5"], [1.0, 2.5, 1000.0, 0.5]),
        (["1", "two"], ["1", "two"]),
        (["1", "", "nan", "None", "NULL", "n/a"], [1, None, None, None, None, None]),
        (["", ""], [None, None]),
        (["007", "12"], ["007", "12"]),
        (["007", "1.5"], ["007", "1.5"]),
        (["0", "-0", "0.5"], [0.0, -0.0, 0.5]),
        (["1_000", "2"], ["1_000", "2"]),
        (["inf", "1"], ["inf", "1"]),
        (["1e999", "1"], ["1e999", "1"]),
        (["٣", "1"], ["٣", "1"]),
        (["9223372036854775807", "1"], [9223372036854775807, 1]),
        (["9223372036854775808", "1"], ["9223372036854775808", "1"]),
        (["9" * 5000, "1"], ["9" * 5000, "1"]),
        (["a chair ", 'it\'s; "x"'], ["a chair", 'it\'s; "x"']),
    ],
)
def test_type_of_a_column(cells: list[str], values: list[Any], tmp_path: Path) -> None:
    found = _column(tmp_path, cells)
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8),
            st.from_regex(r"[-+]?[0-9.e]+", fullmatch=True),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_column_has_one_type(tmp_path: Path, cells: list[str]) -> None:
    found = [value for value in _column(tmp_path, cells) if value is not None]
    assert len({type(value) for value in found}) <= 1
    for value in found:
        assert not isinstance(value, int) or -(1 << 63) <= value < 1 << 63


def test_quotes_newlines_and_byte_order_mark(tmp_path: Path) -> None:
    path = _write(tmp_path, b'\xef\xbb\xbffile, label \r\n"a,\n b.obj","say ""hi"""\r\n')
    labels = read_labels(path)
    assert labels.rows == {f"{tmp_path}/a,\n b.obj": {"label": 'say "hi"'}}


@pytest.mark.parametrize(("row", "n_cells"), [("x.obj,1", 2), ("x.obj", 1), ("x.obj,2,3,4,5", 5)])
def test_short_and_long_rows_are_refused(row: str, n_cells: int, tmp_path: Path) -> None:
    """A lost cell would remove the label that an object has."""
    with raises_code(
        LabelsError, "csv_row_length", f"line 3: {n_cells} cell{'' if n_cells == 1 else 's'} for 3 columns"
    ):
        read_labels(_write(tmp_path, f"file,a,b\ny.obj,1,2\n{row}\n"))


def test_empty_lines_are_skipped(tmp_path: Path) -> None:
    assert list(read_labels(_write(tmp_path, "file,a\n\nx.obj,1\n\n")).rows.values()) == [{"a": 1}]


def test_up_is_an_axis_and_not_a_label(tmp_path: Path) -> None:
    labels = read_labels(_write(tmp_path, "file,up,a\nx.obj,+Z,1\ny.obj,,2\n"))
    assert labels.up == {f"{tmp_path}/x.obj": "+z"} and labels.columns == ("a",)


def test_duplicate_rows_are_one_row(tmp_path: Path) -> None:
    assert len(read_labels(_write(tmp_path, "file,a\nx.obj,1\n./x.obj,1\n")).rows) == 1


@pytest.mark.parametrize(
    ("text", "code", "contained"),
    [
        ("name,label\nx.obj,1\n", "no_such_column", "name, label"),
        ("", "no_such_column", "none"),
        ("file;label\nx.obj;1\n", "no_such_column", "commas"),
        ("file,a\n,1\n", "empty_cell", "line 2"),
        ('file,a\nx.obj,1\n"y\nz.obj",2\n,3\n', "empty_cell", "line 5"),
        ("file,up\nx.obj,+w\n", "bad_up_axis", "line 2: up is one of +y, -y, +z, -z, +x, -x, not '+w'"),
        ("file,a\nx.obj,1\nx.obj,2\n", "contradictory_rows", "line 3: x.obj"),
        ("file,Label,label\nx.obj,1,2\n", "duplicate_column", "'Label' and 'label'"),
        ("file,a,a\nx.obj,1,2\n", "duplicate_column", "'a' and 'a'"),
        (b"file,a\nx.obj,caf\xe9\n", "not_utf8", "labels.csv"),
        ("file,a\nx\x00.obj,1\n", "not_text", "NUL"),
        ("file,a\nx.obj," + "y" * 200_000, "csv_unreadable", "field larger"),
        ("file," + ",".join(f"c{i}" for i in range(1200)) + "\n", "too_many_columns", "1201"),
    ],
)
def test_bad_labels_are_an_error(text: str | bytes, code: str, contained: str, tmp_path: Path) -> None:
    with raises_code(LabelsError, code, contained):
        read_labels(_write(tmp_path, text))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with raises_code(LabelsError, "csv_unreadable", "nothing.csv"):
        read_labels(tmp_path / "nothing.csv")
    with raises_code(LabelsError, "csv_unreadable", str(tmp_path)):
        read_labels(tmp_path)
