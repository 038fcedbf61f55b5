"""The package of examples/plugins, built and installed into a folder of its own, in every command that names its parts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from made_meshes import write_shapes
from PIL import Image

PACKAGE = Path(__file__).parents[2] / "examples" / "plugins"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
            "--target", str(folder), str(PACKAGE),
        ],
        check=True,
    )  # fmt: skip
    return dict(os.environ, PYTHONPATH=str(folder))


RUN_ALL = """
import contextlib, io, json, sys
from mvretrieval.cli.main import _main

if __name__ == "__main__":
    for line in json.loads(sys.argv[1]):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = _main(line)
        print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""
LIST_PLUGINS = (
    "from mvretrieval.cli.doctor import _plugins; print(_plugins())"  # the rest of `mvr doctor` takes seconds
)


def run_all(environment: dict[str, str], folder: Path, *lines: Sequence[object]) -> list[tuple[int, str, str]]:
    """Run `mvr` with each list of arguments, in one process. Returns exit code, stdout and stderr of each."""
    script = folder / "run_all.py"
    script.write_text(RUN_ALL)
    command = [sys.executable, str(script), json.dumps([[str(argument) for argument in line] for line in lines])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_the_four_plugins(environment: dict[str, str], tmp_path: Path) -> None:
    meshes, things, adapter = tmp_path / "meshes", tmp_path / "things", tmp_path / "adapter"
    files = write_shapes(meshes, range(8))
    rows = "".join(f"{file.name},{'ab'[i % 2]}\n" for i, file in enumerate(files))
    (meshes / "labels.csv").write_text("file,label\n" + rows)
    flags = ("--encoder", "thumbnail:8", "--backend", "outline", "--rig", "ring:3@30", "--size", 64, "--workers", 1)
    training = ("--whiten", 0, "--folds", 0, "--max-steps", 3, "--out", adapter, "--device", "cpu")
    plain = tmp_path / "plain"
    by_mesh = ("search", things, "--mesh", files[2], "-k", 1, "--json")
    index, info, search, other, train, reindex, weighted, *refused, unweighted = run_all(
        environment,
        tmp_path,
        ("index", things, meshes, "--labels", meshes / "labels.csv", *flags),
        ("info", things, "--json"),
        by_mesh,
        ("search", things, "--mesh", files[2], "--backend", "raster"),
        ("train", things, "--pooling", "central", "--loss", "triplet", *training),
        ("reindex", things, "--adapter", adapter),
        ("search", things, "--id", files[0].name, "--json"),
        ("index", tmp_path / "c", meshes, "--encoder", "thumbnails:8"),
        ("index", tmp_path / "c", meshes, "--backend", "outlines"),
        (
            "index",
            plain,
            files[0].parent,
            "--encoder",
            "thumbnail:8",
            "--rig",
            "ring:3@30",
            "--size",
            64,
            "--workers",
            1,
        ),
    )
    encoder, backend = refused
    for code, _, error in (index, info, search, train, reindex, weighted, unweighted):
        assert code == 0, error
    facts = json.loads(info[1])
    assert facts["objects"] == 8 and facts["encoder"]["id"] == "thumbnail:8"

    # The stored backend is used again without --backend, and a mesh finds itself.
    hit = json.loads(search[1])
    assert hit["id"] == files[2].name and hit["score"] == pytest.approx(1, abs=1e-3)
    assert other[0] == 1 and "outline:1" in other[2]

    config = json.loads((adapter / "config.json").read_text())
    assert (config["network"]["kind"], config["plugin"]) == ("central", "central-1")
    hits = [json.loads(line) for line in weighted[1].splitlines()]
    assert len(hits) == 7 and all(sum(hit["view_weights"][0]) == pytest.approx(1, abs=1e-3) for hit in hits)

    listed = subprocess.run(
        [sys.executable, "-c", LIST_PLUGINS], env=environment, capture_output=True, text=True, check=True
    )
    assert "mvr-example-plugins 1.0" in listed.stdout and "central" in listed.stdout
    assert encoder[0] != 0 and "'thumbnail'" in encoder[2]
    assert backend[0] != 0 and "outline" in backend[2].split("choose")[1]

    without = dict(environment, PYTHONPATH="")
    by_id, info = run_all(without, tmp_path, ("search", things, "--id", files[0].name), ("info", plain))
    assert by_id[0] == 1 and "install the package" in by_id[2]
    assert info[0] == 0 and "thumbnail:8" in info[1], info[2]


def test_the_outlines_are_black_on_white(environment: dict[str, str], tmp_path: Path) -> None:
    (file,) = write_shapes(tmp_path / "meshes", [1])
    flags = ("--rig", "ring:3@30", "--backend", "outline", "--size", 128)
    ((code, _, error),) = run_all(environment, tmp_path, ("render", file, "--out", tmp_path / "views", *flags))
    assert code == 0, error
    (image, *_) = sorted((tmp_path / "views").rglob("*.png"))
    pixels = np.asarray(Image.open(image).convert("L"))
    assert set(np.unique(pixels)) == {0, 255} and 0.005 < (pixels == 0).mean() < 0.2
