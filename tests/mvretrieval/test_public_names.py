"""`import mvretrieval`: quick, with real types and complete names."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mvretrieval

CHECKOUT = Path(__file__).parents[2]

_SCRIPT = """\
from mvretrieval import Client, Collection, Hit, Query, Term, __version__, open_encoder

reveal_type(Collection)
reveal_type(__version__)
with Collection.open("things/") as things:
    hits = things.search(Query(mesh="chair.glb", terms=[Term("text", "wooden", 0.5)]))
    reveal_type(hits)
    reveal_type(hits[0].score)
reveal_type(open_encoder)

from mvretrieval import Colection
"""


def test_dir_is_the_public_names() -> None:
    assert dir(mvretrieval) == sorted([*mvretrieval.__all__, "__version__"])
    assert mvretrieval.__all__ == sorted(mvretrieval._MODULES)
    for name in mvretrieval.__all__:
        module = importlib.import_module(mvretrieval._MODULES[name])
        assert getattr(mvretrieval, name) is getattr(module, name)
    with pytest.raises(AttributeError, match="no attribute 'Colection'"):
        mvretrieval.Colection  # type: ignore[attr-defined] # noqa: B018


def test_the_typed_imports_are_the_lazy_ones() -> None:
    text = Path(mvretrieval.__file__).read_text(encoding="utf-8")
    typed = {
        name: module
        for module, names in re.findall(r"^    from (mv\S+) import (.+)$", text, re.MULTILINE)
        for name in names.split(", ")
    }
    assert typed == mvretrieval._MODULES


def test_import_loads_nothing_heavy() -> None:
    program = (
        "import sys, mvretrieval, mvretrieval.cli.main;"
        " print([m for m in ('torch', 'faiss', 'tyro', 'numpy', 'tqdm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_user_s_script_type_checks(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "script.py").write_text(_SCRIPT)
    # What libraries contain does not matter here, and checking it takes seconds.
    libraries = (
        "torch numpy PIL httpx jinja2 lark faiss trimesh open_clip safetensors huggingface_hub tqdm sklearn scipy numba"
    )
    sections = "".join(f"[mypy-{name}.*]\nfollow_imports = skip\n" for name in libraries.split())
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nstrict = True\n{sections}")
    paths = os.pathsep.join(map(str, (CHECKOUT, CHECKOUT / "render", CHECKOUT / "training")))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", os.devnull, "script.py"],  # mypy 1.11 fails to cache some types
        cwd=tmp_path,
        env=os.environ | {"MYPYPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert len(found) == 5 and not any("Any" in text for text in found[:4]), done.stdout + done.stderr
    assert "mvretrieval.api.Collection" in found[0]
    assert "Hit" in found[2] and "float" in found[3]
    errors = [line for line in done.stdout.splitlines() if line.startswith("script.py") and " error: " in line]
    assert len(errors) == 1 and 'has no attribute "Colection"' in errors[0], done.stdout
