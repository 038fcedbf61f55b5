"""Build the wheel, install it outside the checkout, index and search."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from made_meshes import write_shapes

from mvretrieval import __version__

CHECKOUT = Path(__file__).parents[2]


def _run(*command: object, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["NUMBA_DISABLE_JIT"] = "1"  # compiling the renderer takes longer than drawing two small meshes without
    done = subprocess.run(
        [str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_wheel_alone_indexes_and_searches(tmp_path: Path) -> None:
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    # Build from a copy: a build writes into its source folder.
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    for name in ("mvretrieval", "render", "training"):
        if (CHECKOUT / name).is_dir():
            shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    _run(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", source, cwd=tmp_path
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")

    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    _run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        "--no-compile",
        wheel,
        cwd=tmp_path,
    )
    site = next((home / "lib").glob("python*/site-packages"))
    # Use the installed dependencies, which are hundreds of megabytes. Their folder also holds the .pth file that makes the
    # checkout importable; Python reads it only in the folder's own environment.
    (site / "dependencies.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n{sysconfig.get_paths()['platlib']}\n")
    where = "import mvretrieval, mvrender, sys; print(mvretrieval.__file__, mvrender.__file__, *sys.path, sep='\\n')"
    own, renderer, *paths = _run(python, "-c", where, cwd=tmp_path).splitlines()
    assert Path(own).is_relative_to(home) and Path(renderer).is_relative_to(home)
    assert not any(Path(path).resolve() in (CHECKOUT, CHECKOUT / "render") for path in paths if path)

    mvr = home / "bin" / "mvr"
    assert _run(mvr, "--version", cwd=tmp_path) == f"mvretrieval {__version__}\n"
    assert wheel.name.startswith(f"mvretrieval-{__version__}-")

    write_shapes(tmp_path / "meshes", range(2))
    flags = ["--encoder", "builtin:", "--rig", "ring:3@30", "--size", "64", "--workers", "1"]
    assert "2 added" in _run(mvr, "index", "c", "meshes", *flags, cwd=tmp_path)
    lines = _run(mvr, "search", "c", "--mesh", "meshes/shape-001.ply", "--json", cwd=tmp_path).splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["shape-001.ply", "shape-000.ply"]
