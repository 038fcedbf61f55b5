"""Common behaviour of all scripts."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from fake_archives import check_error, write_zip

from data_scripts import command
from data_scripts.__main__ import SCRIPTS

FOLDER = Path(command.__file__).parent


def test_nothing_is_imported_that_the_readme_does_not_name() -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "PIL", "trimesh", "h5py", "data_scripts"}
    for file in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= allowed, file


def test_every_script_is_listed_and_documented() -> None:
    helpers = {"archives", "checks", "command", "downloads", "errors", "layout", "point_views"}
    scripts = {file.stem for file in FOLDER.glob("*.py") if not file.stem.startswith("__")} - helpers
    assert {script.DATA_SET.name for script in SCRIPTS} == scripts
    readme = (FOLDER / "README.md").read_text()
    assert all(f"| `{name}` |" in readme for name in scripts)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.DATA_SET.name)
def test_about_states_source_and_licence(script: object, capsys: pytest.CaptureFixture[str]) -> None:
    data_set = script.DATA_SET  # type: ignore[attr-defined]
    assert script.main(["--about"]) == 0  # type: ignore[attr-defined]
    printed = " ".join(capsys.readouterr().out.split())
    for known in (data_set.title, data_set.source, data_set.licence, data_set.verified):
        assert " ".join(known.split()) in printed


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.DATA_SET.name)
def test_a_wrong_archive_is_an_error(script: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_zip(tmp_path / "photos.zip", {"holiday/beach.jpg": b"sand"})
    assert script.main([str(source), str(tmp_path / "out")]) == 1  # type: ignore[attr-defined]
    printed = capsys.readouterr()
    assert not printed.out
    assert printed.err.startswith("error: ") and printed.err.endswith("]\n")
    assert "wrong_data_set" in printed.err or "missing_labels" in printed.err
    assert not (tmp_path / "out").exists()
    assert script.main([str(tmp_path / "nothing.zip"), str(tmp_path / "out")]) == 1  # type: ignore[attr-defined]
    check_error(capsys, "no_source", "nothing.zip")


def test_a_full_disk_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from data_scripts import modelnet40
    from data_scripts.layout import Layout

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Layout, "write", full)
    source = write_zip(tmp_path / "m.zip", {"bed/train/bed_0001.off": b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"})
    assert modelnet40.main([str(source), str(tmp_path / "out")]) == 1
    assert "No space left on device" in capsys.readouterr().err
