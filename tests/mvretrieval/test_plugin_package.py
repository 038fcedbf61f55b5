"""The package of examples/plugins, built and installed into a folder of its own, in every command that names its parts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


def mvr(environment: dict[str, str], *arguments: object, fails: bool = False) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mvretrieval", *map(str, arguments)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout


def test_the_four_plugins(environment: dict[str, str], tmp_path: Path) -> None:
    meshes, things = tmp_path / "meshes", tmp_path / "things"
    files = write_shapes(meshes, range(8))
    rows = "".join(f"{file.name},{'ab'[i % 2]}\n" for i, file in enumerate(files))
    (meshes / "labels.csv").write_text("file,label\n" + rows)
    flags = ("--encoder", "thumbnail:8", "--backend", "outline", "--rig", "ring:3@30", "--size", 64, "--workers", 1)
    mvr(environment, "index", things, meshes, "--labels", meshes / "labels.csv", *flags)
    facts = json.loads(mvr(environment, "info", things, "--json"))
    assert facts["objects"] == 8 and facts["encoder"]["id"] == "thumbnail:8"

    # The stored backend is used again without --backend, and a mesh finds itself.
    hit = json.loads(mvr(environment, "search", things, "--mesh", files[2], "-k", 1, "--json"))
    assert hit["id"] == files[2].name and hit["score"] == pytest.approx(1, abs=1e-3)
    other = mvr(environment, "search", things, "--mesh", files[2], "--backend", "raster", fails=True)
    assert "outline:1" in other

    adapter = tmp_path / "adapter"
    training = ("--whiten", 0, "--folds", 0, "--max-steps", 3, "--out", adapter, "--device", "cpu")
    mvr(environment, "train", things, "--pooling", "central", "--loss", "triplet", *training)
    config = json.loads((adapter / "config.json").read_text())
    assert (config["network"]["kind"], config["plugin"]) == ("central", "central-1")
    mvr(environment, "reindex", things, "--adapter", adapter)
    hits = [
        json.loads(line) for line in mvr(environment, "search", things, "--id", files[0].name, "--json").splitlines()
    ]
    assert len(hits) == 7 and all(sum(hit["view_weights"][0]) == pytest.approx(1, abs=1e-3) for hit in hits)

    doctor = mvr(environment, "doctor")
    assert "mvr-example-plugins 1.0" in doctor and "central" in doctor
    without = dict(environment, PYTHONPATH="")
    assert "another package" in mvr(without, "search", things, "--id", files[0].name, fails=True)


def test_the_outlines_are_black_on_white(environment: dict[str, str], tmp_path: Path) -> None:
    (file,) = write_shapes(tmp_path / "meshes", [1])
    mvr(
        environment,
        "render",
        file,
        "--out",
        tmp_path / "views",
        "--rig",
        "ring:3@30",
        "--backend",
        "outline",
        "--size",
        128,
    )
    (image, *_) = sorted((tmp_path / "views").rglob("*.png"))
    pixels = np.asarray(Image.open(image).convert("L"))
    assert set(np.unique(pixels)) == {0, 255} and 0.005 < (pixels == 0).mean() < 0.2


def test_an_unknown_name_lists_the_known_ones(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "meshes").mkdir()
    write_shapes(tmp_path / "meshes", [1])
    for flag, value, known in (("--encoder", "thumbnails:8", "thumbnail"), ("--backend", "outlines", "outline")):
        assert known in mvr(environment, "index", tmp_path / "c", tmp_path / "meshes", flag, value, fails=True)
