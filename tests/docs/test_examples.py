"""The examples run, on procedural shapes, and print what they find."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from doc_pages import ROOT

EXAMPLES = ROOT / "examples"
# Script -> what its output must contain.
_OUTPUT = {
    "index_and_search.py": r"48 objects, 0 failures\n1\. mug/mug_\d\d\.glb",
    "search_with_a_mixture.py": r"gear, confidence from 0\.5: gear/gear_\d\d\.glb (0\.[5-9]|1\.0)",
    "train_an_adapter.py": r"mAP +0\.9\d+ +0\.9\d+ +\+0\.0",
    "zero_shot_classification.py": r"objects +0\.[6-9]",
    "use_a_service.py": r"24 objects\n1 mug/mug_0\d\.glb [\d.]+\n2 .*\nnew-mug\.glb\n1 removed",
}


# On published data sets, which tests/examples makes in miniature.
_ON_DATA_SETS = {"zero_shot_modelnet40.py", "zero_shot_objaverse_lvis.py", "open_set_os3dor.py"}


def test_every_example_is_tested() -> None:
    assert set(_OUTPUT) | _ON_DATA_SETS == {path.name for path in EXAMPLES.glob("*.py")}
    tests = (ROOT / "tests" / "examples" / "test_data_set_scripts.py").read_text(encoding="utf-8")
    assert all(f'run("{name.removesuffix(".py")}"' in tests for name in _ON_DATA_SETS)


def test_the_page_lists_every_example() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\w+\.(?:py|ipynb))\)", page)) == {
        path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", _OUTPUT)
def test_example(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("", "render", "training"))}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), str(tmp_path)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(_OUTPUT[name], done.stdout), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.name)
def test_notebook(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(ROOT / part) for part in ("", "render", "training")))
    notebook = nbformat.read(path, as_version=4)
    stored = [_kinds(cell) for cell in notebook.cells]
    nbclient.NotebookClient(notebook, timeout=None, kernel_name="python3").execute()
    assert [_kinds(cell) for cell in notebook.cells] == stored, "its outputs are old: run it again and save it"


def _kinds(cell: dict[str, Any]) -> list[set[str]]:
    """What a cell's outputs are, without progress bars. PIL also gives a JPEG, which is not stored."""
    outputs = [output for output in cell.get("outputs", ()) if output.get("name") != "stderr"]
    return [set(output.get("data", {"text": ""})) - {"image/jpeg"} for output in outputs]
