"""The experiments of examples/ on published data sets run on miniature ones, which data_scripts prepares."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tyro
from doc_pages import ROOT
from PIL import Image
from tiny_clip import tiny_clip

from data_scripts import modelnet40, objaverse_lvis, open_set
from mvrender.backends.selection import open_renderer
from mvrender.cameras import parse_rig
from mvrender.mesh import Mesh, normalize
from mvretrieval.evaluation.reproduce.table import read_table
from mvretrieval.procedural_shapes import make_object

SCRIPTS = ("zero_shot_modelnet40", "zero_shot_objaverse_lvis", "open_set_os3dor")
SMALL = ("--encoder", "--rig", "ring:3@30", "--size", "64", "--device", "cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: object) -> dict[str, Any]:
    """Run a script in this process, which knows the tiny model; returns the content of its result.json."""
    module = script(name)
    options = tyro.cli(module.Options, args=[str(one) for one in arguments])
    module.main(options)
    record: dict[str, Any] = json.loads((options.out / "result.json").read_text())
    assert record["command"] == name and record["versions"]["mvretrieval"] and record["options"]["encoder"]
    return dict(record["result"])


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def mesh_bytes(shape: str, seed: int, kind: str) -> bytes:
    data = make_object(shape, seed).export(file_type=kind)
    return data.encode() if isinstance(data, str) else bytes(data)


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        tyro.cli(script(name).Options, args=["--help"])
    assert ended.value.code == 0 and "--encoder" in capsys.readouterr().out


@pytest.mark.slow
def test_modelnet40(tmp_path: Path, clip: str, capsys: pytest.CaptureFixture[str]) -> None:
    shapes = {"chair": "chair", "flower_pot": "mug", "night_stand": "table"}
    files = {
        f"ModelNet40/{label}/{split}/{label}_{i:04}.off": mesh_bytes(shape, i, "off")
        for label, shape in shapes.items()
        for i, split in enumerate(("train", "test", "test"))
    }
    data, out = tmp_path / "data", tmp_path / "results"
    assert modelnet40.main([str(write(tmp_path / "source", files)), str(data)]) == 0
    arguments = (data, out, SMALL[0], clip, *SMALL[1:], "--templates", "photo", "renders")
    capsys.readouterr()
    result = run("zero_shot_modelnet40", *arguments)
    printed = capsys.readouterr().out
    assert "6 of 2468 objects, 3 of 40 classes, 0 failed" in printed
    assert re.search(r"^MV-CLIP +CLIP +nothing +84\.4$", printed, re.MULTILINE)
    assert "Duoduo" not in printed
    assert [(one["prompts"], one["fusion"]) for one in result["runs"]] == [
        (prompts, fusion)
        for prompts in ("photo", "renders")
        for fusion in ("mean of features", "mean of scores", "4 most certain views")
    ]
    for one in result["runs"]:
        # Three classes of two objects: the mean over the objects is the mean over the classes.
        assert (one["objects"], one["candidates"]) == (6, 3) and one["top3"] == 1
        assert one["top1"] == pytest.approx(one["class_mean_top1"]) and 0 <= one["top1"] <= 1
    assert run("zero_shot_modelnet40", *arguments) == result  # from the stored views


def test_objaverse_lvis(tmp_path: Path, clip: str, capsys: pytest.CaptureFixture[str]) -> None:
    categories = {
        "bow_(weapon)": ["u1", "u2"],
        "bow_(decorative_ribbons)": ["u3"],
        "Christmas_tree": ["u4"],
        "gear": ["u4"],
    }
    files = {
        f"glbs/000-000/u{i}.glb": mesh_bytes(shape, i, "glb")
        for i, shape in enumerate(("chair", "lamp", "gear", "tree"), 1)
    }
    files["lvis-annotations.json.gz"] = gzip.compress(json.dumps(categories).encode())
    data, out = tmp_path / "data", tmp_path / "results"
    assert objaverse_lvis.main([str(write(tmp_path / "source", files)), str(data)]) == 0
    capsys.readouterr()
    result = run("zero_shot_objaverse_lvis", data, out, SMALL[0], clip, *SMALL[1:], "--templates", "photo")
    printed = capsys.readouterr().out
    # The default naming would merge the two bows. Only the fourth object is a gear, and its first category is the label.
    assert "4 of 46832 objects, 4 of 1156 classes, 0 failed" in printed
    assert re.search(r"^Duoduo CLIP, 12 views .* 55\.2$", printed, re.MULTILINE)
    for one in result["runs"]:
        assert one["candidates"] == 4 and not one["merged_labels"] and one["top5"] == 1


@pytest.mark.slow
def test_open_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files: dict[str, bytes] = {}
    lists: dict[str, list[str]] = {"query": [], "target": []}
    for shape in ("chair", "mug", "gear", "plane"):
        for i in range(4):
            files |= _views(f"train/{shape}/{shape}_{i}", shape, i)
    for shape in ("table", "rocket", "bottle", "lamp", "house"):
        for i in range(4):
            split = "query" if i < 2 else "target"
            files |= _views(f"{split}/{shape}_{i}", shape, i)
            lists[split].append(f"{shape}_{i},{shape}")
    files |= {f"{split}_label.txt": "\n".join(lines).encode() for split, lines in lists.items()}
    data, out = tmp_path / "data", tmp_path / "results"
    assert open_set.main([str(write(tmp_path / "source", files)), str(data), "--set", "esb"]) == 0
    arguments = (data, out, "--set", "esb", "--encoder", "builtin:", "--size", 64, "--device", "cpu")
    training = ("--seeds", 0, 1, "--whiten", 16, "--max-steps", 50)
    capsys.readouterr()
    result = run("open_set_os3dor", *arguments, *training)
    printed = capsys.readouterr().out
    assert "OS-ESB-core: 10 of 120 queries, 10 of 452 targets" in printed
    assert list(result["runs"]) == ["mean of views", "adapter, seed 0", "adapter, seed 1"]
    assert re.search(r"^adapter, mean +[\d.]+ ± [\d.]+ ", printed, re.MULTILINE)
    assert re.search(r"^DEC +DINOv3 ViT-L/16 +adapter +no +62\.75$", printed, re.MULTILINE)
    assert "HGM2R" not in printed  # transductive
    for one in result["runs"].values():
        assert 0.5 <= one["mAP"] <= 1 and 0 <= one["ANMRR"] <= 0.5 and one["NDCG@100"] < 0.1
    assert len({one["mAP"] for one in result["runs"].values()}) > 1  # the adapters change the rankings
    assert (out / "adapter-1" / "config.json").exists()
    assert run("open_set_os3dor", *arguments, *training) == result  # the collection is unchanged


def _views(folder: str, shape: str, seed: int) -> dict[str, bytes]:
    """Four of the 24 views of an object, in the layout of the release."""
    made = make_object(shape, seed)
    mesh = normalize(Mesh(made.vertices.astype(np.float32), made.faces.astype(np.int32)), "extent")
    images = open_renderer("raster").render(mesh, parse_rig("ring:4@30"), ("clay",), 64).images
    found = {}
    for i, image in enumerate(images[0]):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG")
        found[f"{folder}/image/h_{90 * i}.jpg"] = file.getvalue()
    return found


def test_the_published_sizes_are_those_of_data_scripts() -> None:
    module = script("open_set_os3dor")
    known = {name: (one.title, one.query, one.target) for name, one in open_set.PUBLISHED.items()}
    assert known == module.SETS
    for title, *_ in module.SETS.values():
        assert all(title in one.values for one in read_table("open-set").published)
